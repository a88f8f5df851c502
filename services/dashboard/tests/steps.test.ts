import { expect, test } from "vitest";
import type { RunTask } from "../src/api/types";
import { label, level, metrics, producer, timeline, trail } from "../src/parts/steps";

const task = (path: string, kind: RunTask["kind"], more: Partial<RunTask> = {}): RunTask => {
  const parts = path.split("/");
  const name = parts[parts.length - 1] ?? "";
  const parent = parts.length > 1 ? parts.slice(0, -1).join("/") : null;
  return { path, parent, name, display_name: name, kind, state: "SUCCEEDED", after: [], inputs: {}, outputs: {}, attempts: [], ...more };
};

const artifact = (type: string, uri: string, metadata = {}) => ({ parameters: {}, artifacts: { out: [{ type, uri, metadata }] } });

const tasks = [
  task("root", "root"),
  task("root/load", "container", { started_at: "2026-01-01T00:00:00Z", ended_at: "2026-01-01T00:00:02Z", outputs: artifact("system.Dataset", "s3://b/data") }),
  task("root/train", "container", { after: ["load", "gone"], started_at: "2026-01-01T00:00:02Z", outputs: artifact("system.Metrics", "s3://b/m", { accuracy: 0.9, kind: "x" }) }),
  task("root/loop", "loop", { after: ["train"] }),
  task("root/loop/0", "iteration"),
  task("root/loop/0/score", "container"),
];

test("the first level is below the root, and its edges are those between its steps", () => {
  expect(level(tasks).map((step) => [step.task.path, step.after])).toEqual([
    ["root/load", []],
    ["root/train", ["root/load"]],
    ["root/loop", ["root/train"]],
  ]);
});

test("a level inside a group", () => {
  expect(level(tasks, "root/loop").map((step) => step.task.path)).toEqual(["root/loop/0"]);
  expect(trail(tasks, "root/loop/0").map((group) => group.path)).toEqual(["root/loop", "root/loop/0"]);
  expect(trail(tasks, undefined)).toEqual([]);
});

test("the timeline goes to now for what still runs", () => {
  const bars = timeline(tasks, Date.parse("2026-01-01T00:00:08Z"));
  expect(bars.map((bar) => [bar.task.name, bar.start, bar.width, bar.milliseconds])).toEqual([
    ["load", 0, 0.25, 2000],
    ["train", 0.25, 0.75, 6000],
  ]);
  expect(timeline([], 0)).toEqual([]);
});

test("metrics are numbers of metrics artifacts", () => {
  expect(metrics(tasks).map(({ step, name, value }) => [step.name, name, value])).toEqual([["train", "accuracy", 0.9]]);
});

test("an artifact is traced to the step that wrote it", () => {
  expect(producer(tasks, "s3://b/data")?.name).toBe("load");
  expect(producer(tasks, undefined)).toBeUndefined();
});

test("steps of a loop tell their pass", () => {
  expect(label(task("root/loop/3/score", "container"))).toBe("score [3]");
  expect(label(task("root/a/3", "container", { display_name: "a[3]" }))).toBe("a[3]");
  expect(label(task("root/load", "container"))).toBe("load");
});
