import { type ReactNode, useEffect, useState } from "react";
import { NavLink } from "react-router";
import { useNamespaces, useSession } from "../api/queries";
import { useNamespace } from "./namespace";

const PAGES = [
  { to: "/", name: "Home", icon: "M3 11 12 4l9 7v9h-6v-6H9v6H3z" },
  { to: "/runs", name: "Runs", icon: "M5 4h5v5H5zM14 15h5v5h-5zM7.5 9v4a4 4 0 0 0 4 4H14" },
  { to: "/experiments", name: "Tuning", icon: "M4 20V10M10 20V4M16 20v-7M21 20H3" },
  { to: "/models", name: "Models", icon: "M12 3 4 7.5v9L12 21l8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9" },
  { to: "/notebooks", name: "Notebooks", icon: "M6 3h12v18H6zM6 7H3m3 5H3m3 5H3M10 8h5" },
];

type Theme = "light" | "dark";

function useTheme(): [Theme, () => void] {
  const preferred = () =>
    (localStorage.getItem("theme") as Theme | null) ??
    (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const [theme, setTheme] = useState<Theme>(preferred);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    setTheme(next);
  };
  return [theme, toggle];
}

/** Navigation around a page: a side bar on wide screens, a bar at the bottom on narrow ones. */
export function Layout({ children }: { children: ReactNode }) {
  const [theme, toggle] = useTheme();
  const session = useSession();
  const namespaces = useNamespaces();
  const [namespace, setNamespace] = useNamespace();
  const names = [...new Set([...(namespaces.data ?? []), namespace])].sort();
  return (
    <div className="frame">
      <aside className="side">
        <NavLink to="/" className="brand">
          <img src="/icon.svg" alt="" width={28} height={28} />
          <span>Ferroflow</span>
        </NavLink>
        <nav aria-label="Pages">
          {PAGES.map((page) => (
            <NavLink key={page.to} to={page.to} end={page.to === "/"} className="link">
              <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
                <path d={page.icon} />
              </svg>
              <span>{page.name}</span>
            </NavLink>
          ))}
        </nav>
        <footer className="who">
          <span title="You">{session.data?.user ?? "…"}</span>
          <span className="faint">v{session.data?.version ?? "…"}</span>
        </footer>
      </aside>
      <div className="content">
        <header className="top">
          <label className="pick">
            <span>Namespace</span>
            <select value={namespace} onChange={(event) => setNamespace(event.target.value)}>
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <button type="button" className="quiet" onClick={toggle} aria-label={`Use the ${theme === "dark" ? "light" : "dark"} theme`}>
            {theme === "dark" ? "☀" : "☾"}
          </button>
        </header>
        <main>{children}</main>
      </div>
    </div>
  );
}
