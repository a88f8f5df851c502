import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { json } from "../api/http";
import { useNotebooks } from "../api/queries";
import type { Notebook } from "../api/types";
import { useNamespace } from "../parts/namespace";
import { Badge, Empty, Loading, Problem } from "../parts/states";
import { ago, useNow } from "../parts/time";

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
      <header className="title">
        <h1>Notebooks</h1>
        <Create
          create={(name) => {
            const container = { name, image: IMAGE };
            const body = { apiVersion: "kubeflow.org/v1", kind: "Notebook", metadata: { name }, spec: { template: { spec: { containers: [container] } } } };
            change.mutate({ name: "", init: { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) } });
          }}
        />
      </header>
      {change.error && <Problem error={change.error} />}
      <section className="card">
        {list.isPending && <Loading />}
        {list.error && <Problem error={list.error} />}
        {list.data?.items.length === 0 && <Empty title="No notebooks" text="Create one above: it is a JupyterLab of your own." />}
        <ul className="list">
          {list.data?.items.map((notebook) => (
            <Row
              key={notebook.metadata.name}
              notebook={notebook}
              address={`/notebook/${namespace}/${notebook.metadata.name}/`}
              patch={(stopped) => patch(notebook.metadata.name, stopped)}
              remove={() => change.mutate({ name: notebook.metadata.name, init: { method: "DELETE" } })}
            />
          ))}
        </ul>
      </section>
    </>
  );
}

function Row(props: { notebook: Notebook; address: string; patch: (stopped: string | null) => void; remove: () => void }) {
  const { notebook, address } = props;
  const { name } = notebook.metadata;
  const waiting = notebook.status?.containerState?.waiting;
  const now = useNow();
  return (
    <li>
      <div className="grow">
        <span className="name">{name}</span> <Badge state={state(notebook)} />
        <div className="faint small">
          {notebook.spec.template.spec.containers[0]?.image} · created {ago(notebook.metadata.creationTimestamp, now)}
        </div>
        {waiting?.message && <div className="bad small">{waiting.message}</div>}
      </div>
      <span className="actions">
        {state(notebook) === "ready" && (
          <a className="button primary" href={address} target="_blank" rel="noreferrer" aria-label={`Open notebook ${name}`}>
            Open
          </a>
        )}
        {state(notebook) === "stopped" ? (
          <button type="button" onClick={() => props.patch(null)} aria-label={`Start notebook ${name}`}>
            Start
          </button>
        ) : (
          <button type="button" onClick={() => props.patch(new Date().toISOString())} aria-label={`Stop notebook ${name}`}>
            Stop
          </button>
        )}
        <button type="button" aria-label={`Delete notebook ${name}`} onClick={() => confirm(`Delete notebook ${name}?`) && props.remove()}>
          Delete
        </button>
      </span>
    </li>
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
    <form className="inline right" onSubmit={submit}>
      <input
        aria-label="Name of the notebook"
        placeholder="Name"
        pattern="[a-z]([\-a-z0-9]*[a-z0-9])?"
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
