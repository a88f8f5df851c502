import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useParams } from "react-router";
import { json } from "../api/http";
import { useModel, useModelMetadata } from "../api/queries";
import { useNamespace } from "../parts/namespace";
import { Badge, Loading, Problem } from "../parts/states";
import { example, requestOf } from "../parts/try-it";
import { readiness } from "./models";

/** A served model and a form to try it. */
export function Model() {
  const { name = "" } = useParams();
  const [namespace] = useNamespace();
  const model = useModel(namespace, name);
  const isReady = model.data !== undefined && readiness(model.data) === "ready";
  const metadata = useModelMetadata(namespace, name, isReady);
  if (model.isPending) return <Loading />;
  if (model.error) return <Problem error={model.error} />;
  const failure = model.data.status?.modelStatus?.lastFailureInfo;
  return (
    <>
      <header className="title">
        <h1>{name}</h1>
        <Badge state={readiness(model.data)} />
      </header>
      {failure?.message && <Problem error={new Error(`${failure.reason}: ${failure.message}`)} />}
      <div className="columns">
        <section className="card">
          <h2>Where it is</h2>
          <dl className="values">
            <div>
              <dt>by host</dt>
              <dd>{model.data.status?.url ?? "not ready"}</dd>
            </div>
            <div>
              <dt>by path</dt>
              <dd>{`${location.origin}/serving/${namespace}/${name}/v2/models/${name}/infer`}</dd>
            </div>
            <div>
              <dt>in Pods</dt>
              <dd>{model.data.status?.address?.url ?? "not ready"}</dd>
            </div>
            <div>
              <dt>model</dt>
              <dd>{model.data.spec.predictor.model?.storageUri}</dd>
            </div>
          </dl>
          {metadata.data && (
            <>
              <h3>Tensors</h3>
              <ul className="artifacts">
                {[...(metadata.data.inputs ?? []), ...(metadata.data.outputs ?? [])].map((tensor) => (
                  <li key={tensor.name}>
                    <strong>{tensor.name}</strong> {tensor.datatype} [{tensor.shape.join(", ")}]
                  </li>
                ))}
              </ul>
            </>
          )}
        </section>
        <section className="card">
          <h2>Try it</h2>
          {isReady ? (
            <TryIt namespace={namespace} name={name} rows={example(metadata.data)} key={metadata.data?.name} />
          ) : (
            <p className="faint">The model is not ready yet.</p>
          )}
        </section>
      </div>
    </>
  );
}

function TryIt({ namespace, name, rows }: { namespace: string; name: string; rows: string }) {
  const [text, setText] = useState(rows);
  const [milliseconds, setMilliseconds] = useState<number>();
  const ask = useMutation({
    mutationFn: async () => {
      const body = JSON.stringify(requestOf(text));
      const started = performance.now();
      const answer = await json<{ outputs: { name: string; shape: number[]; data: number[] }[] }>(
        `/serving/${namespace}/${name}/v2/models/${name}/infer`,
        { method: "POST", headers: { "content-type": "application/json" }, body },
      );
      setMilliseconds(performance.now() - started);
      return answer;
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    ask.mutate();
  };
  return (
    <form onSubmit={submit} className="try">
      <label>
        <span>Rows, one a line: numbers with commas between them</span>
        <textarea value={text} onChange={(event) => setText(event.target.value)} rows={5} spellCheck={false} />
      </label>
      <button type="submit" className="primary" disabled={ask.isPending}>
        {ask.isPending ? "Asking…" : "Predict"}
      </button>
      {ask.error && <Problem error={ask.error} />}
      {ask.data && (
        <>
          <p className="faint">answered in {milliseconds?.toFixed(1)} ms</p>
          {ask.data.outputs.map((output) => (
            <Output key={output.name} output={output} />
          ))}
        </>
      )}
    </form>
  );
}

function Output({ output }: { output: { name: string; shape: number[]; data: number[] } }) {
  const width = output.shape.length > 1 ? (output.shape[output.shape.length - 1] ?? 1) : 1;
  const rows = Array.from({ length: output.data.length / width }, (_, i) => output.data.slice(i * width, (i + 1) * width));
  const top = Math.max(...output.data.map(Math.abs), 1e-9);
  return (
    <div className="output" data-testid="output">
      <h3>
        {output.name} [{output.shape.join(", ")}]
      </h3>
      {rows.slice(0, 20).map((row, i) => (
        <div key={i} className="bars">
          {row.map((value, j) => (
            <div key={j} className="bar" title={`${j}: ${value}`}>
              <div style={{ height: `${(Math.abs(value) / top) * 100}%` }} className={value === Math.max(...row) ? "most" : undefined} />
              <span>{j}</span>
            </div>
          ))}
        </div>
      ))}
      <code>{JSON.stringify(output.data.slice(0, 40))}</code>
    </div>
  );
}
