// Calls about an agent's files, and paths. Owns the shapes; shows nothing.
import { ask, client, type Schemas } from "../api/client";

export type Entry = Schemas["FileEntry"];

/// Entries asked for at once, and at most.
const PAGE = 2_000;
const MOST = 10_000;

export const join = (folder: string, name: string): string => `${folder === "/" ? "" : folder}/${name}`;
export const parent = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/";
export const contentUrl = (agent: string, path: string): string => `/api/v1/agents/${agent}/files/content?path=${encodeURIComponent(path)}`;

export function operate(agent: string, operation: string, call: Schemas["FileCall"]): Promise<Schemas["FileAnswer"]> {
  const path = { params: { path: { id: agent, operation } } };
  return ask(() => client.POST("/api/v1/agents/{id}/files/{operation}", { ...path, body: call }));
}

/// Folders first, then by name.
export async function listFolder(agent: string, path: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let more = true; more && entries.length < MOST; ) {
    const after = entries.at(-1);
    const from = after ? (after.name_base64 ? { after_base64: after.name_base64 } : { after: after.name }) : {};
    const answer = await operate(agent, "list", { path, limit: PAGE, ...from });
    entries.push(...(answer.entries ?? []));
    more = answer.more && (answer.entries?.length ?? 0) > 0;
  }
  const rank = (entry: Entry) => (entry.kind === "folder" ? 0 : 1);
  return entries.sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
}
