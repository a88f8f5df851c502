import { expect, test } from "vitest";
import { condition, message, readiness } from "../src/parts/states";

const is = (type: string, status = "True", text = "") => ({ type, status, message: text });

test("an end says more than a beginning", () => {
  expect(condition([is("Created"), is("Running", "False"), is("Succeeded", "True", "all trials")])).toBe("Succeeded");
  expect(message([is("Created"), is("Failed", "True", "exit code 3")])).toBe("exit code 3");
  expect(condition(undefined)).toBe("Pending");
  expect(message(undefined)).toBeUndefined();
});

test("a model that is not ready failed only where it says so", () => {
  const service = (status: object) => ({ metadata: { name: "m" }, spec: { predictor: {} }, status });
  expect(readiness(service({ conditions: [is("Ready")] }))).toBe("ready");
  expect(readiness(service({ conditions: [is("Ready", "False")] }))).toBe("not ready");
  expect(readiness(service({ modelStatus: { lastFailureInfo: { message: "no such file" } } }))).toBe("failed");
});
