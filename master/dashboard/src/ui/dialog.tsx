// A question or a form above the page. Esc and a click outside close it; the focus goes back to where it was.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "./kit";

type Props = { title: string; onClose: () => void; children: ComponentChildren; class?: string };

export function Dialog({ title, onClose, children, class: extra }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => (before instanceof HTMLElement ? before.focus() : undefined);
  }, []);
  const closed = (event: Event) => {
    event.preventDefault();
    onClose();
  };
  return (
    <dialog
      ref={element}
      class={extra}
      aria-label={title}
      onCancel={closed}
      onMouseDown={(event) => {
        if (event.target === element.current) onClose();
      }}
    >
      <div class="dialog">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

type ConfirmProps = { title: string; children: ComponentChildren; action: string; danger?: boolean; onDone: (yes: boolean) => void };

export const Confirm = ({ title, children, action, danger, onDone }: ConfirmProps) => (
  <Dialog title={title} onClose={() => onDone(false)}>
    <form
      onSubmit={(event) => {
        event.preventDefault();
        onDone(true);
      }}
    >
      <div class="said">{children}</div>
      <div class="buttons">
        <Button onClick={() => onDone(false)}>Cancel</Button>
        <Button type="submit" kind={danger ? "danger" : "primary"} autofocus>
          {action}
        </Button>
      </div>
    </form>
  </Dialog>
);
