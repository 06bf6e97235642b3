// Signing in. The address stays what it was, so that one is back there afterwards.
import { useState } from "preact/hooks";
import { ApiError, json } from "../api/client";
import { signedIn, type Session } from "../state/session";
import { Button, Field } from "../ui/kit";

export function LoginPage() {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [wantsCode, setWantsCode] = useState(false);
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const enter = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      signedIn(await json<Session>("POST", "/login", { name, password, ...(wantsCode ? { code } : {}) }));
    } catch (error) {
      // The same code says that a code is missing, and that it was wrong.
      if (error instanceof ApiError && error.code === "totp_required" && !wantsCode) setWantsCode(true);
      else setProblem(error instanceof Error ? error.message : String(error));
    }
    setBusy(false);
  };
  return (
    <main class="gatepage">
      <form class="card" onSubmit={enter}>
        <Brand />
        <h1>Sign in</h1>
        <Field label="Name">
          <input required autofocus autocomplete="username" value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </Field>
        <Field label="Password">
          <input required type="password" autocomplete="current-password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
        </Field>
        {wantsCode && (
          <Field label="Code of your authenticator">
            <input required autofocus inputMode="numeric" pattern="[0-9 ]{6,7}" autocomplete="one-time-code" value={code} onInput={(event) => setCode(event.currentTarget.value)} />
          </Field>
        )}
        <p class="wrong" role="alert">
          {problem}
        </p>
        <Button type="submit" kind="primary" disabled={busy}>
          {busy ? "One moment…" : "Sign in"}
        </Button>
        <p class="muted">
          No account yet? The first one is made on the master’s host with <code>landline admin create NAME</code>, the others by an administrator.
        </p>
      </form>
    </main>
  );
}

export const Brand = () => (
  <div class="brand">
    <img src="/icon.svg" alt="" width="22" height="22" />
    <span>Landline</span>
  </div>
);
