import type { ReactNode } from "react";
import type { Condition, InferenceService } from "../api/types";

/** Waiting for an answer. */
export function Loading() {
  return (
    <div className="state" role="status">
      <span className="spinner" /> Loading…
    </div>
  );
}

/** Something went wrong; the text is the server's. */
export function Problem({ error }: { error: unknown }) {
  return (
    <div className="state problem" role="alert">
      {error instanceof Error ? error.message : String(error)}
    </div>
  );
}

/** Nothing to show, and what to do about it. */
export function Empty({ title, text, children }: { title: string; text?: ReactNode; children?: ReactNode }) {
  return (
    <div className="state empty">
      <h2>{title}</h2>
      {text && <p>{text}</p>}
      {children}
    </div>
  );
}

type Tone = "good" | "bad" | "busy" | "idle";

const TONES: Record<string, Tone> = {
  succeeded: "good", complete: "good", ready: "good", cached: "idle", earlystopped: "idle", restarting: "busy", running: "busy", created: "busy", pending: "idle", waiting: "idle", skipped: "idle",
  failed: "bad", canceled: "idle", canceling: "busy", "not ready": "busy", stopped: "idle", killed: "idle", metricsunavailable: "bad",
};

/** A coloured word for a state. */
export function Badge({ state, title }: { state?: string; title?: string }) {
  const word = (state ?? "pending").toLowerCase();
  return <span className={`badge ${TONES[word] ?? "idle"}`} title={title}>{word}</span>;
}

/** The condition of a custom resource that says most: the newest of its ends, or what it does. */
export function condition(conditions: Condition[] | undefined): string {
  const order = ["Failed", "Succeeded", "Complete", "Killed", "MetricsUnavailable", "EarlyStopped", "Restarting", "Running", "Created"];
  const isTrue = (type: string) => conditions?.some((c) => c.type === type && c.status === "True");
  return order.find(isTrue) ?? "Pending";
}

/** What the condition that {@link condition} picks says. */
export function message(conditions: Condition[] | undefined): string | undefined {
  const type = condition(conditions);
  return conditions?.find((one) => one.type === type)?.message;
}

/** Whether a served model answers. */
export function readiness(service: InferenceService): "ready" | "failed" | "not ready" {
  const ready = service.status?.conditions?.find((c) => c.type === "Ready");
  if (ready?.status === "True") return "ready";
  return service.status?.modelStatus?.lastFailureInfo ? "failed" : "not ready";
}
