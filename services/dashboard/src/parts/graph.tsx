import { Background, Controls, type Edge, Handle, type Node, type NodeProps, Position, ReactFlow } from "@xyflow/react";
import "@xyflow/react/dist/style.css";
import { useMemo } from "react";
import { isLive } from "../api/queries";
import { HEIGHT, WIDTH, place } from "./place";
import { type Step, isGroup } from "./steps";
import { Badge } from "./states";
import { took, useNow } from "./time";

type TaskNode = Node<{ step: Step; selected: boolean; onSelect: (path: string) => void }, "task">;

const ICONS = {
  container: "M8 6l10 6-10 6z",
  importer: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  dag: "M9 4h6v5H9zM4 15h6v5H4zM14 15h6v5h-6zM12 9v3m-5 3v-3h10v3",
  loop: "M4 12a8 8 0 0 1 14-5l2 2m0-5v5h-5M20 12a8 8 0 0 1-14 5l-2-2m0 5v-5h5",
  iteration: "M9 4h6v5H9zM4 15h6v5H4zM14 15h6v5h-6zM12 9v3m-5 3v-3h10v3",
  root: "",
};

function TaskBox({ data }: NodeProps<TaskNode>) {
  const { task } = data.step;
  const now = useNow(isLive(task.state));
  return (
    <>
      <Handle type="target" position={Position.Top} />
      <button
        type="button"
        className={`node nodrag nopan ${task.state.toLowerCase()} ${data.selected ? "selected" : ""} ${isGroup(task) ? "group" : ""}`}
        data-testid={`task-${task.display_name}`}
        aria-pressed={data.selected}
        aria-label={`Step ${task.display_name}, ${task.state.toLowerCase()}`}
        title={task.display_name}
        onClick={() => data.onSelect(task.path)}
      >
        <span className="row">
          <svg viewBox="0 0 24 24" width="14" height="14" aria-hidden="true">
            <path d={ICONS[task.kind]} />
          </svg>
          <strong>{task.display_name}</strong>
        </span>
        <span className="row">
          <Badge state={task.cached ? "cached" : task.state} />
          <span className="faint right">{took(task.started_at, task.ended_at, now)}</span>
        </span>
      </button>
      <Handle type="source" position={Position.Bottom} />
    </>
  );
}

const NODE_TYPES = { task: TaskBox };

/** One level of a run's steps as a graph, live. */
export function Graph(props: { steps: Step[]; selected?: string; onSelect: (path: string) => void }) {
  const { steps, selected, onSelect } = props;
  const shape = steps.map(({ task, after }) => `${task.path}<${after.join()}`).join(";");
  // places depend on the shape alone, not on states
  const places = useMemo(() => place(steps), [shape]);
  const states = new Map(steps.map(({ task }) => [task.path, task.state]));
  const nodes: TaskNode[] = steps.map((step) => ({
    id: step.task.path,
    type: "task",
    data: { step, selected: selected === step.task.path, onSelect },
    position: places.get(step.task.path) ?? { x: 0, y: 0 },
    width: WIDTH,
    height: HEIGHT,
  }));
  const edges: Edge[] = steps.flatMap(({ task, after }) =>
    after.map((before) => ({
      id: `${before}>${task.path}`,
      source: before,
      target: task.path,
      animated: states.get(task.path) === "RUNNING",
      focusable: false,
    })),
  );
  return (
    <div className="graph" data-testid="graph">
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={NODE_TYPES}
        fitView
        fitViewOptions={{ maxZoom: 1, padding: 0.12 }}
        minZoom={0.05}
        maxZoom={1.6}
        nodesDraggable={false}
        nodesConnectable={false}
        nodesFocusable={false}
        zoomOnScroll={false}
        preventScrolling={false}
        proOptions={{ hideAttribution: true }}
      >
        <Background gap={18} />
        <Controls showInteractive={false} />
      </ReactFlow>
    </div>
  );
}
