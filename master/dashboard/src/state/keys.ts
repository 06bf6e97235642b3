// The keyboard: `g` and a letter to go somewhere, `/` to search, `?` for help. Keys typed into fields and terminals are theirs.
import { signal } from "@preact/signals";

export const helpShown = signal(false);

const GO: Record<string, string> = {
  f: "/fleet",
  t: "/tunnels",
  s: "/sessions",
  a: "/audit",
  e: "/enrol",
  p: "/people",
  c: "/settings",
};
/// A `g` is forgotten after this.
const PREFIX_MS = 1_000;

let prefixAt = 0;

const isField = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.matches("input, textarea, select, [contenteditable]") || target.closest(".xterm") !== null);

/// Begins to listen; once, at the start.
export function followKeys(go: (path: string) => void): () => void {
  const pressed = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (helpShown.value) helpShown.value = false;
      else if (isField(event.target) && !(event.target as HTMLElement).closest(".xterm")) (event.target as HTMLElement).blur();
      return;
    }
    if (isField(event.target) || document.querySelector("dialog[open]:not(.help)")) return;
    const after = performance.now() - prefixAt < PREFIX_MS;
    prefixAt = 0;
    if (after && GO[event.key]) go(GO[event.key] ?? "/fleet");
    else if (event.key === "g") prefixAt = performance.now();
    else if (event.key === "?") helpShown.value = !helpShown.value;
    else if (event.key === "/") focusSearch();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", pressed);
  return () => removeEventListener("keydown", pressed);
}

function focusSearch(): void {
  document.querySelector<HTMLInputElement>("input[type=search]")?.focus();
}
