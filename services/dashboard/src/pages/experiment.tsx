import { useMemo, useSyncExternalStore } from "react";
import { useParams } from "react-router";
import { useExperiment, useTrials } from "../api/queries";
import type { Experiment as Resource } from "../api/types";
import { Chart, colours } from "../parts/chart";
import { useNamespace } from "../parts/namespace";
import { short } from "../parts/numbers";
import { Badge, Empty, Loading, Problem, condition, message } from "../parts/states";
import { useTheme } from "../parts/theme";
import { took, useNow } from "../parts/time";
import { parallelOption, progressOption } from "../parts/trial-charts";
import { bestOf, progress, rows } from "../parts/trials";
import { Values } from "../parts/values";

const narrow = window.matchMedia("(max-width: 860px)");

function useNarrow(): boolean {
  const subscribe = (changed: () => void) => {
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  };
  return useSyncExternalStore(subscribe, () => narrow.matches);
}

/** An experiment: all trials at a glance and in a table. */
export function Experiment() {
  const { name = "" } = useParams();
  const [namespace] = useNamespace();
  const [theme] = useTheme();
  const isNarrow = useNarrow();
  const now = useNow();
  const experiment = useExperiment(namespace, name);
  const trials = useTrials(namespace, name);
  const table = useMemo(
    () => (experiment.data && trials.data ? rows(experiment.data, trials.data.items) : []),
    [experiment.data, trials.data],
  );
  const lines = useMemo(
    () => (experiment.data ? parallelOption(experiment.data, table, colours(), isNarrow) : {}),
    // the colours are those of the theme
    [experiment.data, table, isNarrow, theme],
  );
  const points = useMemo(
    () => {
      if (!experiment.data) return {};
      return progressOption(experiment.data.spec.objective.objectiveMetricName, progress(experiment.data, trials.data?.items ?? []), colours());
    },
    [experiment.data, trials.data, theme],
  );
  if (experiment.isPending) return <Loading />;
  if (!experiment.data) return <Problem error={experiment.error} />;
  const { spec, status } = experiment.data;
  const byName = new Map(trials.data?.items.map((trial) => [trial.metadata.name, trial]));
  const best = status?.currentOptimalTrial?.bestTrialName;
  const measured = table.filter((row) => row.objective !== undefined).length;
  const failure = status?.conditions?.find((one) => one.type === "Failed" && one.status === "True");
  return (
    <>
      <header className="title">
        <h1>{name}</h1>
        <Badge state={condition(status?.conditions)} />
        <span className="faint">
          {spec.objective.type} {spec.objective.objectiveMetricName} · {spec.algorithm?.algorithmName}
        </span>
      </header>
      {failure?.message && <Problem error={new Error(failure.message)} />}
      <Summary experiment={experiment.data} />
      <section className="card">
        <h2>All trials</h2>
        {measured > 0 ? (
          <Chart
            key={String(isNarrow)}
            option={lines}
            label={`Parallel coordinates of ${measured} trials: their parameters and ${spec.objective.objectiveMetricName}`}
            height={isNarrow ? 96 * (spec.parameters.length + 1) : 340}
          />
        ) : (
          <Empty title="No results yet" text="A line appears for each trial that has reported the objective." />
        )}
      </section>
      <div className="columns wide-left">
        <section className="card">
          <h2>Progress</h2>
          {measured > 0 ? (
            <Chart option={points} label={`${spec.objective.objectiveMetricName} of ${measured} trials in the order of their ends`} height={240} />
          ) : (
            <p className="faint none">No results yet.</p>
          )}
        </section>
        <section className="card">
          <h2>Best parameters</h2>
          <Values values={Object.fromEntries(status?.currentOptimalTrial?.parameterAssignments?.map((one) => [one.name, one.value]) ?? [])} />
          {best && <p className="faint">of trial {best}</p>}
        </section>
      </div>
      <section className="card">
        <h2>Trials</h2>
        {trials.error && <Problem error={trials.error} />}
        {table.length === 0 && !trials.error && <p className="faint none">None yet.</p>}
        {table.length > 0 && (
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
                    <td className="keep" title={row.name}>
                      {row.name.startsWith(`${name}-`) ? row.name.slice(name.length + 1) : row.name}
                      {row.name === best && <span className="badge solid">best</span>}
                    </td>
                    <td>
                      <Badge state={condition(byName.get(row.name)?.status?.conditions)} title={message(byName.get(row.name)?.status?.conditions)} />
                    </td>
                    <td title={String(row.objective ?? "")}>{short(row.objective)}</td>
                    {spec.parameters.map((parameter) => (
                      <td key={parameter.name} className="keep" title={row.values[parameter.name]}>
                        {short(row.values[parameter.name])}
                      </td>
                    ))}
                    <td className="keep">{took(byName.get(row.name)?.status?.startTime, byName.get(row.name)?.status?.completionTime, now)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </>
  );
}

function Summary({ experiment }: { experiment: Resource }) {
  const { spec, status } = experiment;
  const done = status?.trialsSucceeded ?? 0;
  const failed = (status?.trialsFailed ?? 0) + (status?.trialMetricsUnavailable ?? 0);
  const most = spec.maxTrialCount;
  return (
    <section className="tiles" aria-label="Summary">
      <div className="tile plain">
        <span className="faint">Best {spec.objective.objectiveMetricName}</span>
        <span className="count">{short(bestOf(experiment)) || "–"}</span>
        <span className="faint">{spec.objective.goal === undefined ? spec.objective.type : `goal ${spec.objective.goal}`}</span>
      </div>
      <div className="tile plain">
        <span className="faint">Succeeded</span>
        <span className="count">{done}</span>
        <span className="faint">of {most ?? "∞"}</span>
      </div>
      <div className="tile plain">
        <span className="faint">Running</span>
        <span className="count">{status?.trialsRunning ?? 0}</span>
        <span className="faint">at most {spec.parallelTrialCount ?? 3} at a time</span>
      </div>
      <div className="tile plain">
        <span className="faint">Failed</span>
        <span className={failed ? "count bad" : "count"}>{failed}</span>
        <span className="faint">or without metrics</span>
      </div>
    </section>
  );
}
