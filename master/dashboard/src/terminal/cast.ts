// Reads a recording: asciicast v2. Pure.

export type CastEvent = { at: number; kind: "output"; text: string } | { at: number; kind: "resize"; cols: number; rows: number };
export type Cast = { cols: number; rows: number; events: CastEvent[]; length: number };

/// A torn last line, as a crash leaves it, is left out; events of other codes are nothing to show.
export function readCast(text: string): Cast {
  const [first = "", ...rest] = text.split("\n");
  const header = parse(first) as { width?: number; height?: number } | undefined;
  const events: CastEvent[] = [];
  for (const line of rest) {
    const event = parse(line);
    if (!Array.isArray(event)) continue;
    const [at, code, data] = event as [unknown, unknown, unknown];
    if (typeof at !== "number" || typeof data !== "string") continue;
    if (code === "o") events.push({ at, kind: "output", text: data });
    const size = code === "r" ? /^(\d+)x(\d+)$/.exec(data) : null;
    if (size) events.push({ at, kind: "resize", cols: Number(size[1]), rows: Number(size[2]) });
  }
  return { cols: header?.width ?? 80, rows: header?.height ?? 24, events, length: events.at(-1)?.at ?? 0 };
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
