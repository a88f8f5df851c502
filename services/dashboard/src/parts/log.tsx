import { useEffect, useRef } from "react";

/** Text of a program, scrolled to its end while it grows. */
export function Log({ text }: { text: string }) {
  const end = useRef<HTMLPreElement>(null);
  useEffect(() => {
    if (end.current) end.current.scrollTop = end.current.scrollHeight;
  }, [text]);
  return (
    <pre className="log" ref={end} data-testid="log">
      {text || "(nothing printed yet)"}
    </pre>
  );
}
