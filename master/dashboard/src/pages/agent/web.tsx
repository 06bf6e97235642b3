// One click to a machine's own page. Where it is, is remembered for each agent.
import { useState } from "preact/hooks";
import { openWebUi } from "../../tunnels/windows";
import { Dialog } from "../../ui/dialog";
import { Button, Field } from "../../ui/kit";
import { Icon } from "../../ui/icon";

type Where = { scheme: "http" | "https"; host: string; port: number };

const USUAL: Where = { scheme: "https", host: "localhost", port: 443 };
const key = (agent: string): string => `web:${agent}`;

function remembered(agent: string): Where | undefined {
  try {
    return JSON.parse(localStorage.getItem(key(agent)) ?? "null") as Where | undefined;
  } catch {
    return undefined;
  }
}

export function OpenWebUi({ agent }: { agent: string }) {
  const [asked, setAsked] = useState(false);
  const known = remembered(agent);
  const [where, setWhere] = useState<Where>(known ?? USUAL);
  const open = (chosen: Where) => void openWebUi(agent, chosen.host, chosen.port, chosen.scheme);
  return (
    <span class="joined">
      <Button kind="primary" onClick={() => open(where)} title={`${where.scheme}://${where.host}:${where.port}`}>
        <Icon name="external" /> Open web UI
      </Button>
      <Button kind="primary" aria-label="Where the web UI is" onClick={() => setAsked(true)}>
        :{where.port}
      </Button>
      {asked && (
        <Dialog title={`Where is the web UI of ${agent}?`} onClose={() => setAsked(false)}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              localStorage.setItem(key(agent), JSON.stringify(where));
              setAsked(false);
              open(where);
            }}
          >
            <Field label="Scheme">
              <select value={where.scheme} onChange={(event) => setWhere({ ...where, scheme: event.currentTarget.value as Where["scheme"] })}>
                <option>https</option>
                <option>http</option>
              </select>
            </Field>
            <div class="pair">
              <Field label="Host, as the agent sees it">
                <input required value={where.host} onInput={(event) => setWhere({ ...where, host: event.currentTarget.value })} />
              </Field>
              <Field label="Port">
                <input required type="number" min={1} max={65535} value={where.port} onInput={(event) => setWhere({ ...where, port: Number(event.currentTarget.value) })} />
              </Field>
            </div>
            <div class="buttons">
              <Button onClick={() => setAsked(false)}>Cancel</Button>
              <Button type="submit" kind="primary">
                Open
              </Button>
            </div>
          </form>
        </Dialog>
      )}
    </span>
  );
}
