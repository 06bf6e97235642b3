// Runs a program on an agent and reads its output as it comes. Owns the NDJSON of `exec`; shows nothing.
import { send, type Schemas } from "../../api/client";

export type Piece = { stream: "stdout" | "stderr" | "note"; text: string };
export type End = { text: string; good: boolean };

/// Runs until the program ended. Aborting `signal` hangs up; the program goes on.
export async function runExec(
  agent: string,
  call: Partial<Schemas["ExecCall"]>,
  heard: (piece: Piece) => void,
  signal?: AbortSignal,
): Promise<End> {
  const response = await send("POST", `/agents/${agent}/exec`, call, signal ? { signal } : {});
  let end: End = { text: "the answer broke off", good: false };
  for await (const line of lines(response)) {
    const message = JSON.parse(line) as Schemas["ExecLine"];
    switch (message.type) {
      case "stdout":
      case "stderr":
        heard({ stream: message.type, text: message.data ?? decode(message.data_base64 ?? "") });
        break;
      case "line":
        heard({ stream: "note", text: message.state === "lost" ? "[the line was lost; waiting]\n" : "[the line is back]\n" });
        break;
      case "exit":
        end = outcome(message);
        break;
      case "error":
        end = { text: message.message, good: false };
        break;
      case "started":
        break;
    }
  }
  return end;
}

function outcome(exit: Schemas["Exit"]): End {
  const cut = exit.truncated ? ", output cut" : "";
  if (exit.killed) return { text: `killed: ${exit.killed}${cut}`, good: false };
  if (exit.signal != null) return { text: `signal ${exit.signal}${cut}`, good: false };
  return { text: `exit code ${exit.code ?? "?"}${cut}`, good: exit.code === 0 };
}

function decode(base64: string): string {
  return new TextDecoder().decode(Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)));
}

/// The lines of a streamed answer, without their ends.
export async function* lines(response: Response): AsyncGenerator<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop() ?? "";
    yield* parts.filter((part) => part !== "");
  }
  if (rest) yield rest;
}
