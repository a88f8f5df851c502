import { type ReactNode, useEffect } from "react";
import { Link, NavLink, useLocation } from "react-router";
import { useNamespaces, useSession } from "../api/queries";
import { useNamespace } from "./namespace";
import { Problem } from "./states";
import { useTheme } from "./theme";

const PAGES = [
  { to: "/", name: "Home", icon: "M3 11 12 4l9 7v9h-6v-6H9v6H3z" },
  { to: "/runs", name: "Runs", icon: "M5 4h5v5H5zM14 15h5v5h-5zM7.5 9v4a4 4 0 0 0 4 4H14" },
  { to: "/experiments", name: "Tuning", icon: "M4 20V10M10 20V4M16 20v-7M21 20H3" },
  { to: "/models", name: "Models", icon: "M12 3 4 7.5v9L12 21l8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9" },
  { to: "/notebooks", name: "Notebooks", icon: "M6 3h12v18H6zM6 7H3m3 5H3m3 5H3M10 8h5" },
];

const MOON = "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z";
const SUN = "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.4 1.4m11.2 11.2L19 19M5 19l1.4-1.4M17.6 6.4 19 5";

/** Navigation around a page: a side bar on wide screens, a bar at the bottom on narrow ones. */
export function Layout({ children }: { children: ReactNode }) {
  const [theme, setTheme] = useTheme();
  const session = useSession();
  const namespaces = useNamespaces();
  const [namespace, setNamespace] = useNamespace();
  const { pathname } = useLocation();
  const names = [...new Set([...(namespaces.data ?? []), namespace])].sort();
  const other = theme === "dark" ? "light" : "dark";
  useEffect(() => {
    const page = PAGES.find((one) => one.to !== "/" && pathname.startsWith(one.to));
    document.title = page ? `${page.name} · Ferroflow` : "Ferroflow";
    window.scrollTo(0, 0);
  }, [pathname]);
  const brand = (
    <>
      <img src="/icon.svg" alt="" width={28} height={28} />
      <span>Ferroflow</span>
    </>
  );
  return (
    <div className="frame">
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <aside className="side">
        <Link to="/" className="brand">
          {brand}
        </Link>
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
          <Link to="/" className="brand">
            {brand}
          </Link>
          <label className="pick right">
            <span>Namespace</span>
            <select value={namespace} onChange={(event) => setNamespace(event.target.value)}>
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <button type="button" className="icon large" onClick={() => setTheme(other)} aria-label={`Use the ${other} theme`}>
            <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
              <path d={theme === "dark" ? SUN : MOON} />
            </svg>
          </button>
        </header>
        <main id="main" tabIndex={-1}>
          {session.error && <Problem error={session.error} />}
          {children}
        </main>
      </div>
    </div>
  );
}
