import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { json } from "../api/http";
import { useNotebooks } from "../api/queries";
import type { Notebook } from "../api/types";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { ago } from "../parts/time";

const STOPPED = "kubeflow-resource-stopped";
const IMAGE = "kubeflownotebookswg/jupyter-scipy:v1.10.0";

function state(notebook: Notebook): string {
  if (notebook.metadata.annotations?.[STOPPED]) return "stopped";
  return notebook.status?.readyReplicas ? "ready" : "waiting";
}

/** Notebook servers: open, stop, start, create, delete. */
export function Notebooks() {
  const [namespace] = useNamespace();
  const list = useNotebooks(namespace);
  const client = useQueryClient();
  const path = `/kube/apis/kubeflow.org/v1/namespaces/${namespace}/notebooks`;
  const change = useMutation({
    mutationFn: ({ name, init }: { name: string; init: RequestInit }) => json(name ? `${path}/${name}` : path, init),
    onSettled: () => client.invalidateQueries({ queryKey: ["notebooks", namespace] }),
  });
  const patch = (name: string, stopped: string | null) =>
    change.mutate({
      name,
      init: {
        method: "PATCH",
        headers: { "content-type": "application/merge-patch+json" },
        body: JSON.stringify({ metadata: { annotations: { [STOPPED]: stopped } } }),
      },
    });
  return (
    <>
      <h1>Notebooks</h1>
      <Create
        create={(name) => {
          const container = { name, image: IMAGE };
          const body = { apiVersion: "kubeflow.org/v1", kind: "Notebook", metadata: { name }, spec: { template: { spec: { containers: [container] } } } };
          change.mutate({ name: "", init: { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } });
        }}
      />
      {change.error && <Problem error={change.error} />}
      <section className="card">
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && <Empty title="No notebooks" text="Create one above; it opens JupyterLab." />}
        <ul className="list">
          {list.data?.items.map((notebook) => {
            const { name } = notebook.metadata;
            const waiting = notebook.status?.containerState?.waiting;
            return (
              <li key={name}>
                <a href={`/notebook/${namespace}/${name}/`} target="_blank" rel="noreferrer">
                  {name}
                </a>
                <Badge state={state(notebook)} />
                {waiting?.message && <span className="faint">{waiting.message}</span>}
                <span className="faint right">{ago(notebook.metadata.creationTimestamp)}</span>
                {state(notebook) === "stopped" ? (
                  <button type="button" onClick={() => patch(name, null)}>Start</button>
                ) : (
                  <button type="button" onClick={() => patch(name, new Date().toISOString())}>Stop</button>
                )}
                <button
                  type="button"
                  onClick={() => confirm(`Delete notebook ${name}?`) && change.mutate({ name, init: { method: "DELETE" } })}
                >
                  Delete
                </button>
              </li>
            );
          })}
        </ul>
      </section>
    </>
  );
}

function Create({ create }: { create: (name: string) => void }) {
  const [name, setName] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    create(name);
    setName("");
  };
  return (
    <form className="inline" onSubmit={submit}>
      <input
        aria-label="Name of the notebook"
        placeholder="name"
        pattern="[a-z]([-a-z0-9]*[a-z0-9])?"
        title="small letters, digits and dashes"
        required
        value={name}
        onChange={(event) => setName(event.target.value)}
      />
      <button type="submit" className="primary">
        New notebook
      </button>
    </form>
  );
}
