import { Link } from "react-router";
import { useModelArtifacts, useModels } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { short } from "../parts/numbers";
import { Badge, Empty, Loading, Problem, readiness } from "../parts/states";
import { ago, useNow } from "../parts/time";
import { newest } from "../parts/trials";

/** Served models of a namespace, and those that runs made. */
export function Models() {
  const [namespace] = useNamespace();
  const list = useModels(namespace);
  const now = useNow();
  return (
    <>
      <h1>Models</h1>
      <section className="card">
        <h2>Served</h2>
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && <Empty title="No served models" text="Create an InferenceService with KServeClient().create(…) or kubectl." />}
        {!!list.data?.items.length && (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Format</th>
                  <th className="wide">Model</th>
                  <th className="wide">Created</th>
                </tr>
              </thead>
              <tbody>
                {newest(list.data.items).map((item) => {
                  const model = item.spec.predictor.model;
                  return (
                    <tr key={item.metadata.name}>
                      <td className="name">
                        <Link to={`/models/${item.metadata.name}`}>{item.metadata.name}</Link>
                      </td>
                      <td>
                        <Badge state={readiness(item)} />
                      </td>
                      <td>{model?.modelFormat?.name ?? "custom"}</td>
                      <td className="wide">
                        <code className="uri" title={model?.storageUri}>
                          {model?.storageUri}
                        </code>
                      </td>
                      <td className="wide keep">{ago(item.metadata.creationTimestamp, now)}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        )}
      </section>
      <Made namespace={namespace} now={now} />
    </>
  );
}

function Made({ namespace, now }: { namespace: string; now: number }) {
  const list = useModelArtifacts(namespace);
  return (
    <section className="card">
      <h2>Made by runs</h2>
      {list.isPending && <Loading />}
      {list.error && <Problem error={list.error} />}
      {list.data?.length === 0 && <p className="faint none">No run of this namespace has written a Model artifact yet.</p>}
      {!!list.data?.length && (
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th>Name</th>
                <th>Metrics</th>
                <th>Made by</th>
                <th className="wide">Address</th>
                <th className="wide">Made</th>
              </tr>
            </thead>
            <tbody>
              {list.data.map((model) => (
                <tr key={model.artifact_id ?? model.uri}>
                  <td className="name">{model.name}</td>
                  <td>
                    {Object.entries(model.metrics ?? {}).sort().slice(0, 4).map(([name, value]) => (
                      <span key={name} className="metric">
                        <span className="faint">{name}</span> {short(value)}
                      </span>
                    ))}
                  </td>
                  <td className="name">{model.run_id ? <Link to={`/runs/${model.run_id}`}>{model.execution_name || "run"}</Link> : ""}</td>
                  <td className="wide">
                    <code className="uri" title={model.uri}>
                      {model.uri}
                    </code>
                  </td>
                  <td className="wide keep">{model.created_ms ? ago(new Date(Number(model.created_ms)).toISOString(), now) : ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
