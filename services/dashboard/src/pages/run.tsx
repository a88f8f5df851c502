import { useState } from "react";
import { useParams } from "react-router";
import { type Lineage, useLineage, usePipelineSpec, useRun, useTaskLog } from "../api/queries";
import type { KfpRun, KfpTask } from "../api/types";
import { Graph } from "../parts/graph";
import { Log } from "../parts/log";
import { tasksOf } from "../parts/spec";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { took } from "../parts/time";

const isLive = (state?: string) => state === undefined || state === "RUNNING" || state === "PENDING" || state === "CANCELING";

/** A run: its graph, live, and what its steps took, gave and printed. */
export function Run() {
  const { id = "" } = useParams();
  const run = useRun(id);
  const spec = usePipelineSpec(run.data);
  const [selected, setSelected] = useState<string>();
  if (run.isPending) return <Loading />;
  if (run.error) return <Problem error={run.error} />;
  const details = run.data.run_details?.task_details ?? [];
  const tasks = tasksOf(spec.data);
  const detail = details.find((task) => task.display_name === selected);
  return (
    <>
      <header className="title">
        <h1>{run.data.display_name}</h1>
        <Badge state={run.data.state} />
        <span className="faint">{took(run.data.created_at, run.data.finished_at)}</span>
      </header>
      {run.data.error?.message && <Problem error={new Error(run.data.error.message)} />}
      <div className="columns wide-left">
        <section className="card flush">
          {spec.error && <Problem error={spec.error} />}
          {tasks.length > 0 && <Graph tasks={tasks} details={details} selected={selected} onSelect={setSelected} />}
        </section>
        <section className="card" aria-label="Details">
          {selected ? (
            <Task run={run.data} name={selected} task={detail} />
          ) : (
            <>
              <h2>Parameters</h2>
              <Values values={run.data.runtime_config?.parameters} />
              <p className="faint">Choose a step of the graph to see its state, log, inputs and outputs.</p>
            </>
          )}
        </section>
      </div>
    </>
  );
}

function Values({ values }: { values?: Record<string, unknown> }) {
  const entries = Object.entries(values ?? {});
  if (entries.length === 0) return <p className="faint">None.</p>;
  return (
    <dl className="values">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

const TABS = ["Log", "Inputs and outputs"] as const;

function Task({ run, name, task }: { run: KfpRun; name: string; task?: KfpTask }) {
  const [tab, setTab] = useState<(typeof TABS)[number]>("Log");
  const live = isLive(task?.state);
  const node = task?.child_tasks?.find((child) => child.pod_name)?.pod_name ?? task?.pod_name ?? task?.task_id;
  const log = useTaskLog(run.run_id, task?.start_time ? node : undefined, live);
  const lineage = useLineage(run.run_id, isLive(run.state));
  return (
    <>
      <header className="title">
        <h2>{name}</h2>
        <Badge state={task?.state} />
        <span className="faint">{took(task?.start_time, task?.end_time)}</span>
      </header>
      {task?.error?.message && <Problem error={new Error(task.error.message)} />}
      <div className="tabs" role="tablist">
        {TABS.map((title) => (
          <button key={title} type="button" role="tab" aria-selected={tab === title} onClick={() => setTab(title)}>
            {title}
          </button>
        ))}
      </div>
      {tab === "Log" && (log.error ? <Problem error={log.error} /> : <Log text={log.data ?? ""} />)}
      {tab === "Inputs and outputs" && (
        lineage.error ? <Problem error={lineage.error} /> : lineage.data ? <InputsOutputs lineage={lineage.data} name={name} /> : <Loading />
      )}
    </>
  );
}

function InputsOutputs({ lineage, name }: { lineage: Lineage; name: string }) {
  const execution = lineage.nodes.find((node) => node.kind === "execution" && node.name === name);
  if (!execution) return <Empty title="Nothing recorded yet" text="It is recorded when the step has ended." />;
  const nodes = new Map(lineage.nodes.map((node) => [node.id, node]));
  const artifacts = (edges: Lineage["edges"], end: "from" | "to") =>
    edges.flatMap((edge) => {
      const node = nodes.get(edge[end]);
      return node ? [{ label: edge.name ?? node.name, node }] : [];
    });
  const inputs = artifacts(lineage.edges.filter((edge) => edge.to === execution.id), "from");
  const outputs = artifacts(lineage.edges.filter((edge) => edge.from === execution.id), "to");
  return (
    <>
      <h3>Parameters</h3>
      <Values values={execution.properties} />
      <h3>Input artifacts</h3>
      <Artifacts list={inputs} />
      <h3>Output artifacts</h3>
      <Artifacts list={outputs} />
    </>
  );
}

function Artifacts({ list }: { list: { label: string; node: Lineage["nodes"][number] }[] }) {
  if (list.length === 0) return <p className="faint">None.</p>;
  return (
    <ul className="artifacts">
      {list.map(({ label, node }) => (
        <li key={node.id}>
          <strong>{label}</strong> <span className="badge idle">{node.type.replace("system.", "")}</span>
          {node.uri && <code>{node.uri}</code>}
          <Values values={node.properties} />
        </li>
      ))}
    </ul>
  );
}
