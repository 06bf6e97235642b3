// Plays a recording: at any speed, from any moment.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { send } from "../api/client";
import { useLoad } from "../state/load";
import { clock } from "../ui/format";
import { Button, Failed, Skeleton } from "../ui/kit";
import { readCast, type Cast } from "./cast";
import { makeScreen, type Screen } from "./screen";

const SPEEDS = [1, 2, 4, 16];
const FRAME_MS = 40;
/// A longer silence is cut to this, in seconds.
const SILENCE_MOST = 3;

export function Replay({ session }: { session: string }) {
  const { data, problem, reload } = useLoad(async () => readCast(await (await send("GET", `/shells/${session}/recording`)).text()), [session]);
  if (problem) return <Failed problem={problem} retry={reload} />;
  return data ? <Player cast={data} /> : <Skeleton rows={10} />;
}

function Player({ cast }: { cast: Cast }) {
  const element = useRef<HTMLDivElement>(null);
  const screen = useRef<Screen>();
  const shown = useRef({ at: 0, index: 0 });
  const [at, setAt] = useState(0);
  const [playing, setPlaying] = useState(true);
  const [speed, setSpeed] = useState(1);

  const seek = useCallback(
    (to: number) => {
      const terminal = screen.current?.terminal;
      if (!terminal) return;
      if (to < shown.current.at) {
        terminal.reset();
        terminal.resize(cast.cols, cast.rows);
        shown.current = { at: 0, index: 0 };
      }
      let { index } = shown.current;
      for (let event = cast.events[index]; event && event.at <= to; event = cast.events[++index]) {
        if (event.kind === "output") terminal.write(event.text);
        else terminal.resize(event.cols, event.rows);
      }
      shown.current = { at: to, index };
      setAt(to);
    },
    [cast],
  );
  useEffect(() => {
    if (!element.current) return;
    const made = makeScreen(element.current, true);
    screen.current = made;
    made.terminal.resize(cast.cols, cast.rows);
    return made.dispose;
  }, [cast]);
  useEffect(() => {
    if (!playing) return;
    const timer = setInterval(() => {
      const { at: before, index } = shown.current;
      const next = cast.events[index];
      if (!next) return setPlaying(false);
      const to = before + (FRAME_MS / 1_000) * speed;
      seek(next.at - before > SILENCE_MOST ? next.at - SILENCE_MOST : to);
    }, FRAME_MS);
    return () => clearInterval(timer);
  }, [playing, speed, cast]);
  const toggle = () => {
    if (!playing && shown.current.index >= cast.events.length) seek(0);
    setPlaying(!playing);
  };
  return (
    <div class="player" data-testid="player" data-ended={!playing && at >= cast.length}>
      <div class="controls">
        <Button kind="primary" onClick={toggle}>
          {playing ? "Pause" : "Play"}
        </Button>
        <input
          type="range"
          min={0}
          max={cast.length}
          step="any"
          value={at}
          aria-label="Moment"
          onInput={(event) => {
            setPlaying(false);
            seek(Number(event.currentTarget.value));
          }}
        />
        <output class="num">
          {clock(at)} / {clock(cast.length)}
        </output>
        <div class="segmented" role="group" aria-label="Speed">
          {SPEEDS.map((each) => (
            <button key={each} type="button" aria-pressed={each === speed} onClick={() => setSpeed(each)}>
              {each}×
            </button>
          ))}
        </div>
      </div>
      <div class="screen" ref={element} />
    </div>
  );
}
