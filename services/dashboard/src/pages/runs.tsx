import { useState } from "react";
import { Link } from "react-router";
import { useRuns } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { ago, took } from "../parts/time";

/** The runs of a namespace, newest first. */
export function Runs() {
  const [namespace] = useNamespace();
  const [pages, setPages] = useState<string[]>([""]);
  const runs = useRuns(namespace, pages[pages.length - 1] ?? "");
  return (
    <>
      <h1>Runs</h1>
      <section className="card">
        {runs.isPending && <Loading />}
        {runs.error && <Problem error={runs.error} />}
        {runs.data && !runs.data.runs?.length && <Empty title="No runs" text={`Namespace ${namespace} has none yet.`} />}
        {!!runs.data?.runs?.length && (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Took</th>
                  <th>Started</th>
                </tr>
              </thead>
              <tbody>
                {runs.data.runs.map((run) => (
                  <tr key={run.run_id}>
                    <td>
                      <Link to={`/runs/${run.run_id}`}>{run.display_name}</Link>
                    </td>
                    <td>
                      <Badge state={run.state} />
                    </td>
                    <td>{took(run.created_at, run.finished_at)}</td>
                    <td title={run.created_at}>{ago(run.created_at)} ago</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        <div className="pager">
          <button type="button" disabled={pages.length === 1} onClick={() => setPages(pages.slice(0, -1))}>
            Newer
          </button>
          <button
            type="button"
            disabled={!runs.data?.next_page_token}
            onClick={() => setPages([...pages, runs.data?.next_page_token ?? ""])}
          >
            Older
          </button>
        </div>
      </section>
    </>
  );
}
