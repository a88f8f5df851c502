import { Link } from "react-router";
import { useExperiments, useModels, useNotebooks, useRuns, useTrainingJobs } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem, condition } from "../parts/states";
import { ago, took } from "../parts/time";

function Tile({ to, name, count, note }: { to: string; name: string; count?: number; note: string }) {
  return (
    <Link to={to} className="tile">
      <span className="count">{count ?? "–"}</span>
      <span>{name}</span>
      <span className="faint">{note}</span>
    </Link>
  );
}

/** What there is and what happened last. */
export function Home() {
  const [namespace] = useNamespace();
  const runs = useRuns(namespace, "", 8);
  const experiments = useExperiments(namespace);
  const models = useModels(namespace);
  const notebooks = useNotebooks(namespace);
  const jobs = useTrainingJobs(namespace);
  const isReady = (conditions?: { type: string; status: string }[]) => conditions?.some((c) => c.type === "Ready" && c.status === "True");
  const ready = models.data?.items.filter((m) => isReady(m.status?.conditions)).length;
  const active = runs.data?.runs?.filter((run) => run.state === "RUNNING" || run.state === "PENDING").length ?? 0;
  return (
    <>
      <h1>Home</h1>
      <section className="tiles" aria-label="What there is">
        <Tile to="/runs" name="Runs" count={runs.data?.total_size ?? runs.data?.runs?.length} note={`${active} active`} />
        <Tile to="/experiments" name="Experiments" count={experiments.data?.items.length} note="hyper-parameter tuning" />
        <Tile to="/models" name="Models" count={models.data?.items.length} note={`${ready ?? 0} ready`} />
        <Tile to="/notebooks" name="Notebooks" count={notebooks.data?.items.length} note="JupyterLab" />
      </section>
      <div className="columns">
        <section className="card">
          <h2>Latest runs</h2>
          {runs.isPending && <Loading />}
          {runs.error && <Problem error={runs.error} />}
          {runs.data && !runs.data.runs?.length && (
            <Empty title="No runs yet" text="Submit one from Python:">
              <pre className="hint">{`import kfp
client = kfp.Client(host="${location.origin}")
client.create_run_from_pipeline_func(my_pipeline, arguments={})`}</pre>
            </Empty>
          )}
          <ul className="list">
            {runs.data?.runs?.map((run) => (
              <li key={run.run_id}>
                <Link to={`/runs/${run.run_id}`}>{run.display_name}</Link>
                <Badge state={run.state} />
                <span className="faint right">
                  {took(run.created_at, run.finished_at)} · {ago(run.created_at)} ago
                </span>
              </li>
            ))}
          </ul>
        </section>
        <section className="card">
          <h2>Training jobs</h2>
          {jobs.error && <Problem error={jobs.error} />}
          {jobs.data?.length === 0 && <p className="faint">None in this namespace.</p>}
          <ul className="list">
            {jobs.data?.map((job) => (
              <li key={job.metadata.name}>
                <span>{job.metadata.name}</span>
                <Badge state={condition(job.status?.conditions)} />
                <span className="faint right">{took(job.status?.startTime, job.status?.completionTime)}</span>
              </li>
            ))}
          </ul>
        </section>
      </div>
    </>
  );
}
