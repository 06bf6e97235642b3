// An agent's labels, and changing them.
import { useState } from "preact/hooks";
import { ask, client, type Schemas } from "../../api/client";
import { may } from "../../state/session";
import { fail } from "../../state/toasts";
import { LabelDialog } from "../fleet/label";
import { Button } from "../../ui/kit";

export function Labels({ agent }: { agent: Schemas["Agent"] }) {
  const [asked, setAsked] = useState(false);
  const set = (labels: Record<string, string>) =>
    ask(() => client.PATCH("/api/v1/agents/{id}", { params: { path: { id: agent.id } }, body: { labels } })).catch(fail);
  const without = (name: string) => Object.fromEntries(Object.entries(agent.labels).filter(([other]) => other !== name));
  const entries = Object.entries(agent.labels);
  return (
    <div class="card">
      <h2>Labels</h2>
      <div class="labels">
        {entries.length === 0 && <span class="muted">None. Labels group machines: site=berlin, role=firewall.</span>}
        {entries.map(([name, value]) => (
          <span key={name} class="label">
            {name}={value}
            {may("agents:write") && (
              <button type="button" aria-label={`Remove label ${name}`} onClick={() => void set(without(name))}>
                ×
              </button>
            )}
          </span>
        ))}
      </div>
      {may("agents:write") && (
        <Button small onClick={() => setAsked(true)}>
          Add a label
        </Button>
      )}
      {asked && (
        <LabelDialog
          count={1}
          onDone={(name, value) => {
            setAsked(false);
            if (name) void set(value ? { ...agent.labels, [name]: value } : without(name));
          }}
        />
      )}
    </div>
  );
}
