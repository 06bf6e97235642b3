// Debian's Chromium under Playwright, and what every script holds a page to: no error in its console, nothing that the
// content policy stopped, no request to anybody but the hosts of the test.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/// A browser with an empty profile. `close` ends it, removes the profile, and fails when a page misbehaved.
export async function open({ rules, viewport = { width: 1280, height: 800 }, colorScheme = "light", allow = [] } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "landline-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [...FLAGS, ...(rules ? [`--host-resolver-rules=${rules}`] : [])],
    viewport,
    colorScheme,
    ignoreHTTPSErrors: true,
    acceptDownloads: true,
    permissions: ["clipboard-read", "clipboard-write"],
  });
  context.setDefaultTimeout(60_000);
  const faults = [];
  const hosts = new Set();
  const watch = (page) => {
    page.on("pageerror", (error) => faults.push(`error in the page: ${error.stack ?? error}`));
    page.on("console", (message) => {
      const text = message.text();
      // The browser itself reports each answer of 400 and above, and each socket of a master that is away.
      if (message.type() !== "error" || /Failed to load resource|WebSocket connection to/.test(text)) return;
      if (!allow.some((known) => known.test(text))) faults.push(`console of ${page.url()}: ${text}`);
    });
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (protocol.startsWith("http")) hosts.add(host);
    });
  };
  for (const page of context.pages()) watch(page);
  context.on("page", watch);
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
    if (faults.length > 0) throw new Error(faults.join("\n"));
  };
  return { context, page: context.pages()[0] ?? (await context.newPage()), close, faults, hosts };
}

/// Waits for a condition of ours, not of a page.
export async function until(what, holds, within = 60_000) {
  const deadline = Date.now() + within;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function check(holds, what) {
  if (!holds) throw new Error(what);
}
