/** A number for a table: at most five significant digits. Text that is no number stays as it is. */
export function short(value: number | string | undefined): string {
  if (value === undefined || value === "") return "";
  const number = Number(value);
  if (Number.isNaN(number)) return String(value);
  if (Number.isInteger(number) && Math.abs(number) < 1e9) return String(number);
  return String(Number(number.toPrecision(5)));
}

/** Bytes in their largest unit. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, count < 1 ? 0 : Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** power;
  return `${power === 0 ? value : Number(value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0))} ${units[power]}`;
}
