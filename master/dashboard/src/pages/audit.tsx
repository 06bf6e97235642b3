// Who did what, on which agent, from where, with which result; whether the chain is whole; and taking it along.
import { useState } from "preact/hooks";
import { json } from "../api/client";
import { useLoad } from "../state/load";
import { fail } from "../state/toasts";
import { who, words } from "../ui/format";
import { Button, Chip, Empty, Failed, Head, Moment, Skeleton } from "../ui/kit";

type Row = {
  seq: number;
  at: string;
  actor: string;
  actor_name?: string | null;
  action: string;
  agent_id?: string | null;
  object?: string | null;
  source?: string | null;
  result: string;
  detail: unknown;
};
type Page = { items: Row[]; next_cursor?: string | null };
type Verdict = { whole: boolean; first?: number | null; last?: number | null; broken?: { seq: number; why: string } | null };
type Filter = { agent: string; actor: string; action: string; result: string; since: string; until: string };

const NONE: Filter = { agent: "", actor: "", action: "", result: "", since: "", until: "" };
const LIMIT = "100";
/** Ends that are as they should be. */
const PLAIN_ENDS = new Set(["exited", "done", "operator", "window_closed", "expired", "shutdown"]);

function queryOf(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filter)) {
    if (value) query.set(name, name === "since" || name === "until" ? new Date(value).toISOString() : value.trim());
  }
  return query;
}

export function AuditPage() {
  const [filter, setFilter] = useState(NONE);
  const [more, setMore] = useState<Page>();
  const read = (cursor?: string) => {
    const query = queryOf(filter);
    query.set("limit", LIMIT);
    if (cursor) query.set("cursor", cursor);
    return json<Page>("GET", `/audit?${query}`);
  };
  const { data, problem, reload } = useLoad(() => (setMore(undefined), read()), [filter]);
  const rows = [...(data?.items ?? []), ...(more?.items ?? [])];
  const next = more ? more.next_cursor : data?.next_cursor;
  const older = () =>
    read(next ?? undefined).then((page) => setMore({ items: [...(more?.items ?? []), ...page.items], next_cursor: page.next_cursor }), fail);
  return (
    <section class="page">
      <Head title="Audit">
        <Verify />
        <a class="button" href={`/api/v1/audit/export?format=csv&${queryOf(filter)}`} download="audit.csv">
          CSV
        </a>
        <a class="button" href={`/api/v1/audit/export?format=jsonl&${queryOf(filter)}`} download="audit.jsonl">
          JSON Lines
        </a>
      </Head>
      <Filters filter={filter} set={setFilter} />
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !data ? (
        <Skeleton rows={12} />
      ) : rows.length === 0 ? (
        <Empty title="Nothing matches">Widen the filters. The trail holds administration, and both ends of shells, execs, transfers and tunnels.</Empty>
      ) : (
        <div class="scroll">
          <table class="table stack">
            <thead>
              <tr>
                <th class="num">Row</th>
                <th>When</th>
                <th>Who</th>
                <th>What</th>
                <th>Agent</th>
                <th class="wide">Object</th>
                <th class="wide">From</th>
                <th>Result</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.seq} title={row.detail ? JSON.stringify(row.detail) : undefined}>
                  <td class="num">{row.seq}</td>
                  <td>
                    <Moment time={row.at} />
                  </td>
                  <td title={row.actor}>{row.actor_name ?? who(row.actor)}</td>
                  <td>{row.action}</td>
                  <td>{row.agent_id ?? "–"}</td>
                  <td class="wide mono clip">{row.object ?? "–"}</td>
                  <td class="wide mono">{row.source ?? "–"}</td>
                  <td>
                    <Chip tone={row.result === "ok" ? "good" : PLAIN_ENDS.has(row.result) ? "idle" : "bad"}>{words(row.result)}</Chip>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          {next && <Button onClick={() => void older()}>Older</Button>}
        </div>
      )}
    </section>
  );
}

function Filters({ filter, set }: { filter: Filter; set: (filter: Filter) => void }) {
  const field = (name: keyof Filter, label: string, type = "search") => (
    <input
      type={type}
      aria-label={label}
      placeholder={label}
      title={label}
      onChange={(event) => set({ ...filter, [name]: event.currentTarget.value })}
    />
  );
  // The fields hold what is being typed themselves: rows that arrive meanwhile must not take it back.
  return (
    <div class="filters many">
      {field("agent", "Agent")}
      {field("actor", "Who")}
      {field("action", "Action")}
      <select aria-label="Result" value={filter.result} onChange={(event) => set({ ...filter, result: event.currentTarget.value })}>
        <option value="">Any result</option>
        <option value="ok">ok</option>
        <option value="!ok">not ok</option>
      </select>
      {field("since", "Since", "datetime-local")}
      {field("until", "Until", "datetime-local")}
    </div>
  );
}

function Verify() {
  const [verdict, setVerdict] = useState<Verdict>();
  const verify = () => json<Verdict>("GET", "/audit/verify").then(setVerdict, fail);
  return (
    <>
      {verdict && (
        <Chip tone={verdict.whole ? "good" : "bad"}>
          {verdict.whole ? `whole, rows ${verdict.first ?? 0} to ${verdict.last ?? 0}` : `broken at ${verdict.broken?.seq}: ${verdict.broken?.why}`}
        </Chip>
      )}
      <Button onClick={() => void verify()}>Verify the chain</Button>
    </>
  );
}
