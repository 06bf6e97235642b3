// Light, dark, or as the system has it. `public/theme.js` applies the choice before the first paint.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const stored = (): Theme => {
  const found = document.documentElement.dataset.theme;
  return found === "light" || found === "dark" ? found : "system";
};

export const theme = signal<Theme>(stored());
/// Grows when colours changed, for what is drawn and not styled: charts, terminals.
export const repainted = signal(0);

export function choose(chosen: Theme): void {
  theme.value = chosen;
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try {
    if (chosen === "system") localStorage.removeItem("theme");
    else localStorage.setItem("theme", chosen);
  } catch {
    // Storage is closed to this page: the choice lasts until it is left.
  }
  repainted.value += 1;
}

export const isDark = (): boolean =>
  theme.value === "dark" || (theme.value === "system" && matchMedia("(prefers-color-scheme: dark)").matches);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (repainted.value += 1));

/// A colour of the style sheet.
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
