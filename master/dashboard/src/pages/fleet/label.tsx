// Asks for one label to set on many agents.
import { useState } from "preact/hooks";
import { Dialog } from "../../ui/dialog";
import { Button, Field } from "../../ui/kit";

const WORD = "[A-Za-z0-9][A-Za-z0-9._\\/\\-]{0,62}";

type Props = { count: number; onDone: (name: string, value: string) => void };

export function LabelDialog({ count, onDone }: Props) {
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  return (
    <Dialog title={`Label ${count} agents`} onClose={() => onDone("", "")}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onDone(name, value);
        }}
      >
        <div class="pair">
          <Field label="Name">
            <input required pattern={WORD} placeholder="site" autofocus value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </Field>
          <Field label="Value" hint="Empty removes the label.">
            <input pattern={WORD} placeholder="berlin" value={value} onInput={(event) => setValue(event.currentTarget.value)} />
          </Field>
        </div>
        <div class="buttons">
          <Button onClick={() => onDone("", "")}>Cancel</Button>
          <Button type="submit" kind="primary">
            {value ? "Set" : "Remove"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
