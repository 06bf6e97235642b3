// Numbers and times as people read them. Pure.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 10 ? 1 : 0)} ${UNITS[unit]}`;
}

export const percent = (value: number | null | undefined): string => (value == null ? "–" : `${Math.round(value)} %`);
export const load = (value: number | null | undefined): string => (value == null ? "–" : value.toFixed(2));

export function rtt(ms: number | null | undefined): string {
  if (ms == null) return "–";
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

/// `12 s`, `5 min`, `3 h`, `8 d`.
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3_600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

/// `29:58`, `1:04:09`.
export function clock(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const minutes = Math.floor(s / 60) % 60;
  return s >= 3_600 ? `${Math.floor(s / 3_600)}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

export const secondsUntil = (time: string, now = Date.now()): number => (Date.parse(time) - now) / 1_000;
export const ago = (time: string | null | undefined, now = Date.now()): string => (time ? span(-secondsUntil(time, now)) : "–");

export function moment(time: string | null | undefined): string {
  if (!time) return "–";
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")} `;
  return day + date.toTimeString().slice(0, 8);
}

/// A code word for people: `heartbeat_lost` becomes `heartbeat lost`.
export const words = (code: string): string => code.replaceAll("_", " ");

/// Somebody as the API names them, with the random part of a token's id cut short.
export const who = (owner: string): string => owner.replace(/^(token|operator):([0-9a-f]{8})[0-9a-f-]+$/, "$1 $2");
