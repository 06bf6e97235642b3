// CPU, memory, load and network of an agent over the last half hour. Fetched with its library when first shown.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Schemas } from "../../api/client";
import { colour, repainted } from "../../state/theme";
import { bytes } from "../../ui/format";

type Sample = Schemas["Sample"];
type Line = { name: string; values: (number | null)[]; colour: string };
type ChartProps = { title: string; times: number[]; lines: Line[]; show: (value: number) => string; max?: number };

const HEIGHT = 150;
/// Seconds shown before a sample that is alone: it has no span of its own to label.
const ALONE_S = 60;

export function Charts({ samples, total }: { samples: Sample[]; total: number }) {
  const times = samples.map((sample) => Date.parse(sample.at) / 1_000);
  const of = (pick: (sample: Sample) => number) => samples.map(pick);
  const speed = (pick: (sample: Sample) => number) =>
    samples.map((sample, at) => {
      const before = samples[at - 1];
      const seconds = before ? ((times[at] ?? 0) - (times[at - 1] ?? 0)) : 0;
      // A counter that went back means the machine started again.
      return before && seconds > 0 && pick(sample) >= pick(before) ? (pick(sample) - pick(before)) / seconds : null;
    });
  return (
    <div class="charts">
      <Chart title="CPU" times={times} max={100} show={(value) => `${value} %`} lines={[{ name: "cpu", values: of((sample) => sample.cpu_percent), colour: "accent" }]} />
      <Chart title="Memory" times={times} max={total || undefined} show={bytes} lines={[{ name: "used", values: of((sample) => sample.memory_used_bytes), colour: "accent" }]} />
      <Chart title="Load" times={times} show={(value) => value.toFixed(2)} lines={[{ name: "1 min", values: of((sample) => sample.load1), colour: "accent" }]} />
      <Chart
        title="Network"
        times={times}
        show={(value) => `${bytes(value)}/s`}
        lines={[
          { name: "in", values: speed((sample) => sample.received_bytes), colour: "accent" },
          { name: "out", values: speed((sample) => sample.sent_bytes), colour: "muted" },
        ]}
      />
    </div>
  );
}

function Chart({ title, times, lines, show, max }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot>();
  const data = [times, ...lines.map((line) => line.values)] as uPlot.AlignedData;
  const painted = repainted.value;
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    chart.current = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        padding: [8, 6, 0, 0],
        cursor: { y: false },
        legend: { show: false },
        scales: {
          x: { range: (plot, low, high) => (plot.data[0].length === 1 && low != null ? [low - ALONE_S, low] : [low, high]) },
          y: { range: (_, low, high) => [Math.min(0, low ?? 0), max ?? Math.max(high ?? 1, 0.1) * 1.1] },
        },
        axes: [{ ...axis, space: 80, size: 26, values: (_, ticks) => ticks.map(hour) }, { ...axis, size: 74, values: (_, ticks) => ticks.map(show).map(unlessBefore) }],
        series: [
          {},
          ...lines.map((line, at) => ({
            label: line.name,
            stroke: colour(line.colour),
            width: 1.5,
            ...(at === 0 ? { fill: colour("accent-faint") } : {}),
            points: { show: times.length < 3 },
          })),
        ],
      },
      data,
      element,
    );
    const resize = new ResizeObserver(() => chart.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      chart.current?.destroy();
    };
  }, [painted, max]);
  useEffect(() => chart.current?.setData(data), [times.length, times.at(-1)]);
  const latest = lines.map((line) => ({ name: line.name, value: line.values.at(-1) }));
  return (
    <figure class="card chart">
      <figcaption>
        <b>{title}</b>
        <span>{latest.map(({ name, value }) => (value == null ? "" : lines.length > 1 ? `${name} ${show(value)}` : show(round(value)))).join("  ")}</span>
      </figcaption>
      <div ref={box} role="img" aria-label={`${title} of the last half hour`} style={{ height: `${HEIGHT}px` }} />
    </figure>
  );
}

const hour = (at: number): string => new Date(at * 1_000).toTimeString().slice(0, 8);
/// Small figures round to the same words: those stand once.
const unlessBefore = (text: string, at: number, all: string[]): string => (text === all[at - 1] ? "" : text);
const round = (value: number): number => (value < 1_000 ? Math.round(value * 100) / 100 : Math.round(value));
