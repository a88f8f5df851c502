import { expect, test } from "vitest";
import type { Experiment, Trial } from "../src/api/types";
import { newest, parallel, progress, rows } from "../src/parts/trials";

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

test("progress follows the ends of trials and keeps the best", () => {
  const ended = (name: string, loss: string, at: string): Trial => {
    const one = trial(name, "0.1", loss);
    return { ...one, status: { ...one.status, completionTime: at } };
  };
  const points = progress(experiment, [ended("b", "0.5", "2026-01-01T00:00:02Z"), ended("a", "0.7", "2026-01-01T00:00:01Z"), trial("none", "0.2"), ended("c", "0.6", "2026-01-01T00:00:03Z")]);
  expect(points.map((point) => [point.name, point.best])).toEqual([["a", 0.7], ["b", 0.5], ["c", 0.5]]);
});

test("the newest comes first", () => {
  const made = (name: string, creationTimestamp?: string) => ({ metadata: { name, creationTimestamp } });
  expect(newest([made("old", "2025-01-01T00:00:00Z"), made("new", "2026-01-01T00:00:00Z"), made("none")]).map((item) => item.metadata.name)).toEqual(["new", "old", "none"]);
  expect(newest(undefined)).toEqual([]);
});
