import { useQuery } from "@tanstack/react-query";
import { json, plain } from "./http";
import type * as T from "./types";

const LIVE = 2000;

export const useSession = () =>
  useQuery({ queryKey: ["session"], queryFn: () => json<T.Session>("/apis/ferroflow/v1/session"), staleTime: Infinity });

export const useNamespaces = () =>
  useQuery({
    queryKey: ["profiles"],
    queryFn: async () => {
      const list = await json<T.List<{ metadata: T.Meta }>>("/kube/apis/kubeflow.org/v1/profiles");
      return list.items.map((item) => item.metadata.name);
    },
    staleTime: 60_000,
  });

export const useRuns = (namespace: string, page: string, size = 20) =>
  useQuery({
    queryKey: ["runs", namespace, page, size],
    queryFn: () => {
      const query = new URLSearchParams({ namespace, page_size: String(size), page_token: page, sort_by: "created_at desc" });
      return json<{ runs?: T.KfpRun[]; next_page_token?: string; total_size?: number }>(`/apis/v2beta1/runs?${query}`);
    },
    refetchInterval: LIVE,
  });

const ended = (state?: T.RunState) => state !== undefined && ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"].includes(state);

export const useRun = (id: string) =>
  useQuery({
    queryKey: ["run", id],
    queryFn: () => json<T.KfpRun>(`/apis/v2beta1/runs/${id}`),
    refetchInterval: (query) => (ended(query.state.data?.state) ? false : 700),
  });

export const usePipelineSpec = (run?: T.KfpRun) => {
  const reference = run?.pipeline_version_reference;
  return useQuery({
    queryKey: ["spec", run?.run_id],
    enabled: run !== undefined,
    staleTime: Infinity,
    queryFn: async () => {
      if (run?.pipeline_spec) return run.pipeline_spec;
      const path = `/apis/v2beta1/pipelines/${reference?.pipeline_id}/versions/${reference?.pipeline_version_id}`;
      return (await json<{ pipeline_spec: Record<string, unknown> }>(path)).pipeline_spec;
    },
  });
};

export const useTaskLog = (runId: string, node: string | undefined, live: boolean) =>
  useQuery({
    queryKey: ["log", runId, node],
    enabled: node !== undefined,
    queryFn: () => plain(`/apis/v1alpha1/runs/${runId}/nodes/${node}/log`),
    refetchInterval: live ? 1500 : false,
    retry: false,
  });

export const useLineage = (runId: string, live: boolean) =>
  useQuery({
    queryKey: ["lineage", runId],
    queryFn: () => json<Lineage>(`/apis/ferroflow/v1/metadata/runs/${runId}/lineage`),
    refetchInterval: live ? LIVE : false,
    retry: false,
  });

/** What the metadata service tells about a run. */
export interface Lineage {
  nodes: { id: string; kind: "artifact" | "execution"; name: string; type: string; uri?: string; state?: string; properties?: Record<string, unknown> }[];
  edges: { from: string; to: string; name?: string }[];
}

const kube = <R>(group: string, namespace: string, plural: string, name = "") =>
  json<R>(`/kube/apis/${group}/namespaces/${namespace}/${plural}${name && `/${name}`}`);

export const useExperiments = (namespace: string) =>
  useQuery({
    queryKey: ["experiments", namespace],
    queryFn: () => kube<T.List<T.Experiment>>("kubeflow.org/v1beta1", namespace, "experiments"),
    refetchInterval: LIVE,
  });

export const useExperiment = (namespace: string, name: string) =>
  useQuery({
    queryKey: ["experiment", namespace, name],
    queryFn: () => kube<T.Experiment>("kubeflow.org/v1beta1", namespace, "experiments", name),
    refetchInterval: LIVE,
  });

export const useTrials = (namespace: string, experiment: string) =>
  useQuery({
    queryKey: ["trials", namespace, experiment],
    queryFn: () => {
      const selector = encodeURIComponent(`katib.kubeflow.org/experiment=${experiment}`);
      return kube<T.List<T.Trial>>("kubeflow.org/v1beta1", namespace, `trials?labelSelector=${selector}`);
    },
    refetchInterval: LIVE,
  });

export const useModels = (namespace: string) =>
  useQuery({
    queryKey: ["models", namespace],
    queryFn: () => kube<T.List<T.InferenceService>>("serving.kserve.io/v1beta1", namespace, "inferenceservices"),
    refetchInterval: LIVE,
  });

export const useModel = (namespace: string, name: string) =>
  useQuery({
    queryKey: ["model", namespace, name],
    queryFn: () => kube<T.InferenceService>("serving.kserve.io/v1beta1", namespace, "inferenceservices", name),
    refetchInterval: LIVE,
  });

export const useModelMetadata = (namespace: string, name: string, ready: boolean) =>
  useQuery({
    queryKey: ["model-metadata", namespace, name],
    enabled: ready,
    queryFn: () => json<T.ModelMetadata>(`/serving/${namespace}/${name}/v2/models/${name}`),
    retry: false,
  });

export const useNotebooks = (namespace: string) =>
  useQuery({
    queryKey: ["notebooks", namespace],
    queryFn: () => kube<T.List<T.Notebook>>("kubeflow.org/v1", namespace, "notebooks"),
    refetchInterval: LIVE,
  });

export const useTrainingJobs = (namespace: string) =>
  useQuery({
    queryKey: ["training", namespace],
    queryFn: async () => {
      const kinds = ["xgboostjobs", "pytorchjobs"];
      const lists = await Promise.all(kinds.map((kind) => kube<T.List<T.TrainingJob>>("kubeflow.org/v1", namespace, kind)));
      return lists.flatMap((list) => list.items);
    },
    refetchInterval: LIVE,
  });
