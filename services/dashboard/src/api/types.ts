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
  run_details?: { task_details?: KfpTask[] };
}

export interface KfpTask {
  task_id: string;
  display_name: string;
  state?: RunState;
  start_time?: string;
  end_time?: string;
  error?: { message?: string };
  pod_name?: string;
  parent_task_id?: string;
  child_tasks?: { pod_name?: string; task_id?: string }[];
  inputs?: Record<string, { artifact_ids?: string[] }>;
  outputs?: Record<string, { artifact_ids?: string[] }>;
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
