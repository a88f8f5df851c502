import { useMemo } from "react";
import { useParams } from "react-router";
import { useExperiment, useTrials } from "../api/queries";
import { Chart, colours } from "../parts/chart";
import { useNamespace } from "../parts/namespace";
import { Badge, Loading, Problem, condition } from "../parts/states";
import { took } from "../parts/time";
import { parallel, rows } from "../parts/trials";

/** An experiment: all trials at a glance and in a table. */
export function Experiment() {
  const { name = "" } = useParams();
  const [namespace] = useNamespace();
  const experiment = useExperiment(namespace, name);
  const trials = useTrials(namespace, name);
  const table = useMemo(
    () => (experiment.data && trials.data ? rows(experiment.data, trials.data.items) : []),
    [experiment.data, trials.data],
  );
  const option = useMemo(() => {
    if (!experiment.data) return {};
    const { axes, lines } = parallel(experiment.data, table);
    const { text, line, good, bad } = colours();
    const values = lines.map((one) => one[one.length - 1] as number);
    const minimize = experiment.data.spec.objective.type === "minimize";
    return {
      animation: false,
      textStyle: { color: text },
      parallelAxis: axes.map((axis) => ({
        ...axis,
        nameTextStyle: { color: text },
        axisLabel: { color: text },
        axisLine: { lineStyle: { color: line } },
      })),
      parallel: { left: 50, right: 70, top: 46, bottom: 24 },
      visualMap: {
        show: false,
        dimension: axes.length - 1,
        min: Math.min(...values),
        max: Math.max(...values),
        inRange: { color: minimize ? [good, "#d97706", bad] : [bad, "#d97706", good] },
      },
      series: [{ type: "parallel", lineStyle: { width: 2, opacity: 0.75 }, data: lines }],
    };
  }, [experiment.data, table]);
  if (experiment.isPending) return <Loading />;
  if (experiment.error) return <Problem error={experiment.error} />;
  const { spec, status } = experiment.data;
  const byName = new Map(trials.data?.items.map((trial) => [trial.metadata.name, trial]));
  const best = status?.currentOptimalTrial?.bestTrialName;
  return (
    <>
      <header className="title">
        <h1>{name}</h1>
        <Badge state={condition(status?.conditions)} />
        <span className="faint">
          {spec.objective.type} {spec.objective.objectiveMetricName} · {spec.algorithm?.algorithmName} · {status?.trialsSucceeded ?? 0} of{" "}
          {spec.maxTrialCount ?? "∞"} trials
        </span>
      </header>
      <section className="card">
        <h2>All trials</h2>
        <div className="scroll">
          <div style={{ minWidth: 120 * (spec.parameters.length + 1) }}>
            <Chart option={option} label={`Parallel coordinates of ${table.length} trials`} />
          </div>
        </div>
      </section>
      <section className="card">
        {trials.error && <Problem error={trials.error} />}
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th>Trial</th>
                <th>State</th>
                <th>{spec.objective.objectiveMetricName}</th>
                {spec.parameters.map((parameter) => (
                  <th key={parameter.name}>{parameter.name}</th>
                ))}
                <th>Took</th>
              </tr>
            </thead>
            <tbody>
              {table.map((row) => (
                <tr key={row.name} className={row.name === best ? "best" : undefined}>
                  <td>
                    {row.name} {row.name === best && <span className="badge good">best</span>}
                  </td>
                  <td>
                    <Badge state={condition(byName.get(row.name)?.status?.conditions)} />
                  </td>
                  <td>{row.objective ?? ""}</td>
                  {spec.parameters.map((parameter) => (
                    <td key={parameter.name}>{row.values[parameter.name]}</td>
                  ))}
                  <td>{took(byName.get(row.name)?.status?.startTime, byName.get(row.name)?.status?.completionTime)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </>
  );
}
