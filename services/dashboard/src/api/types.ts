// The parts of the wire formats that the pages read.

export interface Session {
  user: string;
  namespace: string;
  defaultNamespace: string;
  version: string;
}

export type RunState = "PENDING" | "RUNNING" | "SUCCEEDED" | "SKIPPED" | "FAILED" | "CANCELING" | "CANCELED" | "PAUSED";

/** A KFP v2beta1 run, as its REST API writes it. */
export interface KfpRun {
  run_id: string;
  experiment_id?: string;
  display_name: string;
  description?: string;
  state?: RunState;
  created_at?: string;
  finished_at?: string;
  error?: { code?: number; message?: string };
  pipeline_spec?: Record<string, unknown>;
  pipeline_version_reference?: { pipeline_id?: string; pipeline_version_id?: string };
  runtime_config?: { parameters?: Record<string, unknown> };
}

/** An artifact as a task reads or writes it. */
export interface Artifact {
  id?: string;
  name?: string;
  uri?: string;
  type?: string;
  metadata?: Record<string, unknown>;
  size?: number;
}

export interface TaskValues {
  parameters?: Record<string, unknown>;
  artifacts?: Record<string, Artifact[]>;
}

export interface Attempt {
  number: number;
  pod_name: string;
  state: string;
  message?: string | null;
}

/** A task of a run with all that is known about it; `after` names tasks of the same parent. */
export interface RunTask {
  path: string;
  parent?: string | null;
  name: string;
  display_name: string;
  kind: "root" | "container" | "importer" | "dag" | "loop" | "iteration";
  state: RunState;
  cached?: boolean;
  message?: string | null;
  after: string[];
  started_at?: string | null;
  ended_at?: string | null;
  inputs: TaskValues;
  outputs: TaskValues;
  attempts: Attempt[];
}

export interface RunGraph {
  run: KfpRun;
  namespace: string;
  parameters?: Record<string, unknown>;
  tasks: RunTask[];
}

/** A model that a run made, as the metadata service lists it. Numbers of 64 bits come as text. */
export interface ModelArtifact {
  artifact_id?: string;
  name?: string;
  uri?: string;
  metrics?: Record<string, number>;
  run_id?: string;
  execution_name?: string;
  created_ms?: string;
}

export interface Meta {
  name: string;
  namespace?: string;
  creationTimestamp?: string;
  annotations?: Record<string, string>;
}

export interface Condition {
  type: string;
  status: string;
  reason?: string;
  message?: string;
}

export interface List<T> {
  items: T[];
}

export interface Experiment {
  metadata: Meta;
  spec: {
    objective: { type: string; objectiveMetricName: string; goal?: number };
    algorithm?: { algorithmName: string };
    parameters: { name: string; parameterType: string; feasibleSpace: { min?: string; max?: string; list?: string[]; distribution?: string } }[];
    maxTrialCount?: number;
    parallelTrialCount?: number;
  };
  status?: {
    conditions?: Condition[];
    trials?: number;
    trialsSucceeded?: number;
    trialsFailed?: number;
    trialsRunning?: number;
    trialMetricsUnavailable?: number;
    currentOptimalTrial?: {
      bestTrialName?: string;
      parameterAssignments?: { name: string; value: string }[];
      observation?: { metrics?: { name: string; min: string; max: string; latest: string }[] };
    };
  };
}

export interface Trial {
  metadata: Meta;
  spec: { parameterAssignments: { name: string; value: string }[] };
  status?: {
    conditions?: Condition[];
    startTime?: string;
    completionTime?: string;
    observation?: { metrics?: { name: string; min: string; max: string; latest: string }[] };
  };
}

export interface InferenceService {
  metadata: Meta;
  spec: { predictor: { model?: { modelFormat?: { name: string }; storageUri?: string; protocolVersion?: string } } };
  status?: {
    url?: string;
    address?: { url?: string };
    conditions?: Condition[];
    modelStatus?: { lastFailureInfo?: { message?: string; reason?: string } };
  };
}

export interface Notebook {
  metadata: Meta;
  spec: { template: { spec: { containers: { image?: string }[] } } };
  status?: { readyReplicas?: number; containerState?: { waiting?: { reason?: string; message?: string } } };
}

export interface TrainingJob {
  kind?: string;
  metadata: Meta;
  status?: { conditions?: Condition[]; startTime?: string; completionTime?: string };
}

export interface ModelMetadata {
  name: string;
  platform?: string;
  inputs?: { name: string; datatype: string; shape: number[] }[];
  outputs?: { name: string; datatype: string; shape: number[] }[];
}
