import { expect, test } from "vitest";
import type { Experiment, Trial } from "../src/api/types";
import { parallel, rows } from "../src/parts/trials";

const experiment: Experiment = {
  metadata: { name: "e" },
  spec: {
    objective: { type: "minimize", objectiveMetricName: "loss" },
    parameters: [
      { name: "rate", parameterType: "double", feasibleSpace: { min: "0.01", max: "0.5", distribution: "logUniform" } },
      { name: "kind", parameterType: "categorical", feasibleSpace: { list: ["a", "b"] } },
    ],
  },
};

const trial = (name: string, rate: string, loss?: string): Trial => ({
  metadata: { name },
  spec: { parameterAssignments: [{ name: "rate", value: rate }, { name: "kind", value: "a" }] },
  status: loss ? { observation: { metrics: [{ name: "loss", min: loss, max: loss, latest: loss }] } } : {},
});

test("the best trial comes first and one without a value last", () => {
  const table = rows(experiment, [trial("none", "0.1"), trial("worse", "0.2", "0.9"), trial("best", "0.3", "0.1")]);
  expect(table.map((row) => row.name)).toEqual(["best", "worse", "none"]);
});

test("axes have the scale of their parameter", () => {
  const { axes, lines } = parallel(experiment, rows(experiment, [trial("t", "0.1", "0.5"), trial("none", "0.1")]));
  expect(axes.map((axis) => axis.type)).toEqual(["log", "category", "value"]);
  expect(lines).toEqual([[0.1, "a", 0.5]]);
});

test("a metric that is unavailable is no value", () => {
  expect(rows(experiment, [trial("t", "0.1", "unavailable")])[0]?.objective).toBeUndefined();
});
