// The fleet with thousands of agents while events flow: how soon it is there, how quick it filters, and that nothing blocks
// the page for long.
import { enter } from "./lib/enter.mjs";
import { open, check, until } from "./lib/browser.mjs";
import { given, request, script, tell } from "./lib/talk.mjs";

const FILTERS = ["sim-1", "sim-4999", "zzz", "sim 22", ""];

script(async () => {
  const { page, context, close } = await open();
  await context.addInitScript(() => {
    window.__tasks = [];
    new PerformanceObserver((list) => {
      for (const task of list.getEntries()) window.__tasks.push({ at: task.startTime, ms: task.duration });
    }).observe({ type: "longtask", buffered: true });
    new MutationObserver((_, observer) => {
      if (!document.querySelector(".virtual .row")) return;
      window.__first = performance.now();
      observer.disconnect();
    }).observe(document, { childList: true, subtree: true });
  });
  await enter(page, given);
  const firsts = [];
  for (let round = 0; round < 3; round += 1) {
    await page.reload();
    await page.waitForFunction(() => window.__first);
    firsts.push(await page.evaluate(() => Math.round(window.__first)));
    await until("every agent is told", () => page.getByTestId("count").textContent().then((text) => text.includes(`of ${given.agents}`)));
  }
  // Loading is over: what counts from here on is the page while events flow.
  await page.evaluate(() => (window.__tasks.length = 0));
  await request("flow");
  const filters = [];
  for (const text of FILTERS) {
    filters.push(
      await page.evaluate(async (text) => {
        const input = document.querySelector("input[type=search]");
        const frame = () => new Promise((resolve) => requestAnimationFrame(() => resolve()));
        await frame();
        const from = performance.now();
        input.value = text;
        input.dispatchEvent(new InputEvent("input", { bubbles: true }));
        await frame();
        await frame();
        return Math.round(performance.now() - from);
      }, text),
    );
    await page.waitForTimeout(700);
  }
  await page.locator(".virtual").evaluate(async (box) => {
    for (let y = 0; y < 100_000; y += 900) {
      box.scrollTop = y;
      await new Promise((resolve) => requestAnimationFrame(() => resolve()));
    }
  });
  await request("still");
  const tasks = await page.evaluate(() => window.__tasks.map((task) => Math.round(task.ms)));
  const rows = await page.locator(".virtual .row").count();
  tell("figures", { firsts, filters, longest: Math.max(0, ...tasks), tasks: tasks.length, rows });
  check(rows < 200, `${rows} rows are in the page at once`);
  await close();
});
