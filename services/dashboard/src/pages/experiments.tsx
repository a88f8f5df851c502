import { Link } from "react-router";
import { useExperiments } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem, condition } from "../parts/states";
import { ago } from "../parts/time";

/** Katib experiments of a namespace. */
export function Experiments() {
  const [namespace] = useNamespace();
  const list = useExperiments(namespace);
  return (
    <>
      <h1>Tuning experiments</h1>
      <section className="card">
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && (
          <Empty title="No experiments" text="Create one with KatibClient().tune(...) or kubectl apply -f experiment.yaml." />
        )}
        {!!list.data?.items.length && (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Name</th>
                  <th>State</th>
                  <th>Trials</th>
                  <th>Best</th>
                  <th>Age</th>
                </tr>
              </thead>
              <tbody>
                {list.data.items.map((item) => {
                  const best = item.status?.currentOptimalTrial?.observation?.metrics?.find(
                    (metric) => metric.name === item.spec.objective.objectiveMetricName,
                  );
                  return (
                    <tr key={item.metadata.name}>
                      <td>
                        <Link to={`/experiments/${item.metadata.name}`}>{item.metadata.name}</Link>
                      </td>
                      <td>
                        <Badge state={condition(item.status?.conditions)} />
                      </td>
                      <td>
                        {item.status?.trialsSucceeded ?? 0} / {item.spec.maxTrialCount ?? "∞"}
                      </td>
                      <td>{best ? `${best.name} ${best.latest}` : ""}</td>
                      <td>{ago(item.metadata.creationTimestamp)}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </>
  );
}
