// Windows of machines' own pages that this tab opened. While one is open the master is told so; when the last one of a
// tunnel was closed, it is told that too, and ends the tunnel.
import { signal } from "@preact/signals";
import { ApiError, json } from "../api/client";
import { address } from "../state/live";
import { signIn } from "../state/session";
import { fail, inform } from "../state/toasts";
import { openTunnel, type Tunnel } from "./calls";

const LOOK_MS = 500;
const SAY_MS = 4_000;

/// The ids of the tunnels whose window is open.
export const openWindows = signal<ReadonlySet<string>>(new Set());

// Several may show one tunnel: opening the same page again gives the same one.
const windows = new Map<string, Set<Window>>();
let socket: WebSocket | undefined;
let triedAt = 0;
let looking: ReturnType<typeof setInterval> | undefined;
let saidAt = 0;

/// Opens the page behind `target` in a window of its own: waits for the tunnel, takes a ticket, goes there.
export async function openWebUi(agent: string, host: string, port: number, scheme: "http" | "https"): Promise<void> {
  // Now, while the click counts: a window opened after waiting is a blocked popup.
  const page = blank(`Opening ${host}:${port} on ${agent}…`);
  if (!page) return;
  try {
    const tunnel = await openTunnel({ agent_id: agent, target: { host, port, scheme } });
    await enter(tunnel, page);
  } catch (error) {
    page.close();
    fail(error);
  }
}

/// The same for a tunnel that is open already.
export async function openTunnelUi(tunnel: Tunnel): Promise<void> {
  const page = blank(`Opening ${tunnel.target.host}:${tunnel.target.port} on ${tunnel.agent_id}…`);
  if (!page) return;
  await enter(tunnel, page).catch((error: unknown) => {
    page.close();
    fail(error);
  });
}

function blank(text: string): Window | undefined {
  const page = window.open("about:blank", "_blank");
  if (!page) {
    inform("The browser blocked the window", "Allow pop-ups for this address and try again.");
    return undefined;
  }
  page.document.title = text;
  page.document.body.textContent = text;
  // What opens there must not reach back.
  page.opener = null;
  return page;
}

async function enter(tunnel: Tunnel, page: Window): Promise<void> {
  if (tunnel.status !== "active") {
    throw new ApiError(0, "tunnel_closed", "The tunnel did not come up", tunnel.closed_reason ?? "The target did not answer in time.");
  }
  const { url } = await json<{ url: string }>("POST", `/tunnels/${tunnel.id}/ticket`, {});
  watch(tunnel.id, page);
  page.location.replace(url);
}

function watch(id: string, page: Window): void {
  windows.set(id, (windows.get(id) ?? new Set()).add(page));
  say();
  looking ??= setInterval(() => look(), LOOK_MS);
}

function look(asked = false): void {
  let changed = false;
  for (const [id, pages] of windows) {
    for (const page of pages) if (page.closed) pages.delete(page);
    if (pages.size === 0) {
      windows.delete(id);
      changed = true;
    }
  }
  if (asked || changed || performance.now() - saidAt >= SAY_MS) say();
  if (windows.size === 0 && socket?.readyState === WebSocket.OPEN) {
    clearInterval(looking);
    looking = undefined;
  }
}

/// Tells the master which windows are open; connects first where there is no connection.
function say(): void {
  openWindows.value = new Set(windows.keys());
  if (socket?.readyState === WebSocket.OPEN) {
    saidAt = performance.now();
    socket.send(JSON.stringify({ open: [...windows.keys()] }));
    return;
  }
  if (socket?.readyState === WebSocket.CONNECTING || signIn.value !== "in") return;
  socket = new WebSocket(address("/presence"));
  triedAt = performance.now();
  socket.onopen = say;
  // At once, since the clock of a page in the background may tick once a minute; but not again and again.
  socket.onclose = () => {
    if (windows.size > 0 && performance.now() - triedAt > SAY_MS) say();
  };
  // Tunnels that are over need no watching; what their window shows, the master explains there.
  socket.onmessage = ({ data }) => {
    const { over, ask } = JSON.parse(String(data)) as { over: string[]; ask?: boolean };
    for (const id of over) windows.delete(id);
    if (over.length > 0) openWindows.value = new Set(windows.keys());
    // The master's question comes in time even where our own clock does not.
    if (ask && windows.size > 0) look(true);
  };
}
