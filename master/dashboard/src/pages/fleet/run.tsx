// Runs one command line on the chosen agents, after asking, and shows how each ended.
import { useState } from "preact/hooks";
import { Dialog } from "../../ui/dialog";
import { Button, Chip, Field } from "../../ui/kit";
import { runExec } from "../agent/exec-stream";
import { fail } from "../../state/toasts";
import { forEach } from "./bulk";

type Outcome = { text: string; output: string; good: boolean };

const TIMEOUT_S = 60;
/// Of each agent's output, for the page.
const SHOWN = 4_000;

type Props = { ids: string[]; onClose: () => void };

export function RunDialog({ ids, onClose }: Props) {
  const [line, setLine] = useState("");
  const [outcomes, setOutcomes] = useState<Record<string, Outcome>>({});
  const [running, setRunning] = useState(false);
  const one = async (id: string) => {
    let output = "";
    const put = (outcome: Omit<Outcome, "output">) => setOutcomes((before) => ({ ...before, [id]: { ...outcome, output } }));
    try {
      const end = await runExec(id, { shell: line, timeout_s: TIMEOUT_S, output_max: 65_536 }, (piece) => {
        output = (output + piece.text).slice(-SHOWN);
      });
      put(end);
    } catch (error) {
      put({ text: error instanceof Error ? error.message : String(error), good: false });
      throw error;
    }
  };
  const run = async (event: Event) => {
    event.preventDefault();
    setRunning(true);
    await forEach(ids, "Ran", one).catch(fail);
    setRunning(false);
  };
  return (
    <Dialog title={`Run on ${ids.length} agents`} onClose={onClose} class="wide">
      <form onSubmit={run}>
        <Field label="Command line" hint={`In the shell of each agent's user, ${TIMEOUT_S} s at most; each owner's policy decides.`}>
          <input required class="mono" autofocus placeholder="uptime" value={line} onInput={(event) => setLine(event.currentTarget.value)} />
        </Field>
        <ul class="outcomes">
          {Object.entries(outcomes).map(([id, outcome]) => (
            <li key={id}>
              <Chip tone={outcome.good ? "good" : "bad"}>{id}</Chip> <span>{outcome.text}</span>
              {outcome.output && <pre>{outcome.output}</pre>}
            </li>
          ))}
        </ul>
        <div class="buttons">
          <Button onClick={onClose}>Close</Button>
          <Button type="submit" kind="danger" disabled={running}>
            {running ? "Running…" : `Run on ${ids.length}`}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
