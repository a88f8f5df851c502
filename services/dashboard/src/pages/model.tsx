import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useParams } from "react-router";
import { json } from "../api/http";
import { useModel, useModelMetadata } from "../api/queries";
import type { ModelMetadata } from "../api/types";
import { Copy, Snippet } from "../parts/copy";
import { useNamespace } from "../parts/namespace";
import { short } from "../parts/numbers";
import { Badge, Empty, Loading, Problem, readiness } from "../parts/states";
import { type Answer, example, requestOf, rowsOf } from "../parts/try-it";

/** A served model and a form to try it. */
export function Model() {
  const { name = "" } = useParams();
  const [namespace] = useNamespace();
  const model = useModel(namespace, name);
  const isReady = model.data !== undefined && readiness(model.data) === "ready";
  const metadata = useModelMetadata(namespace, name, isReady);
  if (model.isPending) return <Loading />;
  if (!model.data) return <Problem error={model.error} />;
  const { spec, status } = model.data;
  const failure = status?.modelStatus?.lastFailureInfo;
  const path = `${location.origin}/serving/${namespace}/${name}/v2/models/${name}/infer`;
  const addresses = [
    { what: "By path", text: path },
    { what: "By host", text: status?.url },
    { what: "From Pods", text: status?.address?.url },
    { what: "Stored at", text: spec.predictor.model?.storageUri },
  ];
  return (
    <>
      <header className="title">
        <h1>{name}</h1>
        <Badge state={readiness(model.data)} />
        <span className="faint">{spec.predictor.model?.modelFormat?.name ?? "custom"}</span>
      </header>
      {failure?.message && <Problem error={new Error(`${failure.reason}: ${failure.message}`)} />}
      <div className="columns">
        <section className="card">
          <h2>Try it</h2>
          {isReady && metadata.isPending && <Loading />}
          {isReady && !metadata.isPending && (
            <TryIt namespace={namespace} name={name} metadata={metadata.data} key={metadata.data?.name} />
          )}
          {!isReady && <Empty title="Not ready" text="The form appears as soon as the model answers." />}
        </section>
        <section className="card">
          <h2>Where it is</h2>
          <dl className="values">
            {addresses.map(({ what, text }) => (
              <div key={what}>
                <dt>{what}</dt>
                <dd className="address">
                  {text ? (
                    <>
                      <code>{text}</code>
                      <Copy text={text} what={what.toLowerCase()} />
                    </>
                  ) : (
                    <span className="faint">not yet</span>
                  )}
                </dd>
              </div>
            ))}
          </dl>
          {metadata.data && <Tensors metadata={metadata.data} />}
          <h3>From a shell</h3>
          <Snippet
            what="the command"
            text={`curl ${path} \\\n  -H 'content-type: application/json' \\\n  -d '${JSON.stringify(requestOf(example(metadata.data), metadata.data))}'`}
          />
        </section>
      </div>
    </>
  );
}

function Tensors({ metadata }: { metadata: ModelMetadata }) {
  const all = [
    ...(metadata.inputs ?? []).map((tensor) => ({ ...tensor, side: "input" })),
    ...(metadata.outputs ?? []).map((tensor) => ({ ...tensor, side: "output" })),
  ];
  if (all.length === 0) return null;
  return (
    <>
      <h3>Tensors</h3>
      <ul className="artifacts">
        {all.map((tensor) => (
          <li key={`${tensor.side} ${tensor.name}`}>
            <div className="head">
              <strong>{tensor.name}</strong>
              <span className="badge idle">{tensor.side}</span>
              <span className="faint">
                {tensor.datatype} [{tensor.shape.map((size) => (size < 0 ? "any" : size)).join(", ")}]
              </span>
            </div>
          </li>
        ))}
      </ul>
    </>
  );
}

function TryIt({ namespace, name, metadata }: { namespace: string; name: string; metadata?: ModelMetadata }) {
  const [text, setText] = useState(() => example(metadata));
  const ask = useMutation({
    mutationFn: async () => {
      const body = JSON.stringify(requestOf(text, metadata));
      const started = performance.now();
      const answer = await json<{ outputs: Answer[] }>(`/serving/${namespace}/${name}/v2/models/${name}/infer`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      return { outputs: answer.outputs, milliseconds: performance.now() - started };
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    ask.mutate();
  };
  return (
    <form onSubmit={submit} className="try">
      <label>
        <span>One row a line, numbers with commas between them</span>
        <textarea value={text} onChange={(event) => setText(event.target.value)} rows={5} spellCheck={false} />
      </label>
      <div className="row">
        <button type="submit" className="primary" disabled={ask.isPending}>
          {ask.isPending ? "Asking…" : "Predict"}
        </button>
        {ask.data && <span className="faint">answered in {ask.data.milliseconds.toFixed(1)} ms</span>}
      </div>
      <div aria-live="polite">
        {ask.error && <Problem error={ask.error} />}
        {ask.data?.outputs.map((output) => <Output key={output.name} output={output} />)}
      </div>
    </form>
  );
}

/** So many rows are drawn; the others are only told of. */
const MOST_ROWS = 20;

function Output({ output }: { output: Answer }) {
  const rows = rowsOf(output);
  return (
    <div className="output" data-testid="output">
      <h3>
        {output.name} [{output.shape.join(", ")}]
      </h3>
      <ol className="predictions">
        {rows.slice(0, MOST_ROWS).map((row, i) => (
          <li key={i}>{row.length > 1 && row.length <= 32 && row.every((value) => typeof value === "number") ? <Bars row={row as number[]} /> : <code>{row.map((value) => (typeof value === "number" ? short(value) : String(value))).join(", ")}</code>}</li>
        ))}
      </ol>
      {rows.length > MOST_ROWS && <p className="faint">and {rows.length - MOST_ROWS} more rows</p>}
    </div>
  );
}

function Bars({ row }: { row: number[] }) {
  const top = Math.max(...row.map(Math.abs), 1e-9);
  const most = Math.max(...row);
  return (
    <div className="bars">
      {row.map((value, j) => (
        <div key={j} className={value === most ? "bar most" : "bar"} title={`${j}: ${value}`}>
          <span className="value">{row.length <= 12 ? short(Number(value.toPrecision(2))) : ""}</span>
          <div style={{ height: `${(Math.abs(value) / top) * 70}px` }} />
          <span>{j}</span>
        </div>
      ))}
    </div>
  );
}
