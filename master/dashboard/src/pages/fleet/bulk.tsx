// What can be done to the chosen agents at once: suspend, resume, label, run. Each asks first.
import { useState } from "preact/hooks";
import { ask, client } from "../../api/client";
import { agent } from "../../state/fleet";
import { may } from "../../state/session";
import { fail, inform } from "../../state/toasts";
import { Confirm } from "../../ui/dialog";
import { Button } from "../../ui/kit";
import { LabelDialog } from "./label";
import { RunDialog } from "./run";

/// Calls at once.
const AT_ONCE = 6;

/// Carries `work` out for each, a few at a time, and says how many failed.
export async function forEach(ids: string[], what: string, work: (id: string) => Promise<unknown>): Promise<void> {
  const waiting = [...ids];
  let failed = 0;
  const lane = async () => {
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      try {
        await work(id);
      } catch (error) {
        failed += 1;
        if (failed <= 3) fail(error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  inform(`${what}: ${ids.length - failed} of ${ids.length}`, failed > 0 ? `${failed} were refused.` : "");
}

const setStatus = (status: "active" | "suspended") => (id: string) =>
  ask(() => client.PATCH("/api/v1/agents/{id}", { params: { path: { id } }, body: { status } }));

type Props = { chosen: ReadonlySet<string>; clear: () => void };

export function Bulk({ chosen, clear }: Props) {
  const [asked, setAsked] = useState<"suspend" | "label" | "run">();
  const ids = [...chosen];
  if (ids.length === 0) return null;
  const close = () => setAsked(undefined);
  return (
    <div class="bulk" role="toolbar" aria-label="For the chosen agents">
      <strong>{ids.length} chosen</strong>
      {may("agents:write") && (
        <>
          <Button small onClick={() => setAsked("suspend")}>
            Suspend
          </Button>
          <Button small onClick={() => void forEach(ids, "Resumed", setStatus("active"))}>
            Resume
          </Button>
          <Button small onClick={() => setAsked("label")}>
            Label
          </Button>
        </>
      )}
      {may("exec:run") && (
        <Button small onClick={() => setAsked("run")}>
          Run a command
        </Button>
      )}
      <Button small kind="plain" onClick={clear}>
        Clear
      </Button>
      {asked === "suspend" && (
        <Confirm
          title={`Suspend ${ids.length} agents?`}
          action="Suspend"
          danger
          onDone={(yes) => {
            close();
            if (yes) void forEach(ids, "Suspended", setStatus("suspended"));
          }}
        >
          Their lines, shells and tunnels end at once, and they are not let in until they are resumed.
        </Confirm>
      )}
      {asked === "label" && (
        <LabelDialog
          count={ids.length}
          onDone={(name, value) => {
            close();
            if (name) void forEach(ids, "Labelled", (id) => label(id, name, value));
          }}
        />
      )}
      {asked === "run" && <RunDialog ids={ids} onClose={close} />}
    </div>
  );
}

/// Sets one label, or removes it where there is no value; the others stay.
function label(id: string, name: string, value: string) {
  const labels = { ...agent(id)?.labels };
  if (value) labels[name] = value;
  else delete labels[name];
  return ask(() => client.PATCH("/api/v1/agents/{id}", { params: { path: { id } }, body: { labels } }));
}
