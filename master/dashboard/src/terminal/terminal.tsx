// One shell session on the page: typed into, or watched.
import { useEffect, useRef, useState } from "preact/hooks";
import { words } from "../ui/format";
import { Button } from "../ui/kit";
import { Attachment } from "./attach";
import { makeScreen, type Screen } from "./screen";

type Props = { session: string; mode: "write" | "watch"; hidden?: boolean; onGone?: () => void };

export function Terminal({ session, mode, hidden = false, onGone }: Props) {
  const element = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen>();
  const [over, setOver] = useState<string>();
  const [note, setNote] = useState("");
  useEffect(() => {
    if (!element.current) return;
    const made = makeScreen(element.current, mode === "watch");
    screen.current = made;
    const { terminal, fit } = made;
    // Answers of the terminal to output that was shown before must not be typed again.
    let old = 0;
    const attachment = new Attachment(session, mode, {
      output: (bytes, isOld, shown) => {
        if (isOld) old += 1;
        terminal.write(bytes, () => {
          if (isOld) old -= 1;
          shown();
        });
      },
      attached: ({ cols, rows }) => {
        if (mode === "watch") terminal.resize(cols, rows);
        else if (element.current?.offsetParent) fit.fit();
        attachment.resize(terminal.cols, terminal.rows);
        setNote("");
      },
      note: setNote,
      resized: (cols, rows) => mode === "watch" && terminal.resize(cols, rows),
      over: (reason) => {
        terminal.options.disableStdin = true;
        setOver(reason);
      },
    });
    const typed = terminal.onData((text) => old === 0 && attachment.type(text));
    const sized = terminal.onResize(({ cols, rows }) => attachment.resize(cols, rows));
    const resize = new ResizeObserver(() => {
      if (mode === "write" && element.current?.offsetParent) fit.fit();
    });
    resize.observe(element.current);
    if (mode === "write") terminal.focus();
    return () => {
      resize.disconnect();
      typed.dispose();
      sized.dispose();
      attachment.leave();
      made.dispose();
    };
  }, [session, mode]);
  useEffect(() => {
    if (!hidden && mode === "write") screen.current?.terminal.focus();
  }, [hidden]);
  return (
    <div class="terminal" hidden={hidden} data-session={session}>
      <div class="screen" ref={element} />
      <div class="under" role="status">
        {over ? `The session is over: ${words(over)}` : note}
        {over && onGone && (
          <Button small onClick={onGone}>
            Close
          </Button>
        )}
      </div>
    </div>
  );
}
