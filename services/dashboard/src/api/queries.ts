import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { ApiError, json, plain } from "./http";
import type * as T from "./types";

const LIVE = 2000;

/** Whether the server said no, so that asking again changes nothing. */
export const isRefused = (error: unknown) => error instanceof ApiError && error.status >= 400 && error.status < 500;

/** Asks again and again, until it is refused. */
const every = (milliseconds: number) => (query: { state: { error: Error | null } }) => (isRefused(query.state.error) ? false : milliseconds);

export const useSession = () =>
  useQuery({ queryKey: ["session"], queryFn: () => json<T.Session>("/apis/ferroflow/v1/session"), refetchInterval: 5000 });

export const useNamespaces = () =>
  useQuery({
    queryKey: ["profiles"],
    queryFn: async () => {
      const list = await json<T.List<{ metadata: T.Meta }>>("/kube/apis/kubeflow.org/v1/profiles");
      return list.items.map((item) => item.metadata.name);
    },
    staleTime: 60_000,
  });

export const useRuns = (namespace: string, page: string, size = 20, name = "") =>
  useQuery({
    queryKey: ["runs", namespace, page, size, name],
    queryFn: () => {
      const query = new URLSearchParams({ namespace, page_size: String(size), page_token: page, sort_by: "created_at desc" });
      if (name) query.set("filter", JSON.stringify({ predicates: [{ key: "name", operation: "IS_SUBSTRING", string_value: name }] }));
      return json<{ runs?: T.KfpRun[]; next_page_token?: string; total_size?: number }>(`/apis/v2beta1/runs?${query}`);
    },
    placeholderData: keepPreviousData,
    refetchInterval: every(LIVE),
  });

/** Whether a run or a step is still to change. */
export const isLive = (state?: string) => !["SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"].includes(state ?? "PENDING");

export const useRun = (id: string) =>
  useQuery({
    queryKey: ["run", id],
    queryFn: () => json<T.RunGraph>(`/apis/ferroflow/v1/pipelines/runs/${id}/graph`),
    refetchInterval: (query) => (query.state.data && !isLive(query.state.data.run.state) ? false : every(700)(query)),
  });

/** Asks for so many lines at most: a step may print hundreds of megabytes. */
export const LOG_LINES = 2000;

export const logPath = (run: string, pod: string) => `/apis/v1alpha1/runs/${run}/nodes/${encodeURIComponent(pod)}/log`;

export const useTaskLog = (run: string, pod: string | undefined, live: boolean) =>
  useQuery({
    // asked once more when the step has ended, for its last words
    queryKey: ["log", run, pod, live],
    enabled: pod !== undefined,
    queryFn: () => plain(`${logPath(run, pod ?? "")}?tail_lines=${LOG_LINES}`),
    placeholderData: (before, query) => (query?.queryKey[2] === pod ? before : undefined),
    refetchInterval: live ? 1200 : false,
    retry: false,
  });

export const useModelArtifacts = (namespace: string) =>
  useQuery({
    queryKey: ["model-artifacts", namespace],
    queryFn: async () => {
      const path = `/apis/ferroflow/v1/metadata/models?namespace=${encodeURIComponent(namespace)}&page_size=50`;
      return (await json<{ models?: T.ModelArtifact[] }>(path)).models ?? [];
    },
    refetchInterval: every(3 * LIVE),
  });

const kube = <R>(group: string, namespace: string, plural: string, name = "") =>
  json<R>(`/kube/apis/${group}/namespaces/${namespace}/${plural}${name && `/${name}`}`);

export const useExperiments = (namespace: string) =>
  useQuery({
    queryKey: ["experiments", namespace],
    queryFn: () => kube<T.List<T.Experiment>>("kubeflow.org/v1beta1", namespace, "experiments"),
    refetchInterval: every(LIVE),
  });

export const useExperiment = (namespace: string, name: string) =>
  useQuery({
    queryKey: ["experiment", namespace, name],
    queryFn: () => kube<T.Experiment>("kubeflow.org/v1beta1", namespace, "experiments", name),
    refetchInterval: every(LIVE),
  });

export const useTrials = (namespace: string, experiment: string) =>
  useQuery({
    queryKey: ["trials", namespace, experiment],
    queryFn: () => {
      const selector = encodeURIComponent(`katib.kubeflow.org/experiment=${experiment}`);
      return kube<T.List<T.Trial>>("kubeflow.org/v1beta1", namespace, `trials?labelSelector=${selector}`);
    },
    refetchInterval: every(LIVE),
  });

export const useModels = (namespace: string) =>
  useQuery({
    queryKey: ["models", namespace],
    queryFn: () => kube<T.List<T.InferenceService>>("serving.kserve.io/v1beta1", namespace, "inferenceservices"),
    refetchInterval: every(LIVE),
  });

export const useModel = (namespace: string, name: string) =>
  useQuery({
    queryKey: ["model", namespace, name],
    queryFn: () => kube<T.InferenceService>("serving.kserve.io/v1beta1", namespace, "inferenceservices", name),
    refetchInterval: every(LIVE),
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
    refetchInterval: every(LIVE),
  });

export const useTrainingJobs = (namespace: string) =>
  useQuery({
    queryKey: ["training", namespace],
    queryFn: async () => {
      const kinds = ["xgboostjobs", "pytorchjobs"];
      const lists = await Promise.all(kinds.map((kind) => kube<T.List<T.TrainingJob>>("kubeflow.org/v1", namespace, kind)));
      return lists.flatMap((list) => list.items);
    },
    refetchInterval: every(LIVE),
  });
