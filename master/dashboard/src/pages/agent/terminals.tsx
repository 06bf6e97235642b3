// The terminals of one agent, as tabs. Which sessions they are stands in the tab's own storage, so that a reload of the
// page finds them again.
import { useEffect, useState } from "preact/hooks";
import { ask, client } from "../../api/client";
import { fail } from "../../state/toasts";
import { Button, Empty } from "../../ui/kit";
import { Terminal } from "../../terminal/terminal";

type Tab = { id: string; number: number };

const key = (agent: string): string => `terminals:${agent}`;

function stored(agent: string): Tab[] {
  try {
    return JSON.parse(sessionStorage.getItem(key(agent)) ?? "[]") as Tab[];
  } catch {
    return [];
  }
}

export function Terminals({ agent }: { agent: string }) {
  const [tabs, setTabs] = useState(() => stored(agent));
  const [current, setCurrent] = useState(tabs[0]?.id);
  const [opening, setOpening] = useState(false);
  useEffect(() => sessionStorage.setItem(key(agent), JSON.stringify(tabs)), [tabs]);
  const open = async () => {
    setOpening(true);
    try {
      const path = { params: { path: { id: agent } } };
      const shell = await ask(() => client.POST("/api/v1/agents/{id}/shells", { ...path, body: { cols: 80, rows: 24, term: "xterm-256color" } }));
      setTabs((before) => [...before, { id: shell.id, number: Math.max(0, ...before.map((tab) => tab.number)) + 1 }]);
      setCurrent(shell.id);
    } catch (error) {
      fail(error);
    }
    setOpening(false);
  };
  const close = (id: string, end: boolean) => {
    const left = tabs.filter((tab) => tab.id !== id);
    setTabs(left);
    if (current === id) setCurrent(left.at(-1)?.id);
    if (end) ask(() => client.DELETE("/api/v1/shells/{id}", { params: { path: { id } } })).catch(fail);
  };
  return (
    <div class="terminals">
      <div class="termtabs" role="group" aria-label="Terminals">
        {tabs.map((tab) => (
          <span key={tab.id} class={tab.id === current ? "termtab on" : "termtab"}>
            <button type="button" aria-pressed={tab.id === current} onClick={() => setCurrent(tab.id)}>
              Terminal {tab.number}
            </button>
            <button type="button" aria-label={`End terminal ${tab.number}`} title="End this session" onClick={() => close(tab.id, true)}>
              ×
            </button>
          </span>
        ))}
        <Button small onClick={() => void open()} disabled={opening}>
          New terminal
        </Button>
      </div>
      {tabs.length === 0 && (
        <Empty title="No terminal is open here" command={`landline shell ${agent}`}>
          A session outlives this page, the line and the master, and is recorded. From your own terminal:
        </Empty>
      )}
      {tabs.map((tab) => (
        <Terminal key={tab.id} session={tab.id} mode="write" hidden={tab.id !== current} onGone={() => close(tab.id, false)} />
      ))}
    </div>
  );
}
