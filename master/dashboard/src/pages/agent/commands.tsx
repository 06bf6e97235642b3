// Typed commands and command lines on one agent, with their answers.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, client } from "../../api/client";
import { may } from "../../state/session";
import { fail } from "../../state/toasts";
import { Button, Field } from "../../ui/kit";
import { runExec, type End } from "./exec-stream";

const KNOWN = [
  ["system", "getUsage"],
  ["system", "getInfo"],
  ["service", "list"],
  ["process", "list"],
  ["network", "interfaces"],
] as const;
/// Of the output, for the page; the rest scrolls away.
const SHOWN = 200_000;

export const Commands = ({ agent }: { agent: string }) => (
  <div class="commands">
    {may("exec:run") && <Exec agent={agent} />}
    <Typed agent={agent} />
  </div>
);

function Exec({ agent }: { agent: string }) {
  const [line, setLine] = useState("");
  const [output, setOutput] = useState("");
  const [end, setEnd] = useState<End>();
  const [abort, setAbort] = useState<AbortController>();
  const bottom = useRef<HTMLPreElement>(null);
  useEffect(() => () => abort?.abort(), [abort]);
  useEffect(() => bottom.current?.scrollTo(0, bottom.current.scrollHeight), [output]);
  const run = async (event: Event) => {
    event.preventDefault();
    const control = new AbortController();
    setAbort(control);
    setOutput("");
    setEnd(undefined);
    try {
      setEnd(await runExec(agent, { shell: line }, (piece) => setOutput((before) => (before + piece.text).slice(-SHOWN)), control.signal));
    } catch (error) {
      fail(error);
    }
    setAbort(undefined);
  };
  return (
    <form class="card" onSubmit={run}>
      <h2>Command line</h2>
      <div class="line">
        <input class="mono" required aria-label="Command line" placeholder="df -h /" value={line} onInput={(event) => setLine(event.currentTarget.value)} />
        {abort ? (
          <Button onClick={() => abort.abort()}>Hang up</Button>
        ) : (
          <Button type="submit" kind="primary">
            Run
          </Button>
        )}
      </div>
      <pre ref={bottom} class="output" tabIndex={0} aria-label="Output" data-testid="output">
        {output}
      </pre>
      <p class={end && !end.good ? "wrong" : "muted"}>{end ? end.text : abort ? "running" : "Runs as the owner's policy says; it goes on when you hang up."}</p>
    </form>
  );
}

function Typed({ agent }: { agent: string }) {
  const [word, setWord] = useState("system.getUsage");
  const [payload, setPayload] = useState("");
  const [answer, setAnswer] = useState<string>();
  const call = async (event: Event) => {
    event.preventDefault();
    const [service = "", action = ""] = word.split(".");
    try {
      const body = {
        id: crypto.randomUUID(),
        type: "COMMAND",
        service,
        action,
        timestamp: Date.now(),
        ...(payload.trim() ? { payload: JSON.parse(payload) as unknown } : {}),
      };
      const reply = await ask(() => client.POST("/api/v1/agents/{id}/commands", { params: { path: { id: agent } }, body }));
      setAnswer(reply.status === "error" ? `${reply.code}: ${reply.error}` : JSON.stringify(reply.data, null, 2));
    } catch (error) {
      fail(error);
    }
  };
  return (
    <form class="card" onSubmit={call}>
      <h2>Command</h2>
      <div class="pair">
        <Field label="Service and action">
          <input class="mono" required list="known-commands" pattern="[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+" value={word} onInput={(event) => setWord(event.currentTarget.value)} />
        </Field>
        <Field label="Payload (JSON)">
          <input class="mono" placeholder='{"name": "nginx"}' value={payload} onInput={(event) => setPayload(event.currentTarget.value)} />
        </Field>
      </div>
      <datalist id="known-commands">
        {KNOWN.map(([service, action]) => (
          <option key={service + action} value={`${service}.${action}`} />
        ))}
      </datalist>
      <Button type="submit" kind="primary">
        Call
      </Button>
      {answer !== undefined && (
        <pre class="output" tabIndex={0} aria-label="Answer">
          {answer}
        </pre>
      )}
    </form>
  );
}
