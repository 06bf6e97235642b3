// Which agents a page of the fleet shows. Pure.
import type { Row } from "../../state/fleet";

export type ChipName = "all" | "online" | "offline" | "suspended" | "unknown";
export type Wanted = { text: string; chip: ChipName; label: string };

export const CHIPS: { name: ChipName; title: string; has: (row: Row) => boolean }[] = [
  { name: "all", title: "All", has: () => true },
  { name: "online", title: "Online", has: (row) => row.presence !== "offline" },
  { name: "offline", title: "Offline", has: (row) => row.presence === "offline" && row.status === "active" },
  { name: "suspended", title: "Suspended", has: (row) => row.status === "suspended" },
  { name: "unknown", title: "Not yet seen", has: (row) => row.status === "unknown" },
];

/// Every word must be somewhere in the agent's name, host, version, carrier or labels.
export function matches(row: Row, wanted: Wanted): boolean {
  if (!CHIPS.find((chip) => chip.name === wanted.chip)?.has(row)) return false;
  if (wanted.label && !row.words.includes(wanted.label.toLowerCase())) return false;
  const text = wanted.text.trim().toLowerCase();
  return text === "" || text.split(/\s+/).every((word) => row.words.includes(word));
}
