import { useSyncExternalStore } from "react";

const KEY = "namespace";
const listeners = new Set<() => void>();

/** The namespace that all pages show; kept between visits. */
export function useNamespace(): [string, (name: string) => void] {
  const subscribe = (changed: () => void) => {
    listeners.add(changed);
    return () => listeners.delete(changed);
  };
  const value = useSyncExternalStore(subscribe, () => localStorage.getItem(KEY) ?? "default");
  const set = (name: string) => {
    localStorage.setItem(KEY, name);
    for (const changed of listeners) changed();
  };
  return [value, set];
}
