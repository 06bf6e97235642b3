// Tokens for programs: what they may do, until when; made with a secret that is shown once.
import { useState } from "preact/hooks";
import { ask, client, type Schemas } from "../../api/client";
import { useLoad } from "../../state/load";
import { may, session } from "../../state/session";
import { fail } from "../../state/toasts";
import { Button, Chip, Copyable, Empty, Failed, Field, Moment, Skeleton } from "../../ui/kit";

const DAY_S = 86_400;

export function Tokens() {
  const list = () => ask(() => client.GET("/api/v1/tokens", { params: { query: { limit: 500 } } }));
  const { data, problem, reload } = useLoad(list, []);
  const revoke = (id: string) => ask(() => client.DELETE("/api/v1/tokens/{id}", { params: { path: { id } } })).then(reload, fail);
  return (
    <>
      <h2>Tokens</h2>
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !data ? (
        <Skeleton rows={4} />
      ) : data.items.length === 0 ? (
        <Empty title="No tokens" command="landline token create panel --permission agents:read">
          A token lets a program call the API. Make one below, or from your terminal:
        </Empty>
      ) : (
        <div class="scroll">
          <table class="table stack">
            <thead>
              <tr>
                <th>Name</th>
                <th>May</th>
                <th class="wide">Only agents with</th>
                <th>Until</th>
                <th>
                  <span class="quiet">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.items.map((token) => (
                <tr key={token.id}>
                  <td>{token.name}</td>
                  <td class="permissions">{token.permissions.join(" ")}</td>
                  <td class="wide mono">{token.selector || "all"}</td>
                  <td>{token.revoked_at ? <Chip tone="idle">revoked</Chip> : <Moment time={token.expires_at} />}</td>
                  <td class="num">
                    {may("tokens:write") && !token.revoked_at && (
                      <Button small kind="plain" onClick={() => void revoke(token.id)}>
                        Revoke
                      </Button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {may("tokens:write") && <NewToken made={reload} />}
    </>
  );
}

function NewToken({ made }: { made: () => void }) {
  const [name, setName] = useState("");
  const [days, setDays] = useState(30);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(["agents:read"]));
  const [secret, setSecret] = useState<string>();
  const make = async (event: Event) => {
    event.preventDefault();
    try {
      const permissions = [...chosen] as Schemas["PermissionSchema"][];
      const token = await ask(() => client.POST("/api/v1/tokens", { body: { name, permissions, expires_in_s: days * DAY_S } }));
      setSecret(token.secret);
      made();
    } catch (error) {
      fail(error);
    }
  };
  const toggle = (permission: string, on: boolean) => {
    const next = new Set(chosen);
    if (on) next.add(permission);
    else next.delete(permission);
    setChosen(next);
  };
  return (
    <form class="card" onSubmit={make}>
      <div class="inline-form">
        <Field label="Name of the token">
          <input required maxLength={100} placeholder="panel" value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </Field>
        <Field label="Days">
          <input type="number" min={1} max={90} value={days} onInput={(event) => setDays(Number(event.currentTarget.value))} />
        </Field>
      </div>
      <fieldset class="allow">
        <legend>What it may do; never more than you may</legend>
        {session.value?.permissions.map((permission) => (
          <label key={permission} class="check">
            <input type="checkbox" checked={chosen.has(permission)} onChange={(event) => toggle(permission, event.currentTarget.checked)} /> {permission}
          </label>
        ))}
      </fieldset>
      <Button type="submit" kind="primary" disabled={chosen.size === 0}>
        Make a token
      </Button>
      {secret && (
        <>
          <p>It is shown once:</p>
          <Copyable text={secret} secret />
        </>
      )}
    </form>
  );
}
