// Every agent: search, chips, label filter, what can be done to many at once.
import { signal } from "@preact/signals";
import { useCallback, useMemo, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { complete, fleet, labels, type Row } from "../state/fleet";
import { may } from "../state/session";
import { Button, Empty, Head, Skeleton } from "../ui/kit";
import { Virtual } from "../ui/virtual";
import { Bulk } from "./fleet/bulk";
import { FleetHead, FleetRow, useRowHeight } from "./fleet/row";
import { CHIPS, matches, type ChipName, type Wanted } from "./fleet/wanted";

const nameOf = (row: Row) => row.id;
/// Stays while one looks at an agent and comes back.
const asked = signal<Wanted>({ text: "", chip: "all", label: "" });

export function FleetPage() {
  const [, go] = useLocation();
  const wanted = asked.value;
  const setWanted = (next: Wanted) => (asked.value = next);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const height = useRowHeight();
  const all = fleet.value;
  const shown = useMemo(() => all.filter((row) => matches(row, wanted)), [all, wanted]);
  const open = useCallback((row: Row) => go(`/agents/${row.id}`), [go]);
  const choose = (id: string, on: boolean) => {
    const next = new Set(chosen);
    if (on) next.add(id);
    else next.delete(id);
    setChosen(next);
  };
  if (complete.value && all.length === 0) return <NoAgents />;
  const allChosen = shown.length > 0 && shown.every((row) => chosen.has(row.id));
  return (
    <section class="page full">
      <Head title="Fleet">{may("enrol:write") && <Button kind="primary" onClick={() => go("/enrol")}>Add a machine</Button>}</Head>
      <div class="filters">
        <input
          type="search"
          placeholder="Search  /"
          aria-label="Search agents"
          value={wanted.text}
          onInput={(event) => setWanted({ ...wanted, text: event.currentTarget.value })}
        />
        <Chips all={all} wanted={wanted} choose={(chip) => setWanted({ ...wanted, chip })} />
        <select aria-label="Label" value={wanted.label} onChange={(event) => setWanted({ ...wanted, label: event.currentTarget.value })}>
          <option value="">Any label</option>
          {labels.value.map((label) => (
            <option key={label}>{label}</option>
          ))}
        </select>
        <output class="count" data-testid="count">
          {shown.length} of {all.length}
        </output>
      </div>
      <Bulk chosen={chosen} clear={() => setChosen(new Set())} />
      {all.length === 0 ? (
        <Skeleton rows={14} />
      ) : (
        <Virtual
          items={shown}
          height={height}
          label="Agents"
          head={<FleetHead checked={allChosen} onCheck={(on) => setChosen(new Set(on ? shown.map(nameOf) : []))} />}
          name={nameOf}
          open={open}
          render={(row) => <FleetRow row={row} chosen={chosen.has(row.id)} onChoose={(on) => choose(row.id, on)} />}
        />
      )}
    </section>
  );
}

type ChipsProps = { all: Row[]; wanted: Wanted; choose: (chip: ChipName) => void };

function Chips({ all, wanted, choose }: ChipsProps) {
  const counts = useMemo(() => CHIPS.map((chip) => all.reduce((count, row) => count + (chip.has(row) ? 1 : 0), 0)), [all]);
  return (
    <div class="segmented" role="group" aria-label="Status">
      {CHIPS.map((chip, at) => (
        <button key={chip.name} type="button" aria-pressed={wanted.chip === chip.name} onClick={() => choose(chip.name)}>
          {chip.title} <b>{counts[at]}</b>
        </button>
      ))}
    </div>
  );
}

const NoAgents = () => (
  <section class="page">
    <Head title="Fleet" />
    <Empty title="No machines yet" command="landline agents add office-fw">
      Add one on the Enrol page, which makes the line to paste on the machine; or register it by hand on the master and give the token it
      prints to <code>landline-agent enrol</code>.
    </Empty>
  </section>
);
