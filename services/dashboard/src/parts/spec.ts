/** One task of a pipeline's graph. */
export interface GraphTask {
  id: string;
  name: string;
  after: string[];
  condition?: string;
}

interface TaskSpec {
  taskInfo?: { name?: string };
  dependentTasks?: string[];
  inputs?: {
    parameters?: Record<string, { taskOutputParameter?: { producerTask?: string } }>;
    artifacts?: Record<string, { taskOutputArtifact?: { producerTask?: string } }>;
  };
  triggerPolicy?: { condition?: string };
}

/** Reads the root graph of a PipelineSpec, which may be wrapped with its platform spec. */
export function tasksOf(spec: Record<string, unknown> | undefined): GraphTask[] {
  const inner = (spec?.["pipeline_spec"] ?? spec) as { root?: { dag?: { tasks?: Record<string, TaskSpec> } } } | undefined;
  const tasks = inner?.root?.dag?.tasks ?? {};
  return Object.entries(tasks).map(([id, task]) => {
    const producers = [
      ...Object.values(task.inputs?.parameters ?? {}).map((input) => input.taskOutputParameter?.producerTask),
      ...Object.values(task.inputs?.artifacts ?? {}).map((input) => input.taskOutputArtifact?.producerTask),
      ...(task.dependentTasks ?? []),
    ];
    const after = [...new Set(producers.filter((name): name is string => name !== undefined && name in tasks))];
    return { id, name: task.taskInfo?.name ?? id, after, condition: task.triggerPolicy?.condition };
  });
}
