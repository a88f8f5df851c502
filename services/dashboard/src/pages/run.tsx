import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { useParams, useSearchParams } from "react-router";
import { json } from "../api/http";
import { isLive, useRun } from "../api/queries";
import type { KfpRun, RunTask } from "../api/types";
import { Graph } from "../parts/graph";
import { short } from "../parts/numbers";
import { label, level, metrics, timeline, trail } from "../parts/steps";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { StepDetails } from "../parts/step-details";
import { ago, span, took, useNow } from "../parts/time";
import { Values } from "../parts/values";

/** A run: its graph, live, and what its steps took, gave and printed. */
export function Run() {
  const { id = "" } = useParams();
  const run = useRun(id);
  const now = useNow(isLive(run.data?.run.state));
  const [search, setSearch] = useSearchParams();
  const panel = useRef<HTMLElement>(null);
  const selected = search.get("step") ?? undefined;
  const inside = search.get("in") ?? undefined;
  useEffect(() => {
    const isNarrow = window.matchMedia("(max-width: 860px)").matches;
    if (selected && isNarrow) panel.current?.scrollIntoView({ behavior: "smooth", block: "start" });
  }, [selected]);
  if (run.isPending) return <Loading />;
  if (!run.data) return <Problem error={run.error} />;
  const { run: facts, tasks, parameters } = run.data;
  const show = (step?: string, group = inside) => {
    const next: Record<string, string> = {};
    if (step) next["step"] = step;
    if (group) next["in"] = group;
    setSearch(next, { replace: true });
  };
  const choose = (task: RunTask) => show(task.path, trail(tasks, task.parent ?? undefined).at(-1)?.path ?? "");
  const task = tasks.find((one) => one.path === selected);
  const steps = level(tasks, inside);
  return (
    <>
      <header className="title split">
        <div>
          <h1>{facts.display_name}</h1>
          <Badge state={facts.state} />
          <span className="faint">
            {took(facts.created_at, facts.finished_at, now)} · started {ago(facts.created_at, now)}
          </span>
        </div>
        <Actions run={facts} />
      </header>
      {facts.error?.message && <Problem error={new Error(facts.error.message)} />}
      <div className="columns wide-left">
        <section className="card flush" aria-label="Graph of steps">
          <Trail tasks={tasks} inside={inside} open={(path) => show(undefined, path)} />
          {steps.length > 0 ? (
            <Graph key={inside ?? ""} steps={steps} selected={selected} onSelect={(path) => show(path)} />
          ) : (
            <Empty title="No steps yet" text="They appear as soon as the run is planned." />
          )}
        </section>
        <section className="card" aria-label="Details" ref={panel}>
          {task ? (
            <StepDetails
              key={task.path}
              run={facts.run_id}
              tasks={tasks}
              task={task}
              onOpen={() => show(undefined, task.path)}
              onChoose={choose}
              onClose={() => show(undefined)}
            />
          ) : (
            <Overview parameters={parameters ?? facts.runtime_config?.parameters} tasks={tasks} onChoose={choose} />
          )}
        </section>
      </div>
      <Timeline tasks={tasks} now={now} selected={selected} onChoose={choose} />
    </>
  );
}

function Actions({ run }: { run: KfpRun }) {
  const client = useQueryClient();
  const act = useMutation({
    mutationFn: (verb: string) => json(`/apis/v2beta1/runs/${run.run_id}:${verb}`, { method: "POST" }),
    onSettled: () => client.invalidateQueries({ queryKey: ["run", run.run_id] }),
  });
  const canRetry = run.state === "FAILED" || run.state === "CANCELED";
  return (
    <span className="actions">
      {act.error && <span className="bad">{act.error.message}</span>}
      {isLive(run.state) && (
        <button type="button" disabled={act.isPending || run.state === "CANCELING"} onClick={() => act.mutate("terminate")}>
          Stop
        </button>
      )}
      {canRetry && (
        <button type="button" disabled={act.isPending} onClick={() => act.mutate("retry")}>
          Retry
        </button>
      )}
    </span>
  );
}

function Trail({ tasks, inside, open }: { tasks: RunTask[]; inside?: string; open: (path: string) => void }) {
  const groups = trail(tasks, inside);
  if (groups.length === 0) return null;
  return (
    <nav className="trail" aria-label="Level of the graph">
      <button type="button" className="plain" onClick={() => open("")}>
        All steps
      </button>
      {groups.map((group, i) => (
        <span key={group.path}>
          <span className="faint"> / </span>
          {i === groups.length - 1 ? (
            <strong aria-current="page">{group.display_name}</strong>
          ) : (
            <button type="button" className="plain" onClick={() => open(group.path)}>
              {group.display_name}
            </button>
          )}
        </span>
      ))}
    </nav>
  );
}

function Overview(props: { parameters?: Record<string, unknown>; tasks: RunTask[]; onChoose: (task: RunTask) => void }) {
  const { parameters, tasks, onChoose } = props;
  const failed = tasks.filter((task) => task.state === "FAILED" && (task.kind === "container" || task.kind === "importer"));
  const numbers = metrics(tasks);
  return (
    <>
      {failed.length > 0 && (
        <>
          <h2>Failed</h2>
          <ul className="list">
            {failed.slice(0, 10).map((task) => (
              <li key={task.path}>
                <button type="button" className="plain name" onClick={() => onChoose(task)}>
                  {label(task)}
                </button>
                <span className="faint grow">{task.message}</span>
              </li>
            ))}
          </ul>
        </>
      )}
      <h2 className={failed.length > 0 ? "gap" : undefined}>Parameters</h2>
      <Values values={parameters} />
      {numbers.length > 0 && (
        <>
          <h2 className="gap">Metrics</h2>
          <div className="scroll">
            <table>
              <tbody>
                {numbers.map(({ step, name, value }) => (
                  <tr key={`${step.path} ${name}`}>
                    <td>{name}</td>
                    <td className="number">{short(value)}</td>
                    <td className="faint">{label(step)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      <p className="faint gap">Choose a step to see its log, inputs and outputs.</p>
    </>
  );
}

function Timeline(props: { tasks: RunTask[]; now: number; selected?: string; onChoose: (task: RunTask) => void }) {
  const bars = timeline(props.tasks, props.now);
  if (bars.length === 0) return null;
  return (
    <section className="card" aria-label="Timeline">
      <h2>Where the time went</h2>
      <ol className="timeline">
        {bars.map(({ task, start, width, milliseconds }) => (
          <li key={task.path}>
            <button type="button" aria-pressed={task.path === props.selected} onClick={() => props.onChoose(task)}>
              <span className="name">{label(task)}</span>
              <span className="track">
                <span
                  className={`span ${task.state.toLowerCase()}`}
                  style={{ left: `${start * 100}%`, width: `max(4px, ${width * 100}%)` }}
                />
              </span>
              <span className="faint number">{task.cached ? "cached" : span(milliseconds)}</span>
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}
