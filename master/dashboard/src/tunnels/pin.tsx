// Which certificate a tunnel's target is known by, and trusting another one that it shows since.
import { useState } from "preact/hooks";
import { json, type Schemas } from "../api/client";
import { useLoad } from "../state/load";
import { may } from "../state/session";
import { fail, inform } from "../state/toasts";
import { Dialog } from "../ui/dialog";
import { Button, Moment } from "../ui/kit";

type Pin = Schemas["Pin"];

export function Certificate({ tunnel }: { tunnel: string }) {
  const [shown, setShown] = useState(false);
  return (
    <>
      <Button small kind="plain" onClick={() => setShown(true)}>
        Certificate
      </Button>
      {shown && <PinDialog tunnel={tunnel} close={() => setShown(false)} />}
    </>
  );
}

function PinDialog({ tunnel, close }: { tunnel: string; close: () => void }) {
  const { data } = useLoad(() => json<Pin>("GET", `/tunnels/${tunnel}/pin`), [tunnel]);
  const trust = (sha256: string) =>
    json("POST", `/tunnels/${tunnel}/pin`, { sha256 }).then(() => {
      inform("The new certificate is trusted");
      close();
    }, fail);
  const offered = data?.offered_sha256;
  return (
    <Dialog title="Certificate of the target" onClose={close}>
      {data && (
        <>
          <p class="said">
            {data.sha256 ? (
              <>
                Known since <Moment time={data.pinned_at} /> by SHA-256 <code class="wrap">{data.sha256}</code>
              </>
            ) : (
              "None was seen yet: the first one that it shows is taken for right."
            )}
          </p>
          {offered && (
            <p class="said">
              Now it shows another one, <code class="wrap">{offered}</code>. Trust it only if somebody renewed it on the machine.
            </p>
          )}
        </>
      )}
      <div class="buttons">
        <Button onClick={close}>Close</Button>
        {offered && may("tunnels:write") && (
          <Button kind="danger" onClick={() => void trust(offered)}>
            Trust the new one
          </Button>
        )}
      </div>
    </Dialog>
  );
}
