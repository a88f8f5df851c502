import type { Experiment } from "../api/types";
import type { Colours } from "./chart";
import { short } from "./numbers";
import { type TrialRow, parallel, type progress } from "./trials";

/** The parallel-coordinates plot: a line a trial, the colour says how good it is. `isNarrow` stands the axes one below the other. */
export function parallelOption(experiment: Experiment, table: TrialRow[], colours: Colours, isNarrow: boolean) {
  const { axes, lines } = parallel(experiment, table);
  const values = lines.map((one) => one[one.length - 1] as number);
  const scale = experiment.spec.objective.type === "minimize" ? [colours.good, colours.middle, colours.bad] : [colours.bad, colours.middle, colours.good];
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const halo = { textBorderColor: colours.card, textBorderWidth: 3 };
  return {
    animation: false,
    parallelAxis: axes.map((axis) => ({
      ...axis,
      nameGap: isNarrow ? 14 : 18,
      nameLocation: isNarrow ? "start" : "end",
      nameTextStyle: { color: colours.text, fontSize: 12.5, fontWeight: 600, ...halo, ...(isNarrow && { align: "left", verticalAlign: "bottom", padding: [0, 0, 12, 16] }) },
      axisLabel: { color: colours.text, fontSize: 11.5, hideOverlap: true, ...halo, ...(axis.type !== "category" && { formatter: (value: number) => short(value) }) },
      axisLine: { lineStyle: { color: colours.faint } },
      axisTick: { lineStyle: { color: colours.faint } },
      splitNumber: isNarrow ? 4 : 5,
    })),
    parallel: isNarrow
      ? { layout: "vertical", left: 24, right: 24, top: 40, bottom: 34 }
      : { left: 60, right: 90, top: 46, bottom: 24 },
    visualMap: { show: false, dimension: axes.length - 1, min: low, max: high === low ? low + 1 : high, inRange: { color: scale } },
    series: [
      {
        type: "parallel",
        lineStyle: { width: 2, opacity: 0.7 },
        emphasis: { lineStyle: { width: 4, opacity: 1 } },
        data: lines,
      },
    ],
  };
}

/** The value of each trial in the order of their ends, and the best so far. */
export function progressOption(name: string, points: ReturnType<typeof progress>, colours: Colours) {
  const axis = { axisLabel: { color: colours.faint }, axisLine: { lineStyle: { color: colours.line } }, splitLine: { lineStyle: { color: colours.line } } };
  return {
    animation: false,
    grid: { left: 56, right: 20, top: 30, bottom: 30 },
    tooltip: {
      trigger: "item",
      backgroundColor: colours.card,
      borderColor: colours.line,
      textStyle: { color: colours.text },
      formatter: ({ dataIndex }: { dataIndex: number }) => `${points[dataIndex]?.name}<br>${short(points[dataIndex]?.value)}`,
    },
    xAxis: { type: "value", min: 1, max: Math.max(2, points.length), minInterval: 1, ...axis, splitLine: { show: false } },
    yAxis: { type: "value", scale: true, name, nameTextStyle: { color: colours.faint, align: "left" }, ...axis },
    series: [
      { type: "line", step: "end", symbol: "none", lineStyle: { color: colours.accent, width: 2 }, data: points.map((point, i) => [i + 1, point.best]) },
      { type: "scatter", symbolSize: 9, itemStyle: { color: colours.faint }, data: points.map((point, i) => [i + 1, point.value]) },
    ],
  };
}
