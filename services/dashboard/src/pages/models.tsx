import { Link } from "react-router";
import { useModels } from "../api/queries";
import type { InferenceService } from "../api/types";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { ago } from "../parts/time";

/** Whether a model answers. */
export function readiness(service: InferenceService): string {
  const ready = service.status?.conditions?.find((c) => c.type === "Ready");
  if (ready?.status === "True") return "ready";
  return service.status?.modelStatus?.lastFailureInfo ? "failed" : "not ready";
}

/** Served models of a namespace. */
export function Models() {
  const [namespace] = useNamespace();
  const list = useModels(namespace);
  return (
    <>
      <h1>Models</h1>
      <section className="card">
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && <Empty title="No models" text="Create an InferenceService with KServeClient().create(...) or kubectl." />}
        {!!list.data?.items.length && (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Format</th>
                  <th>Model</th>
                  <th>Age</th>
                </tr>
              </thead>
              <tbody>
                {list.data.items.map((item) => (
                  <tr key={item.metadata.name}>
                    <td>
                      <Link to={`/models/${item.metadata.name}`}>{item.metadata.name}</Link>
                    </td>
                    <td>
                      <Badge state={readiness(item)} />
                    </td>
                    <td>{item.spec.predictor.model?.modelFormat?.name ?? "custom"}</td>
                    <td>
                      <code className="uri">{item.spec.predictor.model?.storageUri}</code>
                    </td>
                    <td>{ago(item.metadata.creationTimestamp)}</td>
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
