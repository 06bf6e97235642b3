// The bytes of a shell session over its WebSocket: in order, each once, also across lost connections. Owns offsets and
// reconnecting; shows nothing.
import { address } from "../state/live";
import { whoAmI } from "../state/session";

export type Attached = { offset: number; lost: number; end: number; writer: boolean; cols: number; rows: number };
type Told =
  | ({ type: "attached" } & Attached)
  | { type: "lost"; bytes: number; offset: number }
  | { type: "line"; state: "lost" | "back" }
  | { type: "resized"; cols: number; rows: number }
  | { type: "exit"; reason: string; code?: number | null; signal?: number | null };

export type Heard = {
  /// Output; call `shown` when it is on the screen. `old` output was shown before to somebody: a terminal's answers to it
  /// must not be typed.
  output: (bytes: Uint8Array, old: boolean, shown: () => void) => void;
  attached: (attached: Attached) => void;
  note: (text: string) => void;
  resized: (cols: number, rows: number) => void;
  over: (reason: string) => void;
};

const ACK_EVERY = 32 * 1024;
const RETRY_FIRST_MS = 300;
const RETRY_MOST_MS = 5_000;
/// Why a socket may close without hope of another.
const FINAL = new Set(["done", "taken_over", "read_only", "unauthorized"]);

export class Attachment {
  private socket: WebSocket | undefined;
  private offset: number | undefined;
  private oldUntil = 0;
  private acked = 0;
  private retry = RETRY_FIRST_MS;
  private left = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly session: string,
    private readonly mode: "write" | "watch",
    private readonly heard: Heard,
  ) {
    this.connect();
  }

  type(text: string): void {
    if (this.open) this.socket?.send(new TextEncoder().encode(text));
  }

  resize(cols: number, rows: number): void {
    if (this.mode === "write") this.tell({ type: "resize", cols, rows });
  }

  leave(): void {
    this.left = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private get open(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  private tell(message: object): void {
    if (this.open) this.socket?.send(JSON.stringify(message));
  }

  private connect(): void {
    const from = this.offset === undefined ? "" : `&offset=${this.offset}`;
    const socket = new WebSocket(address(`/shells/${this.session}/attach?mode=${this.mode}${from}`));
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) this.take(data);
      else this.told(JSON.parse(String(data)) as Told);
    };
    socket.onclose = ({ reason }) => {
      if (this.left) return;
      if (FINAL.has(reason)) this.end(reason);
      else void this.again();
    };
  }

  /// A refused upgrade tells nothing: the session is asked for instead.
  private async again(): Promise<void> {
    const found = await fetch(`/api/v1/shells/${this.session}`).catch(() => undefined);
    if (this.left) return;
    if (found?.status === 404) return this.end("no_session");
    if (found?.status === 401) {
      await whoAmI().catch(() => false);
      return;
    }
    if (found?.ok) {
      const shell = (await found.json()) as { ended_at?: string | null; end_reason?: string | null };
      if (shell.ended_at && this.offset !== undefined) return this.end(shell.end_reason ?? "done");
    }
    this.timer = setTimeout(() => this.connect(), this.retry * (0.5 + Math.random()));
    this.retry = Math.min(this.retry * 2, RETRY_MOST_MS);
  }

  private end(reason: string): void {
    if (this.left) return;
    this.left = true;
    this.heard.over(reason);
  }

  private take(data: ArrayBuffer): void {
    const start = Number(new DataView(data).getBigUint64(0));
    const bytes = new Uint8Array(data, 8);
    const end = start + bytes.length;
    this.offset = end;
    this.heard.output(bytes, start < this.oldUntil, () => {
      if (end - this.acked < ACK_EVERY && end < this.oldUntil) return;
      this.acked = end;
      this.tell({ type: "ack", offset: end });
    });
  }

  private told(message: Told): void {
    switch (message.type) {
      case "attached":
        this.retry = RETRY_FIRST_MS;
        this.offset = message.offset;
        this.acked = message.offset;
        this.oldUntil = message.end;
        this.heard.attached(message);
        if (message.lost > 0) this.heard.note(`${message.lost} bytes were not kept`);
        break;
      case "lost":
        this.offset = message.offset;
        this.heard.note(`${message.bytes} bytes were dropped: the output was faster than this page`);
        break;
      case "line":
        this.heard.note(message.state === "lost" ? "The agent’s line is lost; the session goes on by itself when it is back." : "");
        break;
      case "resized":
        this.heard.resized(message.cols, message.rows);
        break;
      case "exit":
        this.end(message.reason === "exited" ? `exited with ${message.code ?? "?"}` : message.reason);
        break;
    }
  }
}
