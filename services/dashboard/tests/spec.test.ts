import { expect, test } from "vitest";
import { tasksOf } from "../src/parts/spec";

const spec = {
  root: {
    dag: {
      tasks: {
        load: { taskInfo: { name: "load" } },
        train: {
          taskInfo: { name: "train" },
          dependentTasks: ["load"],
          inputs: { artifacts: { data: { taskOutputArtifact: { producerTask: "load" } } } },
        },
        other: { inputs: { parameters: { x: { taskOutputParameter: { producerTask: "gone" } } } } },
      },
    },
  },
};

test("edges come from inputs and from dependencies, each once", () => {
  expect(tasksOf(spec)).toEqual([
    { id: "load", name: "load", after: [], condition: undefined },
    { id: "train", name: "train", after: ["load"], condition: undefined },
    { id: "other", name: "other", after: [], condition: undefined },
  ]);
});

test("a spec may come with its platform spec, or not at all", () => {
  expect(tasksOf({ pipeline_spec: spec, platform_spec: {} })).toHaveLength(3);
  expect(tasksOf(undefined)).toEqual([]);
});
