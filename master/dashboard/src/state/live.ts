// The one WebSocket that tells of the fleet: every agent, each change, and events. Owns the connection and the banner's
// state; `fleet` owns what is done with the rows.
import { signal } from "@preact/signals";
import type { Schemas } from "../api/client";
import { signIn, whoAmI } from "./session";

/// What is heard: the master's messages, and `opened` when a new connection begins to tell everything.
type Message = Schemas["LiveMessage"] | { type: "opened" };
export type Event = Schemas["Event"];

/// Longer silence than this, in which the master would have said something, is a lost connection.
const SILENT_MS = 15_000;
const RETRY_FIRST_MS = 400;
const RETRY_MOST_MS = 5_000;
/// A connection that comes back within this time is nobody's concern.
const AWAY_AFTER_MS = 1_200;

/// The master does not answer.
export const away = signal(false);
/// Grows each time the connection came back: whoever shows something reads it again.
export const revived = signal(0);

type Listener = (message: Message) => void;
const listeners = new Set<Listener>();
let socket: WebSocket | undefined;
let retry = RETRY_FIRST_MS;
let wasOpen = false;
let lostSince: number | undefined;

/// Every message from now on; call the answer to stop.
export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/// Events only.
export function onEvents(heard: (events: Event[]) => void): () => void {
  return listen((message) => {
    if (message.type === "events") heard(message.events);
  });
}

export const address = (path: string): string => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1${path}`;

/// Connects, and keeps connecting until the page is left or nobody is signed in.
export function connect(): void {
  if (socket || signIn.value !== "in") return;
  const opened = new WebSocket(address("/live"));
  socket = opened;
  let silence = setTimeout(() => opened.close(), SILENT_MS);
  opened.onmessage = ({ data }) => {
    clearTimeout(silence);
    silence = setTimeout(() => opened.close(), SILENT_MS);
    hear(JSON.parse(String(data)) as Message);
  };
  opened.onopen = () => {
    retry = RETRY_FIRST_MS;
    lostSince = undefined;
    away.value = false;
    if (wasOpen) revived.value += 1;
    wasOpen = true;
    hear({ type: "opened" });
  };
  opened.onclose = () => {
    clearTimeout(silence);
    socket = undefined;
    void again();
  };
}

function hear(message: Message): void {
  for (const listener of [...listeners]) listener(message);
}

async function again(): Promise<void> {
  lostSince ??= Date.now();
  const answered = await whoAmI().catch(() => true);
  if (!answered && Date.now() - lostSince >= AWAY_AFTER_MS) away.value = true;
  if (signIn.value === "out") {
    away.value = false;
    lostSince = undefined;
    return;
  }
  // Spread, so that a hundred open dashboards do not come back in the same instant.
  setTimeout(connect, retry * (0.5 + Math.random()));
  retry = Math.min(retry * 2, RETRY_MOST_MS);
}

/// Leaves; `connect` begins anew.
export function disconnect(): void {
  if (socket) socket.onclose = null;
  socket?.close();
  socket = undefined;
  wasOpen = false;
}
