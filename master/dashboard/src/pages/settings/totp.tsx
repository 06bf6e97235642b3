// Turning TOTP on and off. The secret becomes a QR code here; it goes to nobody.
import { useState } from "preact/hooks";
import { encode } from "uqr";
import { json, type Schemas } from "../../api/client";
import { session, whoAmI } from "../../state/session";
import { fail, inform } from "../../state/toasts";
import { Button, Chip, Copyable, Field } from "../../ui/kit";

type Offer = Schemas["TotpOffer"];

export function Totp() {
  const on = session.value?.operator.totp ?? false;
  const [offer, setOffer] = useState<Offer>();
  const [answer, setAnswer] = useState("");
  const send = async (event: Event) => {
    event.preventDefault();
    try {
      if (on) await json("DELETE", "/session/totp", { password: answer });
      else if (offer) await json("PUT", "/session/totp", { code: answer });
      setOffer(undefined);
      setAnswer("");
      await whoAmI();
      inform(on ? "TOTP is off" : "TOTP is on", on ? "" : "From now on signing in asks for a code too.");
    } catch (error) {
      fail(error);
    }
  };
  return (
    <form class="card" onSubmit={send}>
      <h2>
        TOTP {on ? <Chip tone="good">on</Chip> : <Chip tone="warn">off</Chip>}
      </h2>
      {on ? (
        <Field label="Password, to turn it off">
          <input required type="password" autocomplete="current-password" value={answer} onInput={(event) => setAnswer(event.currentTarget.value)} />
        </Field>
      ) : offer ? (
        <>
          <Code text={offer.uri} />
          <Copyable text={offer.uri} secret />
          <Field label="The code it shows now">
            <input required autofocus inputMode="numeric" pattern="[0-9 ]{6,7}" autocomplete="one-time-code" value={answer} onInput={(event) => setAnswer(event.currentTarget.value)} />
          </Field>
        </>
      ) : (
        <p class="muted">A second proof beside the password, from an app on your phone.</p>
      )}
      {on || offer ? (
        <Button type="submit">{on ? "Turn off" : "Turn on"}</Button>
      ) : (
        <Button onClick={() => void json<Offer>("POST", "/session/totp", {}).then(setOffer, fail)}>Set up</Button>
      )}
    </form>
  );
}

/// A QR code as one path, dark on white in both themes: phones read nothing else well.
function Code({ text }: { text: string }) {
  const { data, size } = encode(text, { border: 2 });
  const cells = data.flatMap((line, y) => line.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : "")));
  return (
    <svg class="qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label="QR code of the secret">
      <path fill="#fff" d={`M0 0h${size}v${size}H0z`} />
      <path fill="#000" d={cells.join("")} />
    </svg>
  );
}
