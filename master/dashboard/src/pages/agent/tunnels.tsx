// The tunnels of one agent, and opening another.
import { useState } from "preact/hooks";
import type { Schemas } from "../../api/client";
import { useLoad, useReloadOn } from "../../state/load";
import { may } from "../../state/session";
import { fail, inform } from "../../state/toasts";
import { listTunnels, openTunnel } from "../../tunnels/calls";
import { TunnelTable } from "../../tunnels/table";
import { Button, Empty, Failed, Field, Skeleton } from "../../ui/kit";

export function AgentTunnels({ agent }: { agent: string }) {
  const { data, problem, reload } = useLoad(() => listTunnels({ agent_id: agent }), [agent]);
  useReloadOn("tunnel.", reload);
  return (
    <>
      {may("tunnels:write") && <NewTunnel agent={agent} opened={reload} />}
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !data ? (
        <Skeleton rows={5} />
      ) : data.length === 0 ? (
        <Empty title="No tunnels yet" command={`landline tunnel open ${agent} localhost:443`}>
          Open one above, or from your terminal:
        </Empty>
      ) : (
        <TunnelTable tunnels={data} showAgent={false} changed={reload} />
      )}
    </>
  );
}

function NewTunnel({ agent, opened }: { agent: string; opened: () => void }) {
  const [host, setHost] = useState("localhost");
  const [port, setPort] = useState("443");
  const [scheme, setScheme] = useState<Schemas["Scheme"]>("https");
  const [standing, setStanding] = useState(false);
  const [busy, setBusy] = useState(false);
  const open = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const body = { agent_id: agent, target: { host, port: Number(port), scheme }, standing, ...(standing ? {} : { heartbeat: false }) };
      const tunnel = await openTunnel(body);
      inform(tunnel.status === "active" ? `Listening on ${tunnel.listen}` : `The tunnel is ${tunnel.status}`, tunnel.closed_reason ?? "");
      opened();
    } catch (error) {
      fail(error);
    }
    setBusy(false);
  };
  return (
    <form class="inline-form" onSubmit={open}>
      <Field label="Scheme">
        <select value={scheme} onChange={(event) => setScheme(event.currentTarget.value as Schemas["Scheme"])}>
          <option>https</option>
          <option>http</option>
          <option>tcp</option>
        </select>
      </Field>
      <Field label="Host, as the agent sees it">
        <input required value={host} onInput={(event) => setHost(event.currentTarget.value)} />
      </Field>
      <Field label="Port">
        <input required type="number" min={1} max={65535} value={port} onInput={(event) => setPort(event.currentTarget.value)} />
      </Field>
      <label class="check">
        <input type="checkbox" checked={standing} onChange={(event) => setStanding(event.currentTarget.checked)} /> standing
      </label>
      <Button type="submit" kind="primary" disabled={busy}>
        {busy ? "Opening…" : "Open a tunnel"}
      </Button>
    </form>
  );
}
