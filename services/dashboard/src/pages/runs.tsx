import { useEffect, useState } from "react";
import { Link } from "react-router";
import { useRuns } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { ago, took, useNow } from "../parts/time";

/** The runs of a namespace, newest first. */
export function Runs() {
  const [namespace] = useNamespace();
  const [pages, setPages] = useState<string[]>([""]);
  const [typed, setTyped] = useState("");
  const [name, setName] = useState("");
  const now = useNow();
  const runs = useRuns(namespace, pages[pages.length - 1] ?? "", 20, name);
  useEffect(() => {
    const timer = setTimeout(() => {
      setName(typed.trim());
      setPages([""]);
    }, 250);
    return () => clearTimeout(timer);
  }, [typed]);
  const isEmpty = runs.data && !runs.data.runs?.length;
  return (
    <>
      <header className="title">
        <h1>Runs</h1>
        <input
          type="search"
          className="right search"
          aria-label="Find runs by name"
          placeholder="Find by name"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
      </header>
      <section className="card">
        {runs.isPending && <Loading />}
        {runs.error && <Problem error={runs.error} />}
        {isEmpty && (
          <Empty title={name ? "No such runs" : "No runs"} text={name ? `No run's name contains “${name}”.` : `Namespace ${namespace} has none yet.`} />
        )}
        {!!runs.data?.runs?.length && (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Took</th>
                  <th className="wide">Started</th>
                </tr>
              </thead>
              <tbody>
                {runs.data.runs.map((run) => (
                  <tr key={run.run_id}>
                    <td className="name">
                      <Link to={`/runs/${run.run_id}`}>{run.display_name}</Link>
                    </td>
                    <td>
                      <Badge state={run.state} />
                    </td>
                    <td className="keep">{took(run.created_at, run.finished_at, now)}</td>
                    <td className="wide keep" title={run.created_at}>
                      {ago(run.created_at, now)}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        {(pages.length > 1 || runs.data?.next_page_token) && (
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
        )}
      </section>
    </>
  );
}
