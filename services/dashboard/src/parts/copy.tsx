import { useEffect, useState } from "react";

/** A button that puts text on the clipboard. */
export function Copy({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button
      type="button"
      className="icon"
      aria-label={`Copy ${what}`}
      title={`Copy ${what}`}
      onClick={() => void navigator.clipboard?.writeText(text).then(() => setDone(true))}
    >
      <svg viewBox="0 0 24 24" width="15" height="15" aria-hidden="true">
        <path d={done ? "M5 13l4 4L19 7" : "M9 9h11v11H9zM5 15H4V4h11v1"} />
      </svg>
      <span className="hidden" aria-live="polite">{done ? "copied" : ""}</span>
    </button>
  );
}

/** A command or an address to use elsewhere. */
export function Snippet({ text, what }: { text: string; what: string }) {
  return (
    <div className="snippet">
      <pre className="hint">{text}</pre>
      <Copy text={text} what={what} />
    </div>
  );
}
