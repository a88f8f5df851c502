import { useEffect, useState } from "react";

/** How long ago, in the largest unit: `12 s`, `5 min`, `3 h`, `2 d`. */
export function ago(time: string | undefined, now = Date.now()): string {
  if (!time) return "";
  const passed = Math.max(0, now - Date.parse(time));
  return passed < 5000 ? "just now" : `${span(Math.round(passed / 1000) * 1000)} ago`;
}

/** A duration in milliseconds in its largest unit. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10 && milliseconds % 1000 !== 0) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** From start to end, or to now where there is no end yet. KFP writes the epoch for "not ended". */
export function took(start: string | null | undefined, end: string | null | undefined, now = Date.now()): string {
  if (!start) return "";
  const stop = end && !end.startsWith("1970") ? Date.parse(end) : now;
  return span(stop - Date.parse(start));
}

/** The time, read again each second while something goes on, so that durations grow on the page. */
export function useNow(live = true): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!live) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [live]);
  return now;
}
