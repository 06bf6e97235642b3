// xterm under a strict content policy: its style sheets carry the page's nonce, its style attributes are set as properties.
// No OSC 52: what a program prints never reaches the clipboard.
import { FitAddon } from "@xterm/addon-fit";
import { effect } from "@preact/signals";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { isDark, repainted } from "../state/theme";

const OSC_CLIPBOARD = 52;
const SCROLLBACK = 5_000;

const nonce = document.querySelector<HTMLMetaElement>("meta[name=style-nonce]")?.content ?? "";
const create = document.createElement.bind(document);
document.createElement = ((tag: string, options?: ElementCreationOptions) => {
  const element = create(tag, options);
  if (element instanceof HTMLStyleElement) element.nonce = nonce;
  return element;
}) as typeof document.createElement;
HTMLSpanElement.prototype.setAttribute = function (name: string, value: string) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

const DARK = { background: "#171c22", foreground: "#dde3ea", cursor: "#8fb0ff", selectionBackground: "#2d4a86" };
const LIGHT = {
  background: "#ffffff",
  foreground: "#1c2430",
  cursor: "#2f5fd0",
  selectionBackground: "#c5d5fb",
  black: "#1c2430",
  white: "#5b6675",
  brightWhite: "#1c2430",
  yellow: "#8a6100",
  brightYellow: "#8a6100",
  green: "#1a7f37",
  brightGreen: "#1a7f37",
  cyan: "#0b7285",
  brightCyan: "#0b7285",
};

const colours = () => (isDark() ? DARK : LIGHT);

export type Screen = { terminal: Terminal; fit: FitAddon; dispose: () => void };

export function makeScreen(element: HTMLElement, readOnly: boolean): Screen {
  const terminal = new Terminal({
    fontFamily: "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', 'Liberation Mono', monospace",
    fontSize: 13,
    scrollback: SCROLLBACK,
    cursorBlink: !readOnly,
    disableStdin: readOnly,
    theme: colours(),
    screenReaderMode: false,
    // Links of a program's making are not followed.
    linkHandler: { activate: () => undefined },
    minimumContrastRatio: 4.5,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.parser.registerOscHandler(OSC_CLIPBOARD, () => true);
  terminal.open(element);
  const painting = effect(() => {
    if (repainted.value > 0) terminal.options.theme = colours();
  });
  const dispose = () => {
    painting();
    terminal.dispose();
  };
  return { terminal, fit, dispose };
}
