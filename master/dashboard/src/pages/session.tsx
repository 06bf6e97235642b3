// One shell session: watched while it lives, replayed afterwards.
import { Link } from "wouter-preact";
import { ask, client } from "../api/client";
import { useLoad, useReloadOn } from "../state/load";
import { may } from "../state/session";
import { fail } from "../state/toasts";
import { clock, secondsUntil, who, words } from "../ui/format";
import { Button, Chip, Failed, Head, Moment, Skeleton } from "../ui/kit";
import { Lazy } from "../ui/lazy";

export const duration = (from: string, to: string | null | undefined): string =>
  clock(secondsUntil(to ?? new Date().toISOString(), Date.parse(from)));

export function SessionPage({ id }: { id: string }) {
  const path = { params: { path: { id } } };
  const { data: shell, problem, reload } = useLoad(() => ask(() => client.GET("/api/v1/shells/{id}", path)), [id]);
  useReloadOn("shell.", reload);
  if (problem) return <Failed problem={problem} retry={reload} />;
  if (!shell) return <Skeleton rows={10} />;
  const live = !shell.ended_at;
  return (
    <section class="page full">
      <Head
        title={
          <>
            <Link href="/sessions" class="crumb">
              Sessions
            </Link>
            {shell.agent_id}
            {live ? <Chip tone="good">live</Chip> : <Chip tone="idle">{words(shell.end_reason ?? "over")}</Chip>}
          </>
        }
      >
        {live && may("shells:open") && (
          <Button kind="danger" onClick={() => void ask(() => client.DELETE("/api/v1/shells/{id}", path)).then(reload, fail)}>
            End it
          </Button>
        )}
        <a class="button" href={`/api/v1/shells/${id}/recording`} download={`${shell.agent_id}-${id}.cast`}>
          Download recording
        </a>
      </Head>
      <p class="muted">
        Opened by <span title={shell.owner}>{shell.owner_name ?? who(shell.owner)}</span> at <Moment time={shell.created_at} />, {shell.cols}×{shell.rows}
        {shell.ended_at && <>, lasted {duration(shell.created_at, shell.ended_at)}</>}
      </p>
      {live ? (
        <Lazy key="live" load={() => import("../terminal/terminal")} show={({ Terminal }) => <Terminal session={id} mode="watch" />} />
      ) : (
        <Lazy key="replay" load={() => import("../terminal/replay")} show={({ Replay }) => <Replay session={id} />} />
      )}
    </section>
  );
}
