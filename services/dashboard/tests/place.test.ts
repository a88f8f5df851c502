import { expect, test } from "vitest";
import type { RunTask } from "../src/api/types";
import { HEIGHT, WIDTH, place } from "../src/parts/place";
import type { Step } from "../src/parts/steps";

const step = (path: string, after: string[] = []): Step => ({
  task: { path, name: path, display_name: path, kind: "container", state: "PENDING", after, inputs: {}, outputs: {}, attempts: [] } as RunTask,
  after,
});

const overlaps = (steps: Step[]) => {
  const places = [...place(steps).values()];
  return places.some((a, i) => places.some((b, j) => i < j && Math.abs(a.x - b.x) < WIDTH && Math.abs(a.y - b.y) < HEIGHT));
};

test("a chain goes down", () => {
  const places = place([step("a"), step("b", ["a"]), step("c", ["b"])]);
  const ys = ["a", "b", "c"].map((path) => places.get(path)?.y ?? 0);
  expect(ys).toEqual([...ys].sort((a, b) => a - b));
  expect(new Set(ys).size).toBe(3);
});

test("a wide fan-out is broken into rows below its start and above its end", () => {
  const middle = Array.from({ length: 200 }, (_, i) => step(`m${i}`, ["start"]));
  const steps = [step("start"), ...middle, step("end", middle.map((one) => one.task.path))];
  const places = place(steps);
  const of = (path: string) => places.get(path) ?? { x: 0, y: 0 };
  const xs = middle.map((one) => of(one.task.path).x);
  expect(Math.max(...xs) - Math.min(...xs)).toBeLessThan(3000);
  expect(middle.every((one) => of(one.task.path).y > of("start").y && of(one.task.path).y < of("end").y)).toBe(true);
  expect(overlaps(steps)).toBe(false);
});

test("steps without order stand in a block", () => {
  const steps = Array.from({ length: 9 }, (_, i) => step(`s${i}`));
  expect(new Set([...place(steps).values()].map((at) => at.y)).size).toBe(3);
  expect(overlaps(steps)).toBe(false);
  expect(place([]).size).toBe(0);
});
