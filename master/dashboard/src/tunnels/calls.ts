// Calls about tunnels.
import { ask, client, type Schemas } from "../api/client";

export type Tunnel = Schemas["Tunnel"];

const path = (id: string) => ({ params: { path: { id } } });

export const isOpen = (tunnel: Tunnel): boolean => tunnel.status === "pending" || tunnel.status === "active";
export const closeTunnel = (id: string) => ask(() => client.DELETE("/api/v1/tunnels/{id}", path(id)));
export const extendTunnel = (id: string) => ask(() => client.POST("/api/v1/tunnels/{id}/extend", { ...path(id), body: {} }));

export async function listTunnels(query: { agent_id?: string; open?: boolean }): Promise<Tunnel[]> {
  const found = await ask(() => client.GET("/api/v1/tunnels", { params: { query: { ...query, limit: 500 } } }));
  return found.items;
}

export const openTunnel = (body: Schemas["NewTunnel"]) =>
  ask(() => client.POST("/api/v1/tunnels", { params: { query: { wait: "30s" } }, body }));

export function targetOf(tunnel: Tunnel): string {
  const { scheme, host, port } = tunnel.target;
  return `${scheme === "tcp" ? "" : `${scheme}://`}${host.includes(":") ? `[${host}]` : host}:${port}`;
}
