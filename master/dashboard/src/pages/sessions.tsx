// Shell sessions: those that live, to watch; those that are over, to replay.
import { useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { ask, client } from "../api/client";
import { useLoad, useReloadOn } from "../state/load";
import { who, words } from "../ui/format";
import { Chip, Empty, Failed, Head, Moment, Skeleton } from "../ui/kit";
import { duration } from "./session";

export function SessionsPage() {
  const [, go] = useLocation();
  const [running, setRunning] = useState(false);
  const query = { limit: 200, ...(running ? { running } : {}) };
  const { data, problem, reload } = useLoad(() => ask(() => client.GET("/api/v1/shells", { params: { query } })), [running]);
  useReloadOn("shell.", reload);
  return (
    <section class="page">
      <Head title="Sessions">
        <label class="check">
          <input type="checkbox" checked={running} onChange={(event) => setRunning(event.currentTarget.checked)} /> only live ones
        </label>
      </Head>
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !data ? (
        <Skeleton rows={8} />
      ) : data.items.length === 0 ? (
        <Empty title={running ? "Nobody has a shell open" : "No sessions yet"} command="landline shell AGENT">
          Open a terminal on an Agent page, or from your own; it is recorded and shows up here.
        </Empty>
      ) : (
        <div class="scroll">
          <table class="table rows stack">
            <thead>
              <tr>
                <th>State</th>
                <th>Agent</th>
                <th>Opened by</th>
                <th>Began</th>
                <th class="num">Lasted</th>
                <th class="num wide">Viewers</th>
                <th class="wide">Recording</th>
              </tr>
            </thead>
            <tbody>
              {data.items.map((shell) => (
                <tr key={shell.id} onClick={() => go(`/sessions/${shell.id}`)}>
                  <td>
                    <Link href={`/sessions/${shell.id}`}>
                      {shell.ended_at ? <Chip tone="idle">{words(shell.end_reason ?? "over")}</Chip> : <Chip tone="good">live</Chip>}
                    </Link>
                  </td>
                  <td>{shell.agent_id}</td>
                  <td title={shell.owner}>{shell.owner_name ?? who(shell.owner)}</td>
                  <td>
                    <Moment time={shell.created_at} />
                  </td>
                  <td class="num">{duration(shell.created_at, shell.ended_at)}</td>
                  <td class="num wide">{shell.viewers}</td>
                  <td class="wide">{shell.recorded ? "whole" : "with gaps"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
