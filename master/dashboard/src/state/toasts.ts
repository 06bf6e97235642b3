// Short messages in the corner. Owns how long they stay: errors until they are closed, the rest for a few seconds.
import { signal } from "@preact/signals";
import { ApiError } from "../api/client";

export type Toast = { id: number; kind: "error" | "info"; title: string; detail: string };

const STAYS_MS = 5_000;
const MOST = 4;

export const toasts = signal<Toast[]>([]);
let next = 1;

function push(toast: Omit<Toast, "id">): void {
  const id = next++;
  const others = toasts.value.filter((other) => other.title !== toast.title || other.detail !== toast.detail);
  toasts.value = [...others, { ...toast, id }].slice(-MOST);
  if (toast.kind === "info") setTimeout(() => dismiss(id), STAYS_MS);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function inform(title: string, detail = ""): void {
  push({ kind: "info", title, detail });
}

/// An error, in the words of whoever told it. One that the banner or the login page shows already says nothing here.
export function fail(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  if (error instanceof ApiError) {
    if (error.code === "away" || error.code === "unauthorized" || error.code === "step_up_required") return;
    push({ kind: "error", title: error.title, detail: error.detail });
    return;
  }
  push({ kind: "error", title: "Something failed here", detail: error instanceof Error ? error.message : String(error) });
}
