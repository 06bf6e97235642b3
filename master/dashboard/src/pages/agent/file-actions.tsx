// What can be done to one file or folder: rename, permissions, delete.
import { useState } from "preact/hooks";
import { join, operate, type Entry } from "../../files/calls";
import { fail } from "../../state/toasts";
import { Confirm, Dialog } from "../../ui/dialog";
import { Button, Field } from "../../ui/kit";

type Props = { agent: string; folder: string; entry: Entry; changed: () => void };

export function FileActions({ agent, folder, entry, changed }: Props) {
  const [asked, setAsked] = useState<"rename" | "mode" | "remove">();
  if (entry.name_base64) return null;
  const path = join(folder, entry.name);
  const done = (work?: Promise<unknown>) => {
    setAsked(undefined);
    work?.then(changed, fail);
  };
  return (
    <span class="row-actions">
      <Button small kind="plain" onClick={() => setAsked("rename")}>
        Rename
      </Button>
      <Button small kind="plain" onClick={() => setAsked("mode")}>
        Mode
      </Button>
      <Button small kind="plain" onClick={() => setAsked("remove")} aria-label={`Delete ${entry.name}`}>
        Delete
      </Button>
      {asked === "rename" && (
        <Ask title={`Rename ${entry.name}`} label="New name" value={entry.name} action="Rename" onDone={(to) => done(to === undefined ? undefined : operate(agent, "rename", { path, to: join(folder, to) }))} />
      )}
      {asked === "mode" && (
        <Ask title={`Permissions of ${entry.name}`} label="Mode, octal" value={entry.mode} pattern="[0-7]{3,4}" action="Set" onDone={(mode) => done(mode === undefined ? undefined : operate(agent, "chmod", { path, mode }))} />
      )}
      {asked === "remove" && (
        <Confirm title={`Delete ${entry.name}?`} action="Delete" danger onDone={(yes) => done(yes ? operate(agent, "remove", { path, recursive: entry.kind === "folder" }) : undefined)}>
          {entry.kind === "folder" ? "The folder and everything in it is gone for good." : "The file is gone for good."}
        </Confirm>
      )}
    </span>
  );
}

type AskProps = { title: string; label: string; value: string; action: string; pattern?: string; onDone: (value: string | undefined) => void };

export function Ask({ title, label, value: first, action, pattern, onDone }: AskProps) {
  const [value, setValue] = useState(first);
  return (
    <Dialog title={title} onClose={() => onDone(undefined)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onDone(value);
        }}
      >
        <Field label={label}>
          <input required autofocus pattern={pattern} value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </Field>
        <div class="buttons">
          <Button onClick={() => onDone(undefined)}>Cancel</Button>
          <Button type="submit" kind="primary">
            {action}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
