import { Link } from "react-router";
import { useExperiments } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { short } from "../parts/numbers";
import { Badge, Empty, Loading, Problem, condition } from "../parts/states";
import { ago, useNow } from "../parts/time";
import { bestOf, newest } from "../parts/trials";

/** Katib experiments of a namespace. */
export function Experiments() {
  const [namespace] = useNamespace();
  const list = useExperiments(namespace);
  const now = useNow();
  return (
    <>
      <h1>Tuning experiments</h1>
      <section className="card">
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && (
          <Empty title="No experiments" text="Create one with KatibClient().tune(…) or kubectl apply -f experiment.yaml." />
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
                  <th className="wide">Algorithm</th>
                  <th className="wide">Created</th>
                </tr>
              </thead>
              <tbody>
                {newest(list.data.items).map((item) => (
                  <tr key={item.metadata.name}>
                    <td className="name">
                      <Link to={`/experiments/${item.metadata.name}`}>{item.metadata.name}</Link>
                    </td>
                    <td>
                      <Badge state={condition(item.status?.conditions)} />
                    </td>
                    <td className="keep">
                      {item.status?.trialsSucceeded ?? 0} / {item.spec.maxTrialCount ?? "∞"}
                    </td>
                    <td className="keep">
                      <span className="faint wide">{item.spec.objective.objectiveMetricName} </span>
                      {short(bestOf(item))}
                    </td>
                    <td className="wide">{item.spec.algorithm?.algorithmName}</td>
                    <td className="wide keep">{ago(item.metadata.creationTimestamp, now)}</td>
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
