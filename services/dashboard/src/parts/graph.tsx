import dagre from "@dagrejs/dagre";
import { Background, Controls, type Edge, Handle, type Node, type NodeProps, Position, ReactFlow } from "@xyflow/react";
import "@xyflow/react/dist/style.css";
import { useMemo } from "react";
import type { KfpTask } from "../api/types";
import type { GraphTask } from "./spec";
import { Badge } from "./states";
import { took } from "./time";

const WIDTH = 190;
const HEIGHT = 64;

type TaskNode = Node<{ task: GraphTask; detail?: KfpTask; selected: boolean }, "task">;

function TaskBox({ data }: NodeProps<TaskNode>) {
  const state = data.detail?.state ?? "PENDING";
  return (
    <div className={`node ${state.toLowerCase()} ${data.selected ? "selected" : ""}`} data-testid={`task-${data.task.name}`}>
      <Handle type="target" position={Position.Top} />
      <strong>{data.task.name}</strong>
      <div className="row">
        <Badge state={state} />
        <span className="faint">{took(data.detail?.start_time, data.detail?.end_time)}</span>
      </div>
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
}

const NODE_TYPES = { task: TaskBox };

function place(tasks: GraphTask[]): Map<string, { x: number; y: number }> {
  const graph = new dagre.graphlib.Graph().setGraph({ rankdir: "TB", ranksep: 46, nodesep: 36 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const task of tasks) graph.setNode(task.id, { width: WIDTH, height: HEIGHT });
  for (const task of tasks) for (const before of task.after) graph.setEdge(before, task.id);
  dagre.layout(graph);
  return new Map(tasks.map((task) => [task.id, graph.node(task.id) as { x: number; y: number }]));
}

/** The steps of a run as a graph, live. */
export function Graph(props: {
  tasks: GraphTask[];
  details: KfpTask[];
  selected?: string;
  onSelect: (name: string) => void;
}) {
  const { tasks, details, selected, onSelect } = props;
  const places = useMemo(() => place(tasks), [tasks]);
  const byName = new Map(details.map((detail) => [detail.display_name, detail]));
  const nodes: TaskNode[] = tasks.map((task) => {
    const at = places.get(task.id) ?? { x: 0, y: 0 };
    const data = { task, detail: byName.get(task.name), selected: selected === task.name };
    return { id: task.id, type: "task", data, position: { x: at.x - WIDTH / 2, y: at.y - HEIGHT / 2 }, width: WIDTH, height: HEIGHT };
  });
  const edges: Edge[] = tasks.flatMap((task) =>
    task.after.map((before) => ({
      id: `${before}-${task.id}`,
      source: before,
      target: task.id,
      animated: byName.get(task.name)?.state === "RUNNING",
    })),
  );
  return (
    <div className="graph" data-testid="graph">
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={NODE_TYPES}
        fitView
        fitViewOptions={{ maxZoom: 1, padding: 0.15 }}
        nodesDraggable={false}
        nodesConnectable={false}
        onNodeClick={(_, node) => onSelect(node.data.task.name)}
        proOptions={{ hideAttribution: true }}
      >
        <Background gap={18} />
        <Controls showInteractive={false} />
      </ReactFlow>
    </div>
  );
}
