// Toasts, the banner of an absent master, the help: what lies above every page.
import { away } from "../state/live";
import { helpShown } from "../state/keys";
import { dismiss, toasts } from "../state/toasts";
import { Dialog } from "./dialog";

export const Banner = () => (
  <div class="banner" role="status" hidden={!away.value}>
    {away.value && "The master does not answer. This page goes on by itself when it is back."}
  </div>
);

export const Toasts = () => (
  <div class="toasts" aria-live="polite">
    {toasts.value.map((toast) => (
      <div key={toast.id} class={`toast ${toast.kind}`} role={toast.kind === "error" ? "alert" : undefined}>
        <div>
          <strong>{toast.title}</strong>
          {toast.detail && <p>{toast.detail}</p>}
        </div>
        <button type="button" aria-label="Close" onClick={() => dismiss(toast.id)}>
          ×
        </button>
      </div>
    ))}
  </div>
);

const KEYS: [string, string][] = [
  ["/", "search"],
  ["j  k", "next, previous row"],
  ["Enter", "open the row"],
  ["Esc", "close, leave a field"],
  ["g f", "fleet"],
  ["g t", "tunnels"],
  ["g s", "sessions"],
  ["g a", "audit"],
  ["g e", "enrol"],
  ["g p", "people"],
  ["g c", "settings"],
  ["?", "this help"],
];

export function Help() {
  if (!helpShown.value) return null;
  return (
    <Dialog title="Keyboard" class="help" onClose={() => (helpShown.value = false)}>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
