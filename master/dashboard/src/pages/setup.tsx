// The first administrator, by the one-time link that the master prints. The token stands behind the # and so never leaves
// this page but in the body of the call.
import { useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { ApiError, json } from "../api/client";
import { signedIn, type Session } from "../state/session";
import { inform } from "../state/toasts";
import { Button, Empty, Field } from "../ui/kit";
import { Brand } from "./login";

const PASSWORD_MIN = 10;

export function SetupPage() {
  const [, go] = useLocation();
  const [token] = useState(() => location.hash.slice(1));
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [problem, setProblem] = useState("");
  const make = async (event: Event) => {
    event.preventDefault();
    if (password !== again) return setProblem("The two passwords differ.");
    try {
      signedIn(await json<Session>("POST", "/setup", { token, name, password }));
      history.replaceState(null, "", "/fleet");
      go("/fleet", { replace: true });
      inform("Welcome", "Turn on TOTP under Settings: a password alone is little for this.");
    } catch (error) {
      const over = error instanceof ApiError && error.status === 404;
      setProblem(over ? "An administrator exists already. Sign in, or ask them for an account." : String((error as Error).message));
    }
  };
  return (
    <main class="gatepage">
      <form class="card" onSubmit={make}>
        <Brand />
        <h1>The first administrator</h1>
        {token ? (
          <>
            <Field label="Name">
              <input required autofocus autocomplete="username" value={name} onInput={(event) => setName(event.currentTarget.value)} />
            </Field>
            <Field label="Password" hint={`${PASSWORD_MIN} characters or more; a sentence is fine.`}>
              <input required type="password" minLength={PASSWORD_MIN} autocomplete="new-password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
            </Field>
            <Field label="Password again">
              <input required type="password" autocomplete="new-password" value={again} onInput={(event) => setAgain(event.currentTarget.value)} />
            </Field>
            <p class="wrong" role="alert">
              {problem}
            </p>
            <Button type="submit" kind="primary">
              Create
            </Button>
          </>
        ) : (
          <Empty title="The link is not whole" command="landline admin create NAME">
            Open the whole link that the master printed at its start, with what stands behind the #. Or on the master’s host:
          </Empty>
        )}
      </form>
    </main>
  );
}
