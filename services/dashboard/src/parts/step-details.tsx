import { type KeyboardEvent, useState } from "react";
import { ApiError } from "../api/http";
import { isLive, logPath, useTaskLog } from "../api/queries";
import type { Artifact, RunTask } from "../api/types";
import { Copy } from "./copy";
import { Log } from "./log";
import { bytes } from "./numbers";
import { Badge, Empty, Loading, Problem } from "./states";
import { isGroup, label, producer } from "./steps";
import { took, useNow } from "./time";
import { Values } from "./values";

type Tab = "Log" | "Inputs" | "Outputs";

/** A step: what it printed, took and gave. */
export function StepDetails(props: {
  run: string;
  tasks: RunTask[];
  task: RunTask;
  onOpen: () => void;
  onChoose: (task: RunTask) => void;
  onClose: () => void;
}) {
  const { run, tasks, task } = props;
  const tabs: Tab[] = task.kind === "container" ? ["Log", "Inputs", "Outputs"] : ["Inputs", "Outputs"];
  const [chosen, setTab] = useState<Tab>(tabs[0] ?? "Inputs");
  const now = useNow(isLive(task.state));
  return (
    <>
      <header className="title">
        <h2>{label(task)}</h2>
        <Badge state={task.state} />
        {task.cached && <Badge state="cached" />}
        <span className="faint">{took(task.started_at, task.ended_at, now)}</span>
        <button type="button" className="icon right" aria-label="Close the step" onClick={props.onClose}>
          <svg viewBox="0 0 24 24" width="16" height="16" aria-hidden="true">
            <path d="M6 6l12 12M18 6 6 18" />
          </svg>
        </button>
      </header>
      {task.message && (task.state === "FAILED" ? <Problem error={new Error(task.message)} /> : <p className="faint">{task.message}</p>)}
      {isGroup(task) && (
        <p>
          <button type="button" className="primary" onClick={props.onOpen}>
            Show the steps inside
          </button>
        </p>
      )}
      <Tabs tabs={tabs} chosen={chosen} choose={setTab} />
      <div role="tabpanel" id="panel" aria-labelledby={`tab-${chosen}`}>
        {chosen === "Log" && <StepLog run={run} task={task} />}
        {chosen === "Inputs" && <Side values={task.inputs} tasks={tasks} onChoose={props.onChoose} />}
        {chosen === "Outputs" && <Side values={task.outputs} />}
      </div>
    </>
  );
}

function Tabs({ tabs, chosen, choose }: { tabs: Tab[]; chosen: Tab; choose: (tab: Tab) => void }) {
  const move = (event: KeyboardEvent<HTMLDivElement>) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step && tabs[(tabs.indexOf(chosen) + step + tabs.length) % tabs.length];
    if (!next) return;
    choose(next);
    event.currentTarget.querySelector<HTMLElement>(`#tab-${next}`)?.focus();
  };
  return (
    <div className="tabs" role="tablist" aria-label="Parts of the step" onKeyDown={move}>
      {tabs.map((tab) => (
        <button
          key={tab}
          id={`tab-${tab}`}
          type="button"
          role="tab"
          aria-selected={chosen === tab}
          aria-controls="panel"
          tabIndex={chosen === tab ? 0 : -1}
          onClick={() => choose(tab)}
        >
          {tab}
        </button>
      ))}
    </div>
  );
}

function StepLog({ run, task }: { run: string; task: RunTask }) {
  const [pod, setPod] = useState<string>();
  const newest = task.attempts[task.attempts.length - 1]?.pod_name;
  const shown = pod ?? newest;
  const log = useTaskLog(run, shown, isLive(task.state));
  if (!shown) {
    const text = task.cached ? "Its outputs were taken from an earlier run." : "The step has not been started.";
    return <Empty title="No log" text={text} />;
  }
  const status = log.error instanceof ApiError ? log.error.status : undefined;
  const isGone = status === 404;
  // as Kubernetes answers for a container that does not run yet
  const isStarting = status === 400 && isLive(task.state);
  return (
    <>
      {task.attempts.length > 1 && (
        <label className="pick">
          <span>Attempt</span>
          <select value={shown} onChange={(event) => setPod(event.target.value)}>
            {task.attempts.map((attempt, i) => (
              <option key={attempt.pod_name} value={attempt.pod_name}>
                {i + 1} of {task.attempts.length}, {attempt.state.toLowerCase()}
              </option>
            ))}
          </select>
        </label>
      )}
      {log.isPending && <Loading />}
      {isStarting && log.data === undefined && <Empty title="Starting" text="What the step prints appears here." />}
      {log.error && !isStarting && log.data === undefined && (isGone ? <Empty title="The log is gone" text={log.error.message} /> : <Problem error={log.error} />)}
      {log.data !== undefined && <Log text={log.data} all={logPath(run, shown)} />}
      <p className="below faint">
        Pod <code>{shown}</code> <Copy text={shown} what="the Pod's name" />
      </p>
    </>
  );
}

function Side({ values, tasks, onChoose }: { values: RunTask["inputs"]; tasks?: RunTask[]; onChoose?: (task: RunTask) => void }) {
  const artifacts = Object.entries(values.artifacts ?? {}).flatMap(([label, list]) => list.map((artifact) => ({ label, artifact })));
  return (
    <>
      <h3>Parameters</h3>
      <Values values={values.parameters} />
      <h3>Artifacts</h3>
      {artifacts.length === 0 && <p className="faint none">None</p>}
      <ul className="artifacts">
        {artifacts.map(({ label, artifact }, i) => (
          <Item key={`${label} ${i}`} label={label} artifact={artifact} from={tasks && producer(tasks, artifact.uri)} onChoose={onChoose} />
        ))}
      </ul>
    </>
  );
}

function Item(props: { label: string; artifact: Artifact; from?: RunTask; onChoose?: (task: RunTask) => void }) {
  const { artifact, from } = props;
  const hasFacts = Object.keys(artifact.metadata ?? {}).length > 0;
  return (
    <li>
      <div className="head">
        <strong>{props.label}</strong>
        <span className="badge idle">{(artifact.type ?? "artifact").replace("system.", "")}</span>
        {artifact.size !== undefined && <span className="faint">{bytes(artifact.size)}</span>}
        {from && props.onChoose && (
          <span className="faint">
            from{" "}
            <button type="button" className="plain" onClick={() => props.onChoose?.(from)}>
              {from.display_name}
            </button>
          </span>
        )}
      </div>
      {artifact.uri && (
        <div className="address">
          <code>{artifact.uri}</code>
          <Copy text={artifact.uri} what="the address" />
        </div>
      )}
      {hasFacts && <Values values={artifact.metadata} />}
    </li>
  );
}
