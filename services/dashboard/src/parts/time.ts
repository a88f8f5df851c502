/** How long ago, in the largest unit: `12 s`, `5 min`, `3 h`, `2 d`. */
export function ago(time: string | undefined, now = Date.now()): string {
  if (!time) return "";
  return span(now - Date.parse(time));
}

/** A duration in milliseconds in its largest unit. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** From start to end, or to now where there is no end yet. KFP writes the epoch for "not ended". */
export function took(start: string | undefined, end: string | undefined, now = Date.now()): string {
  if (!start) return "";
  const stop = end && !end.startsWith("1970") ? Date.parse(end) : now;
  return span(stop - Date.parse(start));
}
