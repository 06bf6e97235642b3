// Every tunnel that is open, and those that ended lately.
import { useState } from "preact/hooks";
import { useLoad, useReloadOn } from "../state/load";
import { listTunnels } from "../tunnels/calls";
import { TunnelTable } from "../tunnels/table";
import { Empty, Failed, Head, Skeleton } from "../ui/kit";

export function TunnelsPage() {
  const [all, setAll] = useState(false);
  const { data, problem, reload } = useLoad(() => listTunnels(all ? {} : { open: true }), [all]);
  useReloadOn("tunnel.", reload);
  return (
    <section class="page">
      <Head title="Tunnels">
        <label class="check">
          <input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} /> with ended ones
        </label>
      </Head>
      {problem ? (
        <Failed problem={problem} retry={reload} />
      ) : !data ? (
        <Skeleton rows={8} />
      ) : data.length === 0 ? (
        <Empty title="No tunnel is open" command="landline tunnel open AGENT localhost:443">
          A tunnel is a port on the master that is a host and port behind an agent. Open a machine’s own page from its Agent page, or a port from your terminal:
        </Empty>
      ) : (
        <TunnelTable tunnels={data} showAgent changed={reload} />
      )}
    </section>
  );
}
