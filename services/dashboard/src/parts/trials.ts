import type { Experiment, Meta, Trial } from "../api/types";

/** One trial as a row: its parameters and the value of the objective. */
export interface TrialRow {
  name: string;
  values: Record<string, string>;
  objective?: number;
}

/** The value that a metric strategy picks; `latest` where it is not asked otherwise. */
export function objective(experiment: Experiment, trial: Trial): number | undefined {
  const { objectiveMetricName, type } = experiment.spec.objective;
  const metric = trial.status?.observation?.metrics?.find((m) => m.name === objectiveMetricName);
  const text = metric && (type === "minimize" ? metric.min : metric.max);
  const value = Number(text);
  return text === undefined || Number.isNaN(value) ? undefined : value;
}

/** All trials as rows, best first; those without a value last. */
export function rows(experiment: Experiment, trials: Trial[]): TrialRow[] {
  const sign = experiment.spec.objective.type === "minimize" ? 1 : -1;
  const all = trials.map((trial) => ({
    name: trial.metadata.name,
    values: Object.fromEntries(trial.spec.parameterAssignments.map((a) => [a.name, a.value])),
    objective: objective(experiment, trial),
  }));
  const rank = (row: TrialRow) => (row.objective === undefined ? Number.POSITIVE_INFINITY : sign * row.objective);
  return all.sort((a, b) => rank(a) - rank(b));
}

/** The axes and lines of a parallel-coordinates plot of an experiment. */
export function parallel(experiment: Experiment, table: TrialRow[]) {
  const parameters = experiment.spec.parameters;
  const axes = parameters.map((parameter, dim) => {
    const space = parameter.feasibleSpace;
    if (space.list) return { dim, name: parameter.name, type: "category" as const, data: space.list };
    const log = space.distribution?.toLowerCase().startsWith("log") && Number(space.min) > 0;
    return { dim, name: parameter.name, type: log ? ("log" as const) : ("value" as const), min: Number(space.min), max: Number(space.max), ...(parameter.parameterType === "int" && { minInterval: 1 }) };
  });
  const last = { dim: parameters.length, name: experiment.spec.objective.objectiveMetricName, type: "value" as const, scale: true };
  const lines = table
    .filter((row) => row.objective !== undefined)
    .map((row) => [
      ...parameters.map((p) => (p.feasibleSpace.list ? (row.values[p.name] ?? "") : Number(row.values[p.name]))),
      row.objective as number,
    ]);
  return { axes: [...axes, last], lines };
}

/** Newest first. */
export function newest<T extends { metadata: Meta }>(items: T[] | undefined): T[] {
  return [...(items ?? [])].sort((a, b) => (b.metadata.creationTimestamp ?? "").localeCompare(a.metadata.creationTimestamp ?? ""));
}

/** The best value of the objective so far, as Katib tells it. */
export function bestOf(experiment: Experiment): string | undefined {
  const { objectiveMetricName, type } = experiment.spec.objective;
  const metric = experiment.status?.currentOptimalTrial?.observation?.metrics?.find((m) => m.name === objectiveMetricName);
  return type === "minimize" ? metric?.min : metric?.max;
}

/** The values of the objective in the order in which the trials ended, and the best until each. */
export function progress(experiment: Experiment, trials: Trial[]): { name: string; value: number; best: number }[] {
  const better = experiment.spec.objective.type === "minimize" ? Math.min : Math.max;
  const ended = trials.flatMap((trial) => {
    const value = objective(experiment, trial);
    return value === undefined ? [] : [{ name: trial.metadata.name, value, at: trial.status?.completionTime ?? "9999" }];
  });
  ended.sort((a, b) => a.at.localeCompare(b.at));
  let best: number | undefined;
  return ended.map(({ name, value }) => {
    best = best === undefined ? value : better(best, value);
    return { name, value, best };
  });
}
