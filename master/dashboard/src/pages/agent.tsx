// One agent: who it is, and a tab for each thing to do with it.
import { useState } from "preact/hooks";
import { Link, useLocation } from "wouter-preact";
import { ask, client } from "../api/client";
import { useLoad, useReloadOn } from "../state/load";
import { may } from "../state/session";
import { fail, inform } from "../state/toasts";
import { Confirm } from "../ui/dialog";
import { Button, Failed, Head, Skeleton } from "../ui/kit";
import { Lazy } from "../ui/lazy";
import { Status } from "./fleet/row";
import { Commands } from "./agent/commands";
import { Files } from "./agent/files";
import { Overview } from "./agent/overview";
import { Timeline } from "./agent/timeline";
import { AgentTunnels } from "./agent/tunnels";
import { OpenWebUi } from "./agent/web";
import { agent as liveRow, fleet } from "../state/fleet";

const TABS = [
  { name: "overview", title: "Overview", needs: "agents:read" },
  { name: "terminal", title: "Terminal", needs: "shells:open" },
  { name: "files", title: "Files", needs: "files:read" },
  { name: "tunnels", title: "Tunnels", needs: "tunnels:read" },
  { name: "commands", title: "Commands", needs: "commands:run" },
  { name: "timeline", title: "Timeline", needs: "events:read" },
];

export function AgentPage({ id, tab }: { id: string; tab: string }) {
  const { data: agent, problem, reload } = useLoad(() => ask(() => client.GET("/api/v1/agents/{id}", { params: { path: { id } } })), [id]);
  useReloadOn("agent.", reload);
  // The row follows every change; what was loaded holds the rest.
  const row = fleet.value && liveRow(id);
  if (problem) return <Failed problem={problem} retry={reload} />;
  return (
    <section class="page full agent">
      <Head
        title={
          <>
            <Link href="/fleet" class="crumb">
              Fleet
            </Link>
            {id}
            {row && <Status row={row} />}
          </>
        }
      >
        {may("tunnels:write") && <OpenWebUi agent={id} />}
        {may("agents:write") && agent && <Standing id={id} suspended={agent.status === "suspended"} />}
      </Head>
      <nav class="tabs" aria-label="Of this agent">
        {TABS.filter((each) => may(each.needs)).map((each) => (
          <Link key={each.name} href={each.name === "overview" ? `/agents/${id}` : `/agents/${id}/${each.name}`} aria-current={each.name === tab ? "page" : undefined}>
            {each.title}
          </Link>
        ))}
      </nav>
      <div class="tab" tabIndex={0} role="region" aria-label={tab}>
        {tab === "terminal" ? (
          <Lazy load={() => import("./agent/terminals")} show={({ Terminals }) => <Terminals agent={id} />} />
        ) : tab === "files" ? (
          <Files agent={id} />
        ) : tab === "tunnels" ? (
          <AgentTunnels agent={id} />
        ) : tab === "commands" ? (
          <Commands agent={id} />
        ) : tab === "timeline" ? (
          <Timeline agent={id} />
        ) : agent ? (
          <Overview agent={agent} row={row} />
        ) : (
          <Skeleton rows={8} />
        )}
      </div>
    </section>
  );
}

/// What is asked before each change of an agent's standing.
const QUESTIONS = {
  rotate: {
    title: (id: string) => `Give ${id} a new key?`,
    action: "New key",
    danger: false,
    text: "It makes one now and its line stays up. Its old key, and every copy of it, is refused from then on.",
  },
  suspend: {
    title: (id: string) => `Suspend ${id}?`,
    action: "Suspend",
    danger: true,
    text: "Its line, shells and tunnels end at once, and it is not let in until it is resumed.",
  },
  remove: {
    title: (id: string) => `Remove ${id}?`,
    action: "Remove",
    danger: true,
    text: "Its key is forgotten and its tunnels end. To come back it must enrol again.",
  },
};

/// Give it a new key, suspend, resume, remove.
function Standing({ id, suspended }: { id: string; suspended: boolean }) {
  const [, go] = useLocation();
  const [asked, setAsked] = useState<keyof typeof QUESTIONS>();
  const path = { params: { path: { id } } };
  const set = (status: "active" | "suspended") => ask(() => client.PATCH("/api/v1/agents/{id}", { ...path, body: { status } }));
  const resume = () => set("active").then(() => inform(`${id} may come back`), fail);
  const does = {
    rotate: () => ask(() => client.POST("/api/v1/agents/{id}/rotate", path)).then(() => inform(`${id} has a new key; its old one is refused`)),
    suspend: () => set("suspended"),
    remove: () =>
      ask(() => client.DELETE("/api/v1/agents/{id}", path)).then(() => {
        inform(`${id} is removed`);
        go("/fleet");
      }),
  };
  const question = asked && QUESTIONS[asked];
  return (
    <>
      <Button onClick={() => setAsked("rotate")}>New key</Button>
      {suspended ? <Button onClick={() => void resume()}>Resume</Button> : <Button onClick={() => setAsked("suspend")}>Suspend</Button>}
      <Button kind="danger" onClick={() => setAsked("remove")}>
        Remove
      </Button>
      {question && (
        <Confirm
          title={question.title(id)}
          action={question.action}
          danger={question.danger}
          onDone={(yes) => {
            setAsked(undefined);
            if (yes) void does[asked]().catch(fail);
          }}
        >
          {question.text}
        </Confirm>
      )}
    </>
  );
}
