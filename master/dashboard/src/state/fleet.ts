// Every agent, as the live socket tells of them. Owns the table in memory; changes reach the page at most five times a
// second, however many there are.
import { signal } from "@preact/signals";
import type { Schemas } from "../api/client";
import { listen } from "./live";

export type Row = Schemas["FleetRow"] & { words: string };

const PAINT_EVERY_MS = 200;

/// Labels offered as filters.
const LABELS_MOST = 500;

let rows = new Map<string, Row>();
/// The ids in order; undefined when some came or went.
let order: string[] | undefined;
let labelsStale = false;
/// The rows of a connection that has not told everything yet, while older ones are shown.
let filling: Map<string, Row> | undefined;
let due: ReturnType<typeof setTimeout> | undefined;

/// All agents, ordered by id. A new array whenever something changed.
export const fleet = signal<Row[]>([]);
/// Every label that some agent has, as `name=value`, ordered.
export const labels = signal<string[]>([]);
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
    // Heartbeats change figures only, and come by the hundred: sorting is for those that came or went.
    order ??= [...rows.keys()].sort();
    const next: Row[] = [];
    for (const id of order) {
      const row = rows.get(id);
      if (row) next.push(row);
    }
    fleet.value = next;
    if (labelsStale) collectLabels(next);
  }, fleet.value.length === 0 ? 0 : PAINT_EVERY_MS);
}

function collectLabels(all: Row[]): void {
  labelsStale = false;
  const found = new Set<string>();
  for (const row of all) for (const name in row.labels) found.add(`${name}=${row.labels[name]}`);
  const next = [...found].sort().slice(0, LABELS_MOST);
  if (next.join() !== labels.value.join()) labels.value = next;
}

/// Begins to listen; once, at the start.
export function followFleet(): void {
  listen((message) => {
    if (message.type === "rows") {
      const target = filling ?? rows;
      for (const row of message.rows) {
        if (!target.has(row.id)) order = undefined;
        target.set(row.id, { ...row, words: words(row) });
      }
      labelsStale = true;
    } else if (message.type === "pulse") {
      for (const { id, ...pulse } of message.pulses) {
        const row = rows.get(id);
        if (row) rows.set(id, { ...row, ...pulse });
      }
    } else if (message.type === "gone") {
      for (const id of message.ids) rows.delete(id);
      order = undefined;
      labelsStale = true;
    } else if (message.type === "ready") {
      if (filling) rows = filling;
      filling = undefined;
      order = undefined;
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
  order = undefined;
  complete.value = false;
  fleet.value = [];
  labels.value = [];
}
