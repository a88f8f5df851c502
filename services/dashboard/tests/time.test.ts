import { expect, test } from "vitest";
import { ago, span, took } from "../src/parts/time";

test("durations are in their largest unit", () => {
  expect(span(1234)).toBe("1.2 s");
  expect(span(3000)).toBe("3 s");
  expect(span(45_000)).toBe("45 s");
  expect(span(600_000)).toBe("10 min");
  expect(span(7_200_000)).toBe("2 h");
});

test("the epoch means not ended", () => {
  const start = "2026-01-01T00:00:00Z";
  expect(took(start, "1970-01-01T00:00:00Z", Date.parse(start) + 2100)).toBe("2.1 s");
  expect(took(start, "2026-01-01T00:00:30Z")).toBe("30 s");
  expect(ago(undefined)).toBe("");
  expect(ago(start, Date.parse(start) + 1000)).toBe("just now");
  expect(ago(start, Date.parse(start) + 60_000)).toBe("60 s ago");
});
