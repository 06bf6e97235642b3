// What happened to an agent and why, newest first.
import { useCallback, useState } from "preact/hooks";
import { ask, client, type Schemas } from "../../api/client";
import { useLoad, useReloadOn } from "../../state/load";
import { fail } from "../../state/toasts";
import { words } from "../../ui/format";
import { Button, Chip, Empty, Failed, Moment, Skeleton, type Tone } from "../../ui/kit";

type Event = Schemas["Event"];

const LIMIT = 100;

const TONES: Record<string, Tone> = {
  "agent.online": "good",
  "agent.offline": "bad",
  "agent.suspect": "warn",
  "agent.carrier": "warn",
  "agent.refused": "bad",
  "agent.suspended": "bad",
  "tunnel.active": "good",
};

export function Timeline({ agent }: { agent: string }) {
  const page = useCallback(
    (cursor?: string) => ask(() => client.GET("/api/v1/agents/{id}/timeline", { params: { path: { id: agent }, query: { limit: LIMIT, cursor } } })),
    [agent],
  );
  const { data, problem, reload } = useLoad(() => page(), [agent]);
  const [older, setOlder] = useState<{ items: Event[]; next: string | null | undefined }>();
  useReloadOn("", reload);
  if (problem) return <Failed problem={problem} retry={reload} />;
  if (!data) return <Skeleton rows={10} />;
  const known = new Set(data.items.map((event) => event.id));
  const items = [...data.items, ...(older?.items.filter((event) => !known.has(event.id)) ?? [])];
  const next = older ? older.next : data.next_cursor;
  if (items.length === 0) return <Empty title="Nothing has happened yet">The first entry comes when the agent enrols.</Empty>;
  const more = () =>
    page(next ?? undefined).then((answer) => setOlder({ items: [...(older?.items ?? []), ...answer.items], next: answer.next_cursor }), fail);
  return (
    <div class="timeline">
      <ol>
        {items.map((event) => (
          <li key={event.id}>
            <Moment time={event.at} />
            <Chip tone={TONES[event.kind] ?? "idle"}>{words(event.kind.replace(".", " "))}</Chip>
            <span>
              {event.reason && <b>{words(event.reason)}</b>} <Detail detail={event.detail} />
            </span>
          </li>
        ))}
      </ol>
      {next && <Button onClick={() => void more()}>Older</Button>}
    </div>
  );
}

/// Facts of an event as `name value`, whatever they are.
function Detail({ detail }: { detail: unknown }) {
  if (!detail || typeof detail !== "object") return null;
  const facts = Object.entries(detail).filter(([name, value]) => name !== "line_epoch" && value !== null);
  return (
    <span class="muted">
      {facts.map(([name, value]) => `${words(name)} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ")}
    </span>
  );
}
