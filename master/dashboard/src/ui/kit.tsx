// The small parts every page is made of.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { ApiError } from "../api/client";
import { inform } from "../state/toasts";
import { ago, moment } from "./format";

export type Tone = "good" | "warn" | "bad" | "idle" | "accent";

export const Chip = ({ tone, children, title }: { tone: Tone; children: ComponentChildren; title?: string }) => (
  <span class={`chip ${tone}`} title={title}>
    <i aria-hidden="true" />
    {children}
  </span>
);

type ButtonProps = JSX.ButtonHTMLAttributes & { kind?: "primary" | "danger" | "plain"; small?: boolean };

export const Button = ({ kind, small, class: extra, ...rest }: ButtonProps) => (
  <button type="button" {...rest} class={["button", kind, small && "small", extra].filter(Boolean).join(" ")} />
);

/// A page's heading with what can be done on it.
export const Head = ({ title, children }: { title: ComponentChildren; children?: ComponentChildren }) => (
  <header class="head">
    <h1>{title}</h1>
    <div class="actions">{children}</div>
  </header>
);

/// What stands where there is nothing: what to do about it, with the command to paste.
export const Empty = ({ title, children, command }: { title: string; children?: ComponentChildren; command?: string }) => (
  <div class="empty">
    <h2>{title}</h2>
    {children && <p>{children}</p>}
    {command && <Copyable text={command} />}
  </div>
);

export const Failed = ({ problem, retry }: { problem: ApiError; retry?: () => void }) => (
  <div class="empty" role="alert">
    <h2>{problem.title}</h2>
    <p>{problem.detail}</p>
    {retry && <Button onClick={retry}>Try again</Button>}
  </div>
);

/// Rows of the height that real ones will have.
export const Skeleton = ({ rows = 6 }: { rows?: number }) => (
  <div class="skeleton" role="status" aria-busy="true" aria-label="Loading">
    {Array.from({ length: rows }, (_, at) => (
      <div key={at} />
    ))}
  </div>
);

export function Copyable({ text, secret }: { text: string; secret?: boolean }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 1_500);
    } catch {
      inform("This browser did not let us copy", "Select the text and copy it by hand.");
    }
  };
  return (
    <div class={secret ? "copyable secret" : "copyable"}>
      <code>{text}</code>
      <Button small onClick={copy}>
        {copied ? "Copied" : "Copy"}
      </Button>
    </div>
  );
}

export const Ago = ({ time }: { time: string | null | undefined }) => <time title={time ?? ""}>{ago(time)}</time>;
export const Moment = ({ time }: { time: string | null | undefined }) => <time title={time ?? ""}>{moment(time)}</time>;

/// A label above a field.
export const Field = ({ label, hint, children }: { label: string; hint?: string; children: ComponentChildren }) => (
  <div class="field">
    <label>
      <span>{label}</span>
      {children}
    </label>
    {hint && <small>{hint}</small>}
  </div>
);

export const Bar = ({ percent, label }: { percent: number; label: string }) => (
  <progress class="bar" max={100} value={percent} aria-label={label} />
);
