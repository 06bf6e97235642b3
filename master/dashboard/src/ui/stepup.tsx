// Asks for the password or a code again before a shell or an exec, where the last proof is too old.
import { useState } from "preact/hooks";
import { send } from "../api/client";
import { session, stepUpAsked } from "../state/session";
import { Dialog } from "./dialog";
import { Button, Field } from "./kit";

export function StepUp() {
  const [secret, setSecret] = useState("");
  const [problem, setProblem] = useState("");
  const answer = stepUpAsked.value;
  if (!answer) return null;
  const totp = session.value?.operator.totp ?? false;
  const done = (proved: boolean) => {
    setSecret("");
    setProblem("");
    answer(proved);
  };
  const prove = async (event: Event) => {
    event.preventDefault();
    try {
      await send("POST", "/session/step-up", totp ? { code: secret } : { password: secret });
      done(true);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <Dialog title="Is it still you?" onClose={() => done(false)}>
      <form onSubmit={prove}>
        <p class="said">Shells and commands ask again when the last proof is older than an hour.</p>
        <Field label={totp ? "Code of your authenticator" : "Password"}>
          <input
            type={totp ? "text" : "password"}
            inputMode={totp ? "numeric" : undefined}
            autocomplete={totp ? "one-time-code" : "current-password"}
            value={secret}
            required
            autofocus
            onInput={(event) => setSecret(event.currentTarget.value)}
          />
        </Field>
        {problem && (
          <p class="wrong" role="alert">
            {problem}
          </p>
        )}
        <div class="buttons">
          <Button onClick={() => done(false)}>Cancel</Button>
          <Button type="submit" kind="primary">
            Go on
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
