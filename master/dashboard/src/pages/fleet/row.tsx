// One agent in the table of the fleet. On phones a row is two lines.
import { useEffect, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import type { Row } from "../../state/fleet";
import { load, percent, rtt, words } from "../../ui/format";
import { Ago, Chip } from "../../ui/kit";

const PHONE = matchMedia("(max-width: 720px)");

export function useRowHeight(): number {
  const [phone, setPhone] = useState(PHONE.matches);
  useEffect(() => {
    const changed = () => setPhone(PHONE.matches);
    PHONE.addEventListener("change", changed);
    return () => PHONE.removeEventListener("change", changed);
  }, []);
  return phone ? 60 : 36;
}

/// Presence, with why it left where it did.
export function Status({ row }: { row: Pick<Row, "status" | "presence" | "suspect" | "disconnect_reason"> }) {
  if (row.status === "suspended") return <Chip tone="bad">Suspended</Chip>;
  if (row.suspect) return <Chip tone="warn" title="Nothing was heard for a while">Silent</Chip>;
  if (row.presence === "online") return <Chip tone="good">Online</Chip>;
  if (row.presence === "reachable") return <Chip tone="good" title="Holds no standing line and looks in now and then">On demand</Chip>;
  if (row.status === "unknown") return <Chip tone="idle">Not yet seen</Chip>;
  return (
    <Chip tone="idle" title={row.disconnect_reason ?? ""}>
      Offline{row.disconnect_reason ? `, ${words(row.disconnect_reason)}` : ""}
    </Chip>
  );
}

type HeadProps = { checked: boolean; onCheck: (on: boolean) => void };

export const FleetHead = ({ checked, onCheck }: HeadProps) => (
  <div role="rowgroup" class="thead">
    <div role="row" class="fleet-row">
      <span role="columnheader" class="tick">
        <input type="checkbox" aria-label="Choose all shown" checked={checked} onChange={(event) => onCheck(event.currentTarget.checked)} />
      </span>
      <span role="columnheader">Name</span>
      <span role="columnheader">Status</span>
      <span role="columnheader">Tunnel</span>
      <span role="columnheader">Carrier</span>
      <span role="columnheader" class="num">
        RTT
      </span>
      <span role="columnheader" class="num">
        Load
      </span>
      <span role="columnheader" class="num">
        CPU
      </span>
      <span role="columnheader" class="num">
        Memory
      </span>
      <span role="columnheader" class="num">
        Seen
      </span>
      <span role="columnheader">Version</span>
      <span role="columnheader">Labels</span>
    </div>
  </div>
);

type RowProps = { row: Row; chosen: boolean; onChoose: (on: boolean) => void };

export const FleetRow = ({ row, chosen, onChoose }: RowProps) => (
  <div class="fleet-row" role="presentation">
    <span role="cell" class="tick">
      <input type="checkbox" aria-label={`Choose ${row.id}`} checked={chosen} onChange={(event) => onChoose(event.currentTarget.checked)} />
    </span>
    <span role="cell" class="name">
      <Link href={`/agents/${row.id}`}>{row.id}</Link>
      {row.hostname && row.hostname !== row.id && <small>{row.hostname}</small>}
    </span>
    <span role="cell" class="status">
      <Status row={row} />
    </span>
    <span role="cell" class="active">
      {row.presence === "online" ? "Tunnel active" : "–"}
    </span>
    <span role="cell" class="wide">
      {row.carrier ?? "–"}
    </span>
    <span role="cell" class="num wide">
      {rtt(row.rtt_ms)}
    </span>
    <span role="cell" class="num wide">
      {load(row.load1)}
    </span>
    <span role="cell" class="num cpu">
      {percent(row.cpu_percent)}
    </span>
    <span role="cell" class="num wide">
      {percent(row.memory_percent)}
    </span>
    <span role="cell" class="num seen">
      <Ago time={row.last_seen} />
    </span>
    <span role="cell" class="wide">
      {row.agent_version ?? "–"}
    </span>
    <span role="cell" class="labels wide">
      {Object.entries(row.labels).map(([name, value]) => (
        <span key={name} class="label">
          {name}={value}
        </span>
      ))}
    </span>
  </div>
);
