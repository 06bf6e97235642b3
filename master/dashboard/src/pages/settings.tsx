// One's own account: password, TOTP, sessions; the look; what runs here.
import { useState } from "preact/hooks";
import { json, type Schemas } from "../api/client";
import { useLoad } from "../state/load";
import { session, signedOut } from "../state/session";
import { choose, theme, type Theme } from "../state/theme";
import { fail, inform } from "../state/toasts";
import { Button, Field, Head, Moment, Skeleton } from "../ui/kit";
import { Totp } from "./settings/totp";

type OwnSession = Schemas["OperatorSession"];

export const SettingsPage = () => (
  <section class="page">
    <Head title="Settings">
      <Button onClick={() => void json("DELETE", "/session").then(signedOut, fail)}>Sign out</Button>
    </Head>
    <div class="cards">
      <Look />
      <Password />
      <Totp />
    </div>
    <Sessions />
    <About />
  </section>
);

const Look = () => (
  <div class="card">
    <h2>Theme</h2>
    <div class="segmented" role="group" aria-label="Theme">
      {(["system", "light", "dark"] as Theme[]).map((each) => (
        <button key={each} type="button" aria-pressed={theme.value === each} onClick={() => choose(each)}>
          {each}
        </button>
      ))}
    </div>
  </div>
);

function Password() {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const change = async (event: Event) => {
    event.preventDefault();
    try {
      await json("POST", "/session/password", { current, new: next });
      setCurrent("");
      setNext("");
      inform("Your password is changed", "Your other sessions have ended.");
    } catch (error) {
      fail(error);
    }
  };
  return (
    <form class="card" onSubmit={change}>
      <h2>Password</h2>
      <input type="hidden" autocomplete="username" value={session.value?.operator.name ?? ""} />
      <Field label="Current password">
        <input required type="password" autocomplete="current-password" value={current} onInput={(event) => setCurrent(event.currentTarget.value)} />
      </Field>
      <Field label="New password">
        <input required type="password" minLength={10} autocomplete="new-password" value={next} onInput={(event) => setNext(event.currentTarget.value)} />
      </Field>
      <Button type="submit">Change</Button>
    </form>
  );
}

function Sessions() {
  const { data, reload } = useLoad(() => json<{ items: OwnSession[] }>("GET", "/session/mine"), []);
  return (
    <>
      <h2>Where you are signed in</h2>
      {!data ? (
        <Skeleton rows={2} />
      ) : (
        <div class="scroll">
          <table class="table stack">
            <thead>
              <tr>
                <th>Since</th>
                <th>Last used</th>
                <th>From</th>
                <th class="wide">With</th>
                <th>
                  <span class="quiet">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.items.map((each) => (
                <tr key={each.id}>
                  <td>
                    <Moment time={each.created_at} />
                  </td>
                  <td>
                    <Moment time={each.seen_at} />
                  </td>
                  <td class="mono">{each.source ?? "–"}</td>
                  <td class="wide clip" title={each.user_agent ?? undefined}>
                    {each.user_agent ?? "–"}
                  </td>
                  <td class="num">
                    {each.current ? (
                      "this one"
                    ) : (
                      <Button small kind="plain" onClick={() => void json("DELETE", `/session/mine/${each.id}`).then(reload, fail)}>
                        End
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function About() {
  const { data } = useLoad(async () => ((await (await fetch("/api/v1/openapi.json")).json()) as { info: { version: string } }).info, []);
  return (
    <p class="muted">
      Landline {data?.version ?? ""}, signed in as {session.value?.operator.name} ({session.value?.operator.role}). The API is described at{" "}
      <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.
    </p>
  );
}
