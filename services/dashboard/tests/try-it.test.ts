import { expect, test } from "vitest";
import { example, requestOf, rowsOf } from "../src/parts/try-it";

test("rows become one tensor", () => {
  expect(requestOf("1, 2\n3 4")).toEqual({ inputs: [{ name: "input-0", shape: [2, 2], datatype: "FP32", data: [1, 2, 3, 4] }] });
});

test("mistakes name the row", () => {
  expect(() => requestOf("1, x")).toThrow('row 1: "x" is no number');
  expect(() => requestOf("1, 2\n3")).toThrow("row 2: has 1 numbers, row 1 has 2");
  expect(() => requestOf(" ")).toThrow("there is none");
});

test("the example has the model's width", () => {
  expect(example({ name: "m", inputs: [{ name: "i", datatype: "FP32", shape: [-1, 3] }] })).toBe("0, 0, 0");
});

test("the request has the name and the type of the model's input", () => {
  const metadata = { name: "m", inputs: [{ name: "X", datatype: "FP64", shape: [-1, 1] }] };
  expect(requestOf("7", metadata).inputs[0]).toEqual({ name: "X", shape: [1, 1], datatype: "FP64", data: [7] });
});

test("an answer is cut into rows by its first dimension", () => {
  expect(rowsOf({ name: "o", shape: [2, 2], data: [1, 2, 3, 4] })).toEqual([[1, 2], [3, 4]]);
  expect(rowsOf({ name: "o", shape: [3], data: [1, 2, 3] })).toEqual([[1], [2], [3]]);
  expect(rowsOf({ name: "o", shape: [0, 3], data: [] })).toEqual([]);
});
