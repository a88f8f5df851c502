import dagre from "@dagrejs/dagre";
import type { Step } from "./steps";

export const WIDTH = 208;
export const HEIGHT = 66;
const ROW = HEIGHT + 44;
const COLUMN = WIDTH + 30;
/** More steps than these beside each other are broken into rows, so that a fan-out of hundreds can be read. */
const MOST_BESIDE = 6;

export interface Place {
  x: number;
  y: number;
}

/** Where each step's box has its upper left corner. */
export function place(steps: Step[]): Map<string, Place> {
  const graph = new dagre.graphlib.Graph().setGraph({ rankdir: "TB", ranksep: ROW - HEIGHT, nodesep: COLUMN - WIDTH });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { task } of steps) graph.setNode(task.path, { width: WIDTH, height: HEIGHT });
  for (const { task, after } of steps) for (const before of after) graph.setEdge(before, task.path);
  dagre.layout(graph);
  const ranks = new Map<number, { path: string; x: number }[]>();
  for (const { task } of steps) {
    const { x, y } = graph.node(task.path) as Place;
    ranks.set(y, [...(ranks.get(y) ?? []), { path: task.path, x }]);
  }
  const widest = Math.max(0, ...[...ranks.values()].map((rank) => rank.length));
  const hasEdges = steps.some((step) => step.after.length > 0);
  const block = Math.ceil(Math.sqrt(widest));
  const places = new Map<string, Place>();
  if (widest <= (hasEdges ? MOST_BESIDE : Math.min(MOST_BESIDE, block))) {
    for (const [y, rank] of ranks) for (const { path, x } of rank) places.set(path, { x: x - WIDTH / 2, y: y - HEIGHT / 2 });
    return places;
  }
  const beside = Math.min(block, 2 * MOST_BESIDE);
  let row = 0;
  for (const [, rank] of [...ranks].sort(([a], [b]) => a - b)) {
    rank.sort((a, b) => a.x - b.x);
    for (let i = 0; i < rank.length; i += beside) {
      const part = rank.slice(i, i + beside);
      // the last row of a rank starts where its full rows do
      const columns = Math.min(beside, rank.length);
      part.forEach(({ path }, column) => places.set(path, { x: (column - columns / 2) * COLUMN, y: row * ROW }));
      row += 1;
    }
  }
  return places;
}
