import type { RunTask } from "../api/types";

/** Whether a task holds others. */
export const isGroup = (task: RunTask) => task.kind === "dag" || task.kind === "loop" || task.kind === "iteration";

/** A step of one level of the graph, with the paths of the steps before it. */
export interface Step {
  task: RunTask;
  after: string[];
}

/** The steps directly below a task; below the run itself where no task is given. */
export function level(tasks: RunTask[], parent?: string): Step[] {
  const top = parent ?? tasks.find((task) => task.kind === "root")?.path;
  const own = tasks.filter((task) => task.kind !== "root" && task.parent === top);
  const known = new Set(own.map((task) => task.path));
  return own.map((task) => ({ task, after: task.after.map((name) => `${task.parent}/${name}`).filter((path) => known.has(path)) }));
}

/** The groups from the run down to a task, without the run itself. */
export function trail(tasks: RunTask[], path: string | undefined): RunTask[] {
  const byPath = new Map(tasks.map((task) => [task.path, task]));
  const found: RunTask[] = [];
  let at = path === undefined ? undefined : byPath.get(path);
  while (at && at.kind !== "root") {
    found.unshift(at);
    at = at.parent ? byPath.get(at.parent) : undefined;
  }
  return found;
}

/** A step's name, with the numbers of the passes of loops that it is in. */
export function label(task: RunTask): string {
  const passes = task.path.split("/").filter((part) => /^\d+$/.test(part));
  const own = passes.length > 0 && task.display_name.endsWith(`[${passes[passes.length - 1]}]`);
  return own || passes.length === 0 ? task.display_name : `${task.display_name} [${passes.join(", ")}]`;
}

/** A bar of the timeline; `start` and `width` are parts of the whole, 0 to 1. */
export interface Bar {
  task: RunTask;
  start: number;
  width: number;
  milliseconds: number;
}

/** When each step ran that did, in order of their starts. */
export function timeline(tasks: RunTask[], now: number): Bar[] {
  const ran = tasks.filter((task) => (task.kind === "container" || task.kind === "importer") && task.started_at);
  const spans = ran.map((task) => {
    const from = Date.parse(task.started_at ?? "");
    return { task, from, to: Math.max(from, task.ended_at ? Date.parse(task.ended_at) : now) };
  });
  const first = Math.min(...spans.map((one) => one.from));
  const whole = Math.max(1, Math.max(...spans.map((one) => one.to)) - first);
  return spans
    .sort((a, b) => a.from - b.from)
    .map(({ task, from, to }) => ({ task, start: (from - first) / whole, width: (to - from) / whole, milliseconds: to - from }));
}

/** One number that a step recorded. */
export interface Metric {
  step: RunTask;
  name: string;
  value: number;
}

/** The numbers in all metrics artifacts of a run. */
export function metrics(tasks: RunTask[]): Metric[] {
  return tasks.filter((task) => task.kind === "container").flatMap((step) =>
    Object.values(step.outputs.artifacts ?? {}).flat().filter((artifact) => artifact.type === "system.Metrics").flatMap((artifact) =>
      Object.entries(artifact.metadata ?? {}).flatMap(([name, value]) => (typeof value === "number" ? [{ step, name, value }] : [])),
    ),
  );
}

/** The step that wrote an artifact. */
export const producer = (tasks: RunTask[], uri: string | undefined) =>
  tasks.find(
    (task) =>
      (task.kind === "container" || task.kind === "importer") &&
      uri !== undefined &&
      Object.values(task.outputs.artifacts ?? {}).flat().some((artifact) => artifact.uri === uri),
  );
