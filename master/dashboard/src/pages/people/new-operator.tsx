// Makes an operator with a first password, which they change under Settings.
import { useState } from "preact/hooks";
import { json } from "../../api/client";
import { fail, inform } from "../../state/toasts";
import { Button, Field } from "../../ui/kit";

export const ROLES = ["viewer", "operator", "admin"];

export function NewOperator({ made }: { made: () => void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [role, setRole] = useState("operator");
  const [selector, setSelector] = useState("");
  const add = async (event: Event) => {
    event.preventDefault();
    try {
      await json("POST", "/operators", { name, password, role, ...(selector ? { selector } : {}) });
      inform(`${name} may sign in`);
      setName("");
      setPassword("");
      made();
    } catch (error) {
      fail(error);
    }
  };
  return (
    <form class="inline-form" onSubmit={add}>
      <Field label="Name">
        <input required autocomplete="off" value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </Field>
      <Field label="First password">
        <input required type="password" minLength={10} autocomplete="new-password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
      </Field>
      <Field label="Role">
        <select value={role} onChange={(event) => setRole(event.currentTarget.value)}>
          {ROLES.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </Field>
      <Field label="Only agents with">
        <input placeholder="site=berlin" value={selector} onInput={(event) => setSelector(event.currentTarget.value)} />
      </Field>
      <Button type="submit" kind="primary">
        Add
      </Button>
    </form>
  );
}
