// Adding machines: a key with its one line to paste, agents that wait for approval, keys that exist.
import { json, type Schemas } from "../api/client";
import { useLoad, useReloadOn } from "../state/load";
import { may } from "../state/session";
import { fail, inform } from "../state/toasts";
import { Button, Chip, Empty, Failed, Head, Moment, Skeleton } from "../ui/kit";
import { NewKey } from "./enrol/new-key";

type Key = Schemas["EnrolmentKey"];
type Waiting = Schemas["WaitingAgent"];

export function EnrolPage() {
  const keys = useLoad(() => json<{ items: Key[] }>("GET", "/enrolment-keys"), []);
  useReloadOn("enrol", keys.reload);
  return (
    <section class="page">
      <Head title="Enrol" />
      {may("enrol:write") && <NewKey made={keys.reload} />}
      <Approvals />
      <h2>Keys</h2>
      {keys.problem ? (
        <Failed problem={keys.problem} retry={keys.reload} />
      ) : !keys.data ? (
        <Skeleton rows={3} />
      ) : keys.data.items.length === 0 ? (
        <Empty title="No keys" command="landline enrol create">
          A key lets one or many machines enrol with one pasted line. Make one above, or from your terminal:
        </Empty>
      ) : (
        <Keys keys={keys.data.items} changed={keys.reload} />
      )}
    </section>
  );
}

const Keys = ({ keys, changed }: { keys: Key[]; changed: () => void }) => (
  <div class="scroll">
    <table class="table stack">
      <thead>
        <tr>
          <th>Name</th>
          <th class="num">Used</th>
          <th>Expires</th>
          <th>May</th>
          <th>Labels</th>
          <th>Approval</th>
          <th>
            <span class="quiet">Actions</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {keys.map((key) => (
          <tr key={key.id}>
            <td>{key.name}</td>
            <td class="num">
              {key.uses - key.uses_left} of {key.uses}
            </td>
            <td>
              {key.revoked_at ? <Chip tone="idle">revoked</Chip> : <Moment time={key.expires_at} />}
            </td>
            <td>{key.allow.join(", ") || "–"}</td>
            <td>
              {Object.entries(key.labels).map(([name, value]) => (
                <span key={name} class="label">
                  {name}={value}
                </span>
              ))}
            </td>
            <td>{key.approval ? "asked" : "–"}</td>
            <td class="num">
              {may("enrol:write") && !key.revoked_at && (
                <Button small kind="plain" onClick={() => void json("DELETE", `/enrolment-keys/${key.id}`).then(changed, fail)}>
                  Revoke
                </Button>
              )}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  </div>
);

function Approvals() {
  const { data, reload } = useLoad(() => json<{ items: Waiting[] }>("GET", "/enrolments"), []);
  useReloadOn("enrol", reload);
  if (!data || data.items.length === 0) return null;
  const decide = (id: string, verdict: "approve" | "reject") =>
    json("POST", `/enrolments/${id}/${verdict}`, {}).then(() => {
      inform(verdict === "approve" ? "Approved" : "Rejected");
      reload();
    }, fail);
  return (
    <>
      <h2>Waiting for approval</h2>
      <div class="scroll">
        <table class="table stack">
          <thead>
            <tr>
              <th>Name it proposes</th>
              <th>From</th>
              <th>Since</th>
              <th>
                <span class="quiet">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {data.items.map((pending) => (
              <tr key={pending.id}>
                <td>{pending.agent_id}</td>
                <td class="mono">{pending.address}</td>
                <td>
                  <Moment time={pending.created_at} />
                </td>
                <td class="num">
                  <Button small kind="primary" onClick={() => void decide(pending.id, "approve")}>
                    Approve
                  </Button>{" "}
                  <Button small onClick={() => void decide(pending.id, "reject")}>
                    Reject
                  </Button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
