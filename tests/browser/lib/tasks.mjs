// What a page's main thread does, from Chromium's own trace: how long its tasks took, and for how much of that they had a
// processor. Where the two differ, the machine was busy with others, and no page can help it.
const CATEGORIES = ["toplevel"];
const THREAD = "CrRendererMain";
/// A task of more than this is felt, ms.
const LONG = 200;

/// A trace that says nothing of the page: Chromium's matter, not the page's.
export class Untold extends Error {}

/// Begins; what it gives ends it and tells of the longest task by the clock (`wall`, with the `cpu` of the same task), of the
/// one that computed most, of how many were long, and of how busy the thread was. Milliseconds, but for `load` (percent).
export async function watchTasks(page) {
  const session = await page.context().newCDPSession(page);
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => {
    for (const event of value) events.push(event);
  });
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: CATEGORIES } });
  const from = performance.now();
  return async () => {
    const over = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
    const lasted = performance.now() - from;
    await session.send("Tracing.end");
    if ((await over).dataLossOccurred) throw new Error("Chromium lost a part of its trace");
    await session.detach();
    return told(events, lasted);
  };
}

function told(events, lasted) {
  const of = ({ pid, tid }) => `${pid} ${tid}`;
  const threads = new Set(events.filter(({ name, args }) => name === "thread_name" && args.name === THREAD).map(of));
  const tasks = events
    .filter((event) => event.name.endsWith("RunTask") && event.dur && threads.has(of(event)))
    // Of a task that has no processor time in the trace it is not known that it waited for anybody.
    .map(({ dur, tdur }) => ({ wall: dur / 1_000, cpu: (tdur ?? dur) / 1_000, told: tdur !== undefined }));
  if (tasks.length === 0) throw new Untold(`Chromium told of no task: ${events.length} events, ${threads.size} main threads`);
  const untold = tasks.filter(({ told }) => !told).length;
  if (untold > tasks.length / 10) throw new Untold(`Chromium told no processor time of ${untold} of ${tasks.length} tasks`);
  const most = (key) => tasks.reduce((worst, task) => (task[key] > worst[key] ? task : worst), { wall: 0, cpu: 0 });
  const sum = tasks.reduce((total, { cpu }) => total + cpu, 0);
  return {
    tasks: tasks.length,
    longest: whole(most("wall")),
    costliest: whole(most("cpu")),
    long: tasks.filter(({ wall }) => wall > LONG).length,
    load: Math.round((100 * sum) / lasted),
  };
}

const whole = ({ wall, cpu }) => ({ wall: Math.round(wall), cpu: Math.round(cpu) });
