// Uploads: hashed, sent from where the agent stands, paused and gone on with. Owns their states; two run at once.
import { signal } from "@preact/signals";
import { ApiError, ask, client, headers, problemOf } from "../api/client";
import { fail, inform } from "../state/toasts";
import { contentUrl, join, operate, parent } from "./calls";
import type { Dropped } from "./dropped";

export type State = "waiting" | "hashing" | "sending" | "paused" | "failed" | "done";
export type Upload = { id: number; agent: string; path: string; file: File; state: State; done: number; problem?: string; hash?: string };

const AT_ONCE = 2;
/// A broken connection is tried again this often by itself.
const TRIES = 5;
const RETRY_MS = 2_000;

export const uploads = signal<Upload[]>([]);
const running = new Map<number, XMLHttpRequest>();
const finished = new Map<number, () => void>();
let next = 1;

export function addUploads(agent: string, folder: string, files: Dropped[], changed: () => void): void {
  const added = files.map(({ file, path }): Upload => ({ id: next++, agent, path: join(folder, path), file, state: "waiting", done: 0 }));
  for (const upload of added) finished.set(upload.id, changed);
  uploads.value = [...uploads.value, ...added];
  start();
}

const find = (id: number): Upload | undefined => uploads.value.find((upload) => upload.id === id);

function set(id: number, change: Partial<Upload>): void {
  uploads.value = uploads.value.map((upload) => (upload.id === id ? { ...upload, ...change } : upload));
}

export function pause(id: number): void {
  set(id, { state: "paused" });
  running.get(id)?.abort();
}

export function resume(id: number): void {
  set(id, { state: "waiting", problem: undefined });
  start();
}

export function forget(id: number): void {
  running.get(id)?.abort();
  finished.delete(id);
  uploads.value = uploads.value.filter((upload) => upload.id !== id);
}

function start(): void {
  const busy = uploads.value.filter((upload) => upload.state === "hashing" || upload.state === "sending").length;
  const waiting = uploads.value.filter((upload) => upload.state === "waiting").slice(0, Math.max(0, AT_ONCE - busy));
  for (const upload of waiting) void run(upload.id);
}

async function run(id: number): Promise<void> {
  const upload = find(id);
  if (!upload) return;
  try {
    if (!upload.hash) {
      set(id, { state: "hashing", done: 0 });
      set(id, { hash: await hashed(upload.file, (done) => set(id, { done })) });
      await folderOf(upload);
    }
    if (find(id)?.state !== "paused") await sent(id);
  } catch (error) {
    if (find(id) && find(id)?.state !== "paused") {
      set(id, { state: "failed", problem: error instanceof Error ? error.message : String(error) });
      fail(error);
    }
  }
  start();
}

/// The folders above a file that came with its folder.
async function folderOf(upload: Upload): Promise<void> {
  await operate(upload.agent, "mkdir", { path: parent(upload.path), parents: true });
}

function hashed(file: File, progress: (done: number) => void): Promise<string> {
  const worker = new Worker(new URL("./hash.worker.ts", import.meta.url), { type: "module" });
  return new Promise<string>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<{ done?: number; hash?: string }>) => {
      if (data.hash) resolve(data.hash);
      else progress(data.done ?? 0);
    };
    worker.onerror = () => reject(new Error("the file could not be read"));
    worker.postMessage(file);
  }).finally(() => worker.terminate());
}

async function sent(id: number): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const upload = find(id);
    if (!upload?.hash) return;
    const query = { path: upload.path, size: upload.file.size, blake3: upload.hash };
    const held = await ask(() => client.GET("/api/v1/agents/{id}/files/upload", { params: { path: { id: upload.agent }, query } }));
    set(id, { state: "sending", done: held.offset });
    try {
      await put(upload, upload.hash, held.offset);
      break;
    } catch (error) {
      if (find(id)?.state !== "sending" || !isPassing(error) || tries >= TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
  const upload = find(id);
  if (!upload) return;
  set(id, { state: "done", done: upload.file.size });
  inform(`Uploaded ${upload.path}`);
  finished.get(id)?.();
  finished.delete(id);
}

/// The connection broke; what arrived is kept.
class Broken extends Error {}

/// Worth another try: also while the agent still holds the end of a paused one.
const isPassing = (error: unknown): boolean =>
  error instanceof Broken || (error instanceof ApiError && ["too_many", "busy", "agent_offline"].includes(error.code));

function put(upload: Upload, hash: string, offset: number): Promise<void> {
  const request = new XMLHttpRequest();
  running.set(upload.id, request);
  return new Promise<void>((resolve, reject) => {
    request.open("PUT", `${contentUrl(upload.agent, upload.path)}&size=${upload.file.size}&blake3=${hash}&offset=${offset}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = ({ loaded }) => set(upload.id, { done: offset + loaded });
    request.onload = () => (request.status < 300 ? resolve() : reject(problemOf(request.status, request.responseText)));
    request.onerror = () => reject(new Broken("the connection broke"));
    request.onabort = () => reject(new Broken("paused"));
    request.send(upload.file.slice(offset));
  }).finally(() => running.delete(upload.id));
}
