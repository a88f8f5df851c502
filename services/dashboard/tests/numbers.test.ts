import { expect, test } from "vitest";
import { bytes, short } from "../src/parts/numbers";

test("numbers are short, text stays", () => {
  expect(short("0.17768557833225002")).toBe("0.17769");
  expect(short(1797)).toBe("1797");
  expect(short("gbtree")).toBe("gbtree");
  expect(short(undefined)).toBe("");
  expect(short(0.0000123456)).toBe("0.000012346");
});

test("bytes are in their largest unit", () => {
  expect(bytes(0)).toBe("0 B");
  expect(bytes(1023)).toBe("1023 B");
  expect(bytes(7874)).toBe("7.69 KiB");
  expect(bytes(3 * 1024 ** 3)).toBe("3 GiB");
});
