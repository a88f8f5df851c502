import { useEffect, useRef } from "react";
import { LOG_LINES } from "../api/queries";

/** More characters than these make a page slow. */
const MOST = 400_000;

/** Text of a program. It stays at its end while it grows, unless the reader has scrolled up. */
export function Log({ text, all }: { text: string; all: string }) {
  const place = useRef<HTMLPreElement>(null);
  const stays = useRef(true);
  const shown = text.length > MOST ? text.slice(-MOST) : text;
  useEffect(() => {
    if (place.current && stays.current) place.current.scrollTop = place.current.scrollHeight;
  }, [shown]);
  const isCut = shown.length < text.length || text.split("\n").length > LOG_LINES;
  return (
    <>
      <pre
        className="log"
        ref={place}
        data-testid="log"
        tabIndex={0}
        aria-label="Log"
        onScroll={({ currentTarget: box }) => {
          stays.current = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
        }}
      >
        {shown || <span className="faint">Nothing printed yet</span>}
      </pre>
      <p className="below faint">
        {isCut && "Only the last lines are shown. "}
        <a href={all} target="_blank" rel="noreferrer">
          Open the whole log
        </a>
      </p>
    </>
  );
}
