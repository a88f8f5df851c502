import type { ReactNode } from "react";
import { Link } from "react-router";
import { isLive, useExperiments, useModels, useNotebooks, useRuns, useTrainingJobs } from "../api/queries";
import { Snippet } from "../parts/copy";
import { useNamespace } from "../parts/namespace";
import { short } from "../parts/numbers";
import { Badge, Empty, Loading, Problem, condition, readiness } from "../parts/states";
import { ago, took, useNow } from "../parts/time";
import { bestOf, newest } from "../parts/trials";

/** So many of each kind. */
const LATEST = 6;

function Tile({ to, name, count, note }: { to: string; name: string; count?: number; note: string }) {
  return (
    <Link to={to} className="tile">
      <span className="faint">{name}</span>
      <span className="count">{count ?? "–"}</span>
      <span className="faint">{note}</span>
    </Link>
  );
}

function Part(props: { title: string; to?: string; query: { isPending: boolean; error: unknown }; isEmpty: boolean; hint: ReactNode; children: ReactNode }) {
  return (
    <section className="card">
      <header className="title">
        <h2>{props.title}</h2>
        {props.to && !props.isEmpty && (
          <Link to={props.to} className="right" aria-label={`All ${props.title.toLowerCase()}`}>
            All
          </Link>
        )}
      </header>
      {props.query.isPending && <Loading />}
      {!!props.query.error && <Problem error={props.query.error} />}
      {props.isEmpty && props.hint}
      <ul className="list tight">{props.children}</ul>
    </section>
  );
}

/** What there is and what happened last. */
export function Home() {
  const [namespace] = useNamespace();
  const runs = useRuns(namespace, "", LATEST);
  const experiments = useExperiments(namespace);
  const models = useModels(namespace);
  const notebooks = useNotebooks(namespace);
  const jobs = useTrainingJobs(namespace);
  const now = useNow();
  const ready = models.data?.items.filter((model) => readiness(model) === "ready").length ?? 0;
  const active = runs.data?.runs?.filter((run) => isLive(run.state)).length ?? 0;
  const tuning = experiments.data?.items.filter((item) => condition(item.status?.conditions) === "Running").length ?? 0;
  const open = notebooks.data?.items.filter((item) => item.status?.readyReplicas).length ?? 0;
  const python = `import kfp\n\nclient = kfp.Client(host="${location.origin}")\nclient.create_run_from_pipeline_func(my_pipeline, arguments={})`;
  return (
    <>
      <h1>Home</h1>
      <section className="tiles" aria-label="What there is">
        <Tile to="/runs" name="Runs" count={runs.data && (runs.data.total_size ?? runs.data.runs?.length ?? 0)} note={`${active} active`} />
        <Tile to="/experiments" name="Experiments" count={experiments.data?.items.length} note={`${tuning} running`} />
        <Tile to="/models" name="Served models" count={models.data?.items.length} note={`${ready} ready`} />
        <Tile to="/notebooks" name="Notebooks" count={notebooks.data?.items.length} note={`${open} open`} />
      </section>
      <div className="columns even">
        <Part
          title="Latest runs"
          to="/runs"
          query={runs}
          isEmpty={runs.data !== undefined && !runs.data.runs?.length}
          hint={
            <Empty title="No runs yet" text="Submit one from Python:">
              <Snippet text={python} what="the program" />
            </Empty>
          }
        >
          {runs.data?.runs?.map((run) => (
            <li key={run.run_id}>
              <Link to={`/runs/${run.run_id}`} className="name">
                {run.display_name}
              </Link>
              <Badge state={run.state} />
              <span className="faint right">
                {took(run.created_at, run.finished_at, now)} · {ago(run.created_at, now)}
              </span>
            </li>
          ))}
        </Part>
        <Part
          title="Tuning"
          to="/experiments"
          query={experiments}
          isEmpty={experiments.data?.items.length === 0}
          hint={<p className="faint none">No experiments. Start one with KatibClient().tune(…).</p>}
        >
          {newest(experiments.data?.items).slice(0, LATEST).map((item) => (
            <li key={item.metadata.name}>
              <Link to={`/experiments/${item.metadata.name}`} className="name">
                {item.metadata.name}
              </Link>
              <Badge state={condition(item.status?.conditions)} />
              <span className="faint right">{bestOf(item) !== undefined && `best ${item.spec.objective.objectiveMetricName} ${short(bestOf(item))}`}</span>
            </li>
          ))}
        </Part>
        <Part
          title="Training jobs"
          query={jobs}
          isEmpty={jobs.data?.length === 0}
          hint={<p className="faint none">No training jobs. Start one with TrainingClient().create_job(…).</p>}
        >
          {newest(jobs.data).slice(0, LATEST).map((job) => (
            <li key={job.metadata.name}>
              <span className="name">{job.metadata.name}</span>
              <Badge state={condition(job.status?.conditions)} />
              <span className="faint right">
                {took(job.status?.startTime, job.status?.completionTime, now)} · {ago(job.metadata.creationTimestamp, now)}
              </span>
            </li>
          ))}
        </Part>
        <Part
          title="Served models"
          to="/models"
          query={models}
          isEmpty={models.data?.items.length === 0}
          hint={<p className="faint none">No served models. Serve one with KServeClient().create(…).</p>}
        >
          {newest(models.data?.items).slice(0, LATEST).map((model) => (
            <li key={model.metadata.name}>
              <Link to={`/models/${model.metadata.name}`} className="name">
                {model.metadata.name}
              </Link>
              <Badge state={readiness(model)} />
              <span className="faint right">{ago(model.metadata.creationTimestamp, now)}</span>
            </li>
          ))}
        </Part>
      </div>
    </>
  );
}
