// Every agent, as the live socket tells of them. Owns the table in memory; changes reach the page at most five times a
// second, however many there are.
import { signal } from "@preact/signals";
import type { Schemas } from "../api/client";
import { listen } from "./live";

export type Row = Schemas["FleetRow"] & { words: string };

const PAINT_EVERY_MS = 200;

let rows = new Map<string, Row>();
/// The rows of a connection that has not told everything yet, while older ones are shown.
let filling: Map<string, Row> | undefined;
let due: ReturnType<typeof setTimeout> | undefined;

/// All agents, ordered by id. A new array whenever something changed.
export const fleet = signal<Row[]>([]);
/// Everything has been told at least once.
export const complete = signal(false);

export const agent = (id: string): Row | undefined => rows.get(id);

function words(row: Schemas["FleetRow"]): string {
  const labels = Object.entries(row.labels).map(([name, value]) => `${name}=${value}`);
  return [row.id, row.hostname, row.os, row.agent_version, row.carrier, ...labels].join(" ").toLowerCase();
}

function paint(): void {
  due ??= setTimeout(() => {
    due = undefined;
    fleet.value = [...rows.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  }, fleet.value.length === 0 ? 0 : PAINT_EVERY_MS);
}

/// Begins to listen; once, at the start.
export function followFleet(): void {
  listen((message) => {
    if (message.type === "rows") {
      const target = filling ?? rows;
      for (const row of message.rows) target.set(row.id, { ...row, words: words(row) });
    } else if (message.type === "pulse") {
      for (const { id, ...pulse } of message.pulses) {
        const row = rows.get(id);
        if (row) rows.set(id, { ...row, ...pulse });
      }
    } else if (message.type === "gone") {
      for (const id of message.ids) rows.delete(id);
    } else if (message.type === "ready") {
      if (filling) rows = filling;
      filling = undefined;
      complete.value = true;
    } else if (message.type === "opened") {
      // A new connection tells everything again: what is shown stays until it has.
      if (complete.value) filling = new Map();
      return;
    } else {
      return;
    }
    paint();
  });
}

/// Nobody is signed in any more.
export function forgetFleet(): void {
  rows = new Map();
  filling = undefined;
  complete.value = false;
  fleet.value = [];
}
