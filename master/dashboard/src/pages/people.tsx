// Operators with their roles, and tokens for programs.
import { useState } from "preact/hooks";
import { json, type Schemas } from "../api/client";
import { useLoad } from "../state/load";
import { may, session } from "../state/session";
import { fail } from "../state/toasts";
import { Confirm } from "../ui/dialog";
import { Button, Chip, Failed, Head, Moment, Skeleton } from "../ui/kit";
import { NewOperator, ROLES } from "./people/new-operator";
import { Tokens } from "./people/tokens";

type Operator = Schemas["Operator"];

export const PeoplePage = () => (
  <section class="page">
    <Head title="People and tokens" />
    <Operators />
    {may("tokens:read") && <Tokens />}
  </section>
);

function Operators() {
  const { data, problem, reload } = useLoad(() => json<{ items: Operator[] }>("GET", "/operators"), []);
  const [removing, setRemoving] = useState<Operator>();
  const writes = may("operators:write");
  const change = (id: string, body: object) => json("PATCH", `/operators/${id}`, body).then(reload, (error: unknown) => (fail(error), reload()));
  if (problem) return <Failed problem={problem} retry={reload} />;
  if (!data) return <Skeleton rows={4} />;
  return (
    <>
      <div class="scroll">
        <table class="table stack">
          <thead>
            <tr>
              <th>Name</th>
              <th>Role</th>
              <th>Only agents with</th>
              <th>TOTP</th>
              <th class="wide">Last signed in</th>
              <th>
                <span class="quiet">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {data.items.map((operator) => (
              <tr key={operator.id}>
                <td>
                  {operator.name}
                  {operator.id === session.value?.operator.id && <small> you</small>}
                </td>
                <td>
                  {writes ? (
                    <select aria-label={`Role of ${operator.name}`} value={operator.role} onChange={(event) => void change(operator.id, { role: event.currentTarget.value })}>
                      {ROLES.map((role) => (
                        <option key={role}>{role}</option>
                      ))}
                    </select>
                  ) : (
                    operator.role
                  )}
                </td>
                <td class="mono">{operator.selector || "all"}</td>
                <td>{operator.totp ? <Chip tone="good">on</Chip> : <Chip tone="warn">off</Chip>}</td>
                <td class="wide">
                  <Moment time={operator.last_login_at} />
                </td>
                <td class="num">
                  {writes && operator.id !== session.value?.operator.id && (
                    <Button small kind="plain" onClick={() => setRemoving(operator)}>
                      Remove
                    </Button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {writes && <NewOperator made={reload} />}
      {removing && (
        <Confirm
          title={`Remove ${removing.name}?`}
          action="Remove"
          danger
          onDone={(yes) => {
            setRemoving(undefined);
            if (yes) void json("DELETE", `/operators/${removing.id}`).then(reload, fail);
          }}
        >
          Every session of theirs ends within seconds. What they did stays in the audit trail.
        </Confirm>
      )}
    </>
  );
}
