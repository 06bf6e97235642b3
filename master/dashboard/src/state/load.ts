// Reading something from the master for a page: once, again when asked, and again after the master was away.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../api/client";
import { onEvents, revived } from "./live";
import { fail } from "./toasts";

export type Loaded<T> = {
  data: T | undefined;
  /// Why there is nothing to show.
  problem: ApiError | undefined;
  reload: () => void;
};

/// `read` runs whenever something of `on` changes. What was read before stays on the page until the new answer is there.
export function useLoad<T>(read: () => Promise<T>, on: unknown[]): Loaded<T> {
  const [data, setData] = useState<T>();
  const [problem, setProblem] = useState<ApiError>();
  const [turn, setTurn] = useState(0);
  const first = useRef(true);
  const key = JSON.stringify(on);
  useEffect(() => {
    if (first.current) first.current = false;
    else setProblem(undefined);
    setData(undefined);
  }, [key]);
  useEffect(() => {
    let current = true;
    read().then(
      (answer) => {
        if (!current) return;
        setData(answer);
        setProblem(undefined);
      },
      (error: unknown) => {
        if (!current) return;
        if (error instanceof ApiError && error.code !== "away") setProblem(error);
        if (!(error instanceof ApiError)) fail(error);
      },
    );
    return () => {
      current = false;
    };
  }, [key, turn, revived.value]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  return { data, problem, reload };
}

/// Calls `reload` when an event of a kind that begins so is heard, at most twice a second.
export function useReloadOn(prefix: string, reload: () => void): void {
  useEffect(() => {
    let due: ReturnType<typeof setTimeout> | undefined;
    const stop = onEvents((events) => {
      if (!events.some((event) => event.kind.startsWith(prefix))) return;
      due ??= setTimeout(() => {
        due = undefined;
        reload();
      }, 500);
    });
    return () => {
      stop();
      clearTimeout(due);
    };
  }, [prefix, reload]);
}

/// Grows every `ms`, for what counts down.
export function useTick(ms: number): number {
  const [tick, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((before) => before + 1), ms);
    return () => clearInterval(timer);
  }, [ms]);
  return tick;
}
