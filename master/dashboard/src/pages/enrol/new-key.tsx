// Makes an enrolment key and shows the line to paste, once.
import { useState } from "preact/hooks";
import { json, type Schemas } from "../../api/client";
import { fail } from "../../state/toasts";
import { Button, Chip, Copyable, Field } from "../../ui/kit";

type Made = Schemas["CreatedKey"];

const ALLOW = [
  { name: "shell", what: "terminals" },
  { name: "exec", what: "command lines" },
  { name: "files", what: "files" },
] as const;
const TIMES = [
  { ttl_s: 3_600, what: "1 hour" },
  { ttl_s: 86_400, what: "1 day" },
  { ttl_s: 604_800, what: "7 days" },
];

export function NewKey({ made }: { made: () => void }) {
  const [name, setName] = useState("");
  const [uses, setUses] = useState(1);
  const [ttl, setTtl] = useState(3_600);
  const [labels, setLabels] = useState("");
  const [approval, setApproval] = useState(false);
  const [allow, setAllow] = useState<ReadonlySet<string>>(new Set());
  const [key, setKey] = useState<Made>();
  const make = async (event: Event) => {
    event.preventDefault();
    const pairs = labels.split(",").map((pair) => pair.trim()).filter(Boolean).map((pair) => pair.split("="));
    const body = {
      ...(name ? { name } : {}),
      uses,
      ttl_s: ttl,
      labels: Object.fromEntries(pairs.map(([word = "", value = ""]) => [word, value])),
      approval,
      allow: [...allow],
    };
    try {
      setKey(await json<Made>("POST", "/enrolment-keys", body));
      made();
    } catch (error) {
      fail(error);
    }
  };
  const toggle = (word: string, on: boolean) => {
    const next = new Set(allow);
    if (on) next.add(word);
    else next.delete(word);
    setAllow(next);
  };
  return (
    <form class="card" onSubmit={make}>
      <h2>Add machines</h2>
      <div class="inline-form">
        <Field label="Name">
          <input placeholder="berlin office" maxLength={100} value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </Field>
        <Field label="Machines">
          <input type="number" min={1} max={10_000} value={uses} onInput={(event) => setUses(Number(event.currentTarget.value))} />
        </Field>
        <Field label="Valid for">
          <select value={ttl} onChange={(event) => setTtl(Number(event.currentTarget.value))}>
            {TIMES.map(({ ttl_s, what }) => (
              <option key={ttl_s} value={ttl_s}>
                {what}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Labels">
          <input placeholder="site=berlin,role=fw" value={labels} onInput={(event) => setLabels(event.currentTarget.value)} />
        </Field>
      </div>
      <fieldset class="allow">
        <legend>What the master may do there. Ports of the machine itself and its figures are always open; the owner can change all of it on the machine.</legend>
        {ALLOW.map(({ name: word, what }) => (
          <label key={word} class="check">
            <input type="checkbox" checked={allow.has(word)} onChange={(event) => toggle(word, event.currentTarget.checked)} /> {what}
          </label>
        ))}
        <label class="check">
          <input type="checkbox" checked={approval} onChange={(event) => setApproval(event.currentTarget.checked)} /> ask me before each is let in
        </label>
      </fieldset>
      <Button type="submit" kind="primary">
        Make the line
      </Button>
      {key && <Line made={key} />}
    </form>
  );
}

const Line = ({ made }: { made: Made }) => (
  <div class="made" data-testid="made">
    <p>
      <b>Paste this on the machine, as root.</b> It is shown once. The machine appears on the Fleet page by itself.
    </p>
    <Copyable text={made.commands.curl} secret />
    <details>
      <summary>Without curl</summary>
      <Copyable text={made.commands.plain} secret />
    </details>
    <p class="platforms">
      {made.platforms.map((platform) => (
        <Chip key={platform.os + platform.arch} tone={platform.available ? "good" : "idle"} title={platform.how ?? undefined}>
          {platform.os} {platform.arch}
          {!platform.available && platform.how ? `: ${platform.how}` : ""}
        </Chip>
      ))}
    </p>
  </div>
);
