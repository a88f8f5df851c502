import type { ModelMetadata } from "../api/types";

/** One tensor of a V2 answer. */
export interface Answer {
  name: string;
  shape: number[];
  data: (number | string | boolean)[];
}

/** A first row for the form: zeros of the model's width. */
export function example(metadata: ModelMetadata | undefined): string {
  const shape = metadata?.inputs?.[0]?.shape ?? [];
  const width = shape[shape.length - 1] ?? 4;
  return Array.from({ length: width > 0 ? width : 4 }, () => "0").join(", ");
}

/** Reads rows of numbers and makes a V2 request of them, with the name and the type of the model's first input. Throws with the line that is wrong. */
export function requestOf(text: string, metadata?: ModelMetadata) {
  const lines = text.split("\n").map((line) => line.trim().replace(/^\[|\],?$/g, "")).filter((line) => line !== "");
  if (lines.length === 0) throw new Error("rows: there is none; write numbers with commas between them");
  const rows = lines.map((line, i) =>
    line.split(/[\s,]+/).filter((word) => word !== "").map((word) => {
      const value = Number(word);
      if (Number.isNaN(value)) throw new Error(`row ${i + 1}: ${JSON.stringify(word)} is no number`);
      return value;
    }),
  );
  const width = rows[0]?.length ?? 0;
  const odd = rows.findIndex((row) => row.length !== width);
  if (odd >= 0) throw new Error(`row ${odd + 1}: has ${rows[odd]?.length} numbers, row 1 has ${width}; all rows must be of one width`);
  const input = metadata?.inputs?.[0];
  return { inputs: [{ name: input?.name ?? "input-0", shape: [rows.length, width], datatype: input?.datatype ?? "FP32", data: rows.flat() }] };
}

/** A tensor as rows: one for each entry of its first dimension. */
export function rowsOf({ shape, data }: Answer): Answer["data"][] {
  const count = shape[0] ?? 1;
  const width = count > 0 ? data.length / count : 0;
  return Array.from({ length: count }, (_, i) => data.slice(i * width, (i + 1) * width));
}
