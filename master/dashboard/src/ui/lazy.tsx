// A part of the page whose code is fetched when it is first shown.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { fail } from "../state/toasts";
import { Skeleton } from "./kit";

type Props<T> = { load: () => Promise<T>; show: (loaded: T) => ComponentChildren; rows?: number };

export function Lazy<T>({ load, show, rows = 8 }: Props<T>) {
  const [loaded, setLoaded] = useState<{ module: T }>();
  useEffect(() => {
    let current = true;
    load().then((module) => current && setLoaded({ module }), fail);
    return () => {
      current = false;
    };
    // The code is the same whatever else changes.
  }, []);
  return <>{loaded ? show(loaded.module) : <Skeleton rows={rows} />}</>;
}
