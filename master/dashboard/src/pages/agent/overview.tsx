// What an agent is, and how it does: facts, charts, disks, labels, policy.
import { useEffect, useState } from "preact/hooks";
import { ask, client, type Schemas } from "../../api/client";
import type { Row } from "../../state/fleet";
import { useLoad } from "../../state/load";
import { bytes, rtt, span, words } from "../../ui/format";
import { Ago, Bar, Moment } from "../../ui/kit";
import { Lazy } from "../../ui/lazy";
import { Labels } from "./labels";

type Agent = Schemas["Agent"];
type Props = { agent: Agent; row: Row | undefined };

export function Overview({ agent: loaded, row }: Props) {
  const path = { params: { path: { id: loaded.id } } };
  const beat = row?.last_seen ?? loaded.last_seen;
  // Each heartbeat brings a sample: both are read again when the row's time moves.
  const [known, setKnown] = useState({ agent: loaded, beat });
  const { data: samples, reload } = useLoad(() => ask(() => client.GET("/api/v1/agents/{id}/samples", path)), [loaded.id]);
  useEffect(() => setKnown((before) => ({ ...before, agent: loaded })), [loaded]);
  useEffect(() => {
    if (beat === known.beat) return;
    setKnown((before) => ({ ...before, beat }));
    reload();
    ask(() => client.GET("/api/v1/agents/{id}", path)).then(
      (agent) => setKnown({ agent, beat }),
      () => undefined,
    );
  }, [beat]);
  const { agent } = known;
  const stats = agent.stats;
  return (
    <div class="overview">
      <div class="cards">
        <Facts agent={agent} row={row} />
        <div class="card">
          <h2>Disks</h2>
          {stats && stats.disks.length > 0 ? (
            <ul class="disks">
              {stats.disks.map((disk) => (
                <li key={disk.mount}>
                  <span>{disk.mount}</span>
                  <Bar percent={disk.total_bytes ? (disk.used_bytes / disk.total_bytes) * 100 : 0} label={`${disk.mount} used`} />
                  <span class="num">
                    {bytes(disk.used_bytes)} of {bytes(disk.total_bytes)}
                  </span>
                </li>
              ))}
            </ul>
          ) : (
            <p class="muted">Told with the next heartbeat of a connected agent.</p>
          )}
        </div>
        <Labels agent={agent} />
      </div>
      <Lazy load={() => import("./charts")} show={({ Charts }) => <Charts samples={samples?.items ?? []} total={stats?.memory_total_bytes ?? 0} />} />
      {agent.policy && (
        <details class="card">
          <summary>Policy of its owner</summary>
          <pre>{agent.policy}</pre>
        </details>
      )}
    </div>
  );
}

function Facts({ agent, row }: { agent: Agent; row: Row | undefined }) {
  const stats = agent.stats;
  const online = (row?.presence ?? agent.presence) === "online";
  return (
    <div class="card">
      <h2>Machine</h2>
      <dl class="facts">
        <Fact name="Host">{agent.hostname}</Fact>
        <Fact name="System">{[agent.os, agent.arch].filter(Boolean).join(", ")}</Fact>
        <Fact name="Agent version">{agent.agent_version}</Fact>
        <Fact name="Line">{online ? `Tunnel active, ${agent.carrier ?? "?"}, ${rtt(row?.rtt_ms ?? agent.rtt_ms)}` : agent.connection_mode === "on-demand" ? `on demand, looks in every ${agent.visits_every_s ?? "?"} s` : "not connected"}</Fact>
        {online && agent.carrier_since && (
          <Fact name={`On ${agent.carrier} since`}>
            <Moment time={agent.carrier_since} />
            {agent.carrier_reason ? `: ${agent.carrier_reason.message}` : ""}
          </Fact>
        )}
        {!online && agent.disconnect_reason && <Fact name="Left because">{words(agent.disconnect_reason)}</Fact>}
        <Fact name="Connected since">{online ? <Moment time={agent.connected_at} /> : "–"}</Fact>
        <Fact name="Last seen">
          <Ago time={row?.last_seen ?? agent.last_seen} /> ago
        </Fact>
        <Fact name="Uptime">{stats ? span(stats.uptime_s) : "–"}</Fact>
        <Fact name="Processes">{stats ? stats.processes : "–"}</Fact>
        <Fact name="Memory">{stats ? `${bytes(stats.memory_used_bytes)} of ${bytes(stats.memory_total_bytes)}` : "–"}</Fact>
      </dl>
    </div>
  );
}

const Fact = ({ name, children }: { name: string; children?: preact.ComponentChildren }) => (
  <div>
    <dt>{name}</dt>
    <dd>{children || "–"}</dd>
  </div>
);
