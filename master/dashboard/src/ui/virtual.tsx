// A long list of which only the rows in sight exist. Rows have one height; j, k, Enter, Home and End move through them.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/// Rows beyond the edges, so that a quick scroll shows no gap.
const BEYOND = 8;

type Props<T> = {
  items: T[];
  height: number;
  label: string;
  head?: ComponentChildren;
  name: (item: T) => string;
  render: (item: T) => ComponentChildren;
  open: (item: T) => void;
};

export function Virtual<T>({ items, height, label, head, name, render, open }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [seen, setSeen] = useState(40);
  const [at, setAt] = useState(-1);
  // Keys come faster than effects run: what they act on is always the latest.
  const latest = useRef({ at, items, open });
  latest.current = { at: latest.current.at, items, open };
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = new ResizeObserver(() => setSeen(Math.ceil(element.clientHeight / height) + 1));
    measure.observe(element);
    return () => measure.disconnect();
  }, [height]);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog, .xterm")) return;
      const { at, items, open } = latest.current;
      const step = event.key === "j" ? 1 : event.key === "k" ? -1 : 0;
      if (step !== 0) move(Math.min(Math.max(at + step, 0), items.length - 1));
      else if (event.key === "Enter" && at >= 0 && items[at] && !target.closest("a, button")) open(items[at]);
      else return;
      event.preventDefault();
    };
    const move = (next: number) => {
      latest.current.at = next;
      setAt(next);
      const element = box.current;
      if (!element || next < 0) return;
      const y = next * height;
      const room = element.clientHeight - 2 * height;
      if (y < element.scrollTop) element.scrollTop = y;
      else if (y > element.scrollTop + room) element.scrollTop = y - room;
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [height]);
  const first = Math.max(0, Math.floor(top / height) - BEYOND);
  const shown = items.slice(first, first + seen + 2 * BEYOND);
  return (
    <div class="virtual" ref={box} role="table" aria-label={label} aria-rowcount={items.length} tabIndex={0} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
      {head}
      <div role="rowgroup" style={{ height: `${items.length * height}px`, position: "relative" }}>
        {shown.map((item, index) => (
          <div
            key={name(item)}
            role="row"
            aria-rowindex={first + index + 1}
            class={first + index === at ? "row at" : "row"}
            style={{ top: `${(first + index) * height}px`, height: `${height}px` }}
            onClick={(event) => {
              if (!(event.target as HTMLElement).closest("a, button, input, label")) open(item);
            }}
          >
            {render(item)}
          </div>
        ))}
      </div>
    </div>
  );
}
