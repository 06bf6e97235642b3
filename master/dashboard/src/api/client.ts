// Calls of the API, typed by its OpenAPI document. Owns what every call has in common: the CSRF header, and errors as
// `ApiError` with the problem's own words.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/// What went wrong, as the master told it. `away` when the master did not answer at all.
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly offset?: number,
  ) {
    super(detail || title);
  }
}

let csrf: string | undefined;
let stepUp: (() => Promise<boolean>) | undefined;
let signedOut: (() => void) | undefined;

/// The token that the session asks for with every change.
export function setCsrf(token: string | undefined): void {
  csrf = token;
}

/// Who asks for a fresh proof of who one is, and who is told that the session is over.
export function onRefusal(hooks: { stepUp: () => Promise<boolean>; signedOut: () => void }): void {
  ({ stepUp, signedOut } = hooks);
}

export const headers = (): Record<string, string> => (csrf ? { "X-CSRF-Token": csrf } : {});

export const client = createClient<paths>({ baseUrl: "/" });
client.use({
  onRequest({ request }) {
    if (csrf && request.method !== "GET") request.headers.set("X-CSRF-Token", csrf);
    return request;
  },
});

type Answer<T> = { data?: T; error?: unknown; response: Response };

/// The answer's body, or an `ApiError`. The call is a function so that it can be made again after a step-up.
export async function ask<T>(call: () => Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call().catch((cause: unknown) => {
    throw away(cause);
  });
  if (response.ok) return data as T;
  const problem = problemOf(response.status, error);
  if (problem.code === "step_up_required" && stepUp && (await stepUp())) return ask(call);
  if (problem.code === "unauthorized") signedOut?.();
  throw problem;
}

/// A call whose answer is not JSON, or a stream: the bare response.
export async function send(method: string, path: string, body?: unknown, init: RequestInit = {}): Promise<Response> {
  const sent = new Headers(init.headers);
  for (const [name, value] of Object.entries(headers())) sent.set(name, value);
  if (body !== undefined) sent.set("Content-Type", "application/json");
  const request = { ...init, method, headers: sent, body: body === undefined ? null : JSON.stringify(body) };
  const response = await fetch(`/api/v1${path}`, request).catch((cause: unknown) => {
    throw away(cause);
  });
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  const problem = problemOf(response.status, text);
  if (problem.code === "step_up_required" && stepUp && (await stepUp())) return send(method, path, body, init);
  if (problem.code === "unauthorized") signedOut?.();
  throw problem;
}

/// A call outside of the typed ones, with a JSON answer.
export async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await send(method, path, body);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

function away(cause: unknown): ApiError | DOMException {
  if (cause instanceof DOMException && cause.name === "AbortError") return cause;
  return new ApiError(0, "away", "The master does not answer", "It may be restarting; this page goes on by itself.");
}

/// An error from whatever a failed answer held.
export function problemOf(status: number, body: unknown): ApiError {
  let problem = body;
  if (typeof problem === "string") {
    try {
      problem = JSON.parse(problem);
    } catch {
      problem = undefined;
    }
  }
  const { code, title, detail, offset } = (problem ?? {}) as Partial<Schemas["Problem"]>;
  return new ApiError(status, code ?? "unknown", title ?? `The master answered ${status}`, detail ?? "", offset ?? undefined);
}
