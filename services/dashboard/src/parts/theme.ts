import { useSyncExternalStore } from "react";

export type Theme = "light" | "dark";

const listeners = new Set<() => void>();
const system = window.matchMedia("(prefers-color-scheme: dark)");

function current(): Theme {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") return kept;
  return system.matches ? "dark" : "light";
}

/** Puts the theme on the page; before anything is drawn, so that nothing flashes. */
export function applyTheme() {
  document.documentElement.dataset["theme"] = current();
  for (const changed of listeners) changed();
}

function subscribe(changed: () => void) {
  listeners.add(changed);
  return () => listeners.delete(changed);
}

system.addEventListener("change", applyTheme);

/** The theme, and what sets it: the system's unless it was chosen here. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const set = (theme: Theme) => {
    localStorage.setItem("theme", theme);
    applyTheme();
  };
  return [useSyncExternalStore(subscribe, current), set];
}
