// Who is signed in. Owns the session's state and what it may do; the pages for signing in are elsewhere.
import { computed, signal } from "@preact/signals";
import { onRefusal, problemOf, setCsrf } from "../api/client";

export type Session = {
  operator: { id: string; name: string; role: string; selector?: string | null; totp: boolean };
  permissions: string[];
  csrf: string;
  created_at: string;
  expires_at: string;
  stepped_up_until?: string | null;
};

export type SignIn = "unknown" | "in" | "out";

export const session = signal<Session | undefined>(undefined);
export const signIn = signal<SignIn>("unknown");
/// A question for a fresh proof is open; the answer goes to whoever asked.
export const stepUpAsked = signal<((proved: boolean) => void) | undefined>(undefined);

/// Whether the one who is signed in may do this at all. The master has the last word.
export const may = (permission: string): boolean => permissions.value.has(permission);
const permissions = computed(() => new Set(session.value?.permissions ?? []));

export function signedIn(found: Session): void {
  setCsrf(found.csrf);
  session.value = found;
  signIn.value = "in";
}

export function signedOut(): void {
  setCsrf(undefined);
  session.value = undefined;
  signIn.value = "out";
}

/// Asks the master who this is. False when it did not answer.
export async function whoAmI(): Promise<boolean> {
  const response = await fetch("/api/v1/session").catch(() => undefined);
  if (!response) return false;
  if (response.ok) signedIn((await response.json()) as Session);
  else if (response.status === 401) signedOut();
  else if (response.status >= 500) return false;
  else throw problemOf(response.status, await response.text());
  return true;
}

onRefusal({
  signedOut,
  stepUp: () =>
    new Promise((resolve) => {
      stepUpAsked.value?.(false);
      stepUpAsked.value = (proved) => {
        stepUpAsked.value = undefined;
        resolve(proved);
      };
    }),
});
