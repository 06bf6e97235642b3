// Tunnels with their countdowns, and what can be done to each.
import { Link } from "wouter-preact";
import { useTick } from "../state/load";
import { may } from "../state/session";
import { fail } from "../state/toasts";
import { bytes, clock, secondsUntil, words } from "../ui/format";
import { Ago, Button, Chip, type Tone } from "../ui/kit";
import { closeTunnel, extendTunnel, isOpen, targetOf, type Tunnel } from "./calls";
import { Certificate } from "./pin";
import { openTunnelUi, openWindows } from "./windows";

const TONES: Record<Tunnel["status"], Tone> = { pending: "warn", active: "good", disconnected: "idle", timeout: "bad", expired: "idle" };

type Props = { tunnels: Tunnel[]; showAgent: boolean; changed: () => void };

export function TunnelTable({ tunnels, showAgent, changed }: Props) {
  useTick(1_000);
  return (
    <div class="scroll">
      <table class="table stack">
        <thead>
          <tr>
            <th>Status</th>
            {showAgent && <th>Agent</th>}
            <th>Target</th>
            <th>Listens on</th>
            <th class="num">Left</th>
            <th class="num wide">Connections</th>
            <th class="num wide">In / out</th>
            <th class="wide">Opened</th>
            <th>
              <span class="quiet">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {tunnels.map((tunnel) => (
            <tr key={tunnel.id} data-tunnel={tunnel.id}>
              <td>
                <State tunnel={tunnel} />
              </td>
              {showAgent && (
                <td>
                  <Link href={`/agents/${tunnel.agent_id}/tunnels`}>{tunnel.agent_id}</Link>
                </td>
              )}
              <td class="mono">{targetOf(tunnel)}</td>
              <td class="mono">{isOpen(tunnel) ? tunnel.listen : "–"}</td>
              <td class="num">{left(tunnel)}</td>
              <td class="num wide">{tunnel.connections_open}</td>
              <td class="num wide">
                {bytes(tunnel.bytes_in)} / {bytes(tunnel.bytes_out)}
              </td>
              <td class="wide">
                <Ago time={tunnel.created_at} /> ago
              </td>
              <td class="num">
                <Actions tunnel={tunnel} changed={changed} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function State({ tunnel }: { tunnel: Tunnel }) {
  if (isOpen(tunnel) && tunnel.health === "failing") {
    return (
      <Chip tone="bad" title={tunnel.health_since ?? ""}>
        Failing{tunnel.health_reason ? `, ${words(tunnel.health_reason)}` : ""}
      </Chip>
    );
  }
  const why = tunnel.closed_reason ? `, ${words(tunnel.closed_reason)}` : "";
  const window = openWindows.value.has(tunnel.id) ? ", window open" : "";
  return (
    <Chip tone={TONES[tunnel.status]}>
      {tunnel.status}
      {isOpen(tunnel) ? window : why}
    </Chip>
  );
}

function left(tunnel: Tunnel): string {
  if (!isOpen(tunnel)) return "–";
  if (tunnel.standing) return "standing";
  return tunnel.expires_at ? clock(secondsUntil(tunnel.expires_at)) : "–";
}

function Actions({ tunnel, changed }: { tunnel: Tunnel; changed: () => void }) {
  if (!isOpen(tunnel) || !may("tunnels:write")) return null;
  // What was refused shows that the row is behind: somebody else was here.
  const act = (call: Promise<unknown>) => void call.catch(fail).then(changed);
  const web = tunnel.target.scheme !== "tcp" && tunnel.status === "active";
  return (
    <span class="row-actions">
      {web && (
        <Button small onClick={() => void openTunnelUi(tunnel)}>
          Open
        </Button>
      )}
      {web && tunnel.target.scheme === "https" && <Certificate tunnel={tunnel.id} />}
      {!tunnel.standing && (
        <Button small kind="plain" onClick={() => act(extendTunnel(tunnel.id))}>
          Extend
        </Button>
      )}
      <Button small kind="plain" onClick={() => act(closeTunnel(tunnel.id))}>
        Close
      </Button>
    </span>
  );
}
