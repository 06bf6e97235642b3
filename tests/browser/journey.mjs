// An operator's first hour, from the one-time link to the audit log.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { check, open, until } from "./lib/browser.mjs";
import { setUp, signIn } from "./lib/enter.mjs";
import { given, request, script, tell } from "./lib/talk.mjs";
import { totp } from "./lib/totp.mjs";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/// The first administrator turns TOTP on, signs out, and in again with a code.
async function people(page) {
  await setUp(page, given.setup);
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Set up" }).click();
  await page.getByRole("img", { name: "QR code of the secret" }).waitFor();
  const uri = await page.locator(".copyable code").first().textContent();
  const secret = new URL(uri).searchParams.get("secret");
  await page.getByLabel("The code it shows now").fill(totp(secret));
  await page.getByRole("button", { name: "Turn on" }).click();
  await page.getByText("TOTP is on").waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  // A code is good once: the next one comes within 30 s.
  await signIn(page, () => totp(secret, Date.now() + 30_000));
  await page.getByRole("heading", { name: "Settings" }).waitFor();
  const again = await page.request.get(`${given.url}/setup`);
  check(again.ok(), "the page of the setup link itself is only a page");
}

/// A key, the line to paste, and the machine shows up by itself.
async function enrol(page) {
  await page.getByRole("link", { name: "Enrol" }).click();
  for (const what of ["terminals", "command lines", "files"]) await page.getByLabel(what, { exact: true }).check();
  await page.getByRole("button", { name: "Make the line" }).click();
  const line = await page.getByTestId("made").locator("code").first().textContent();
  await page.getByRole("link", { name: "Fleet" }).click();
  const [pasted, other] = given.agents.map(({ id }) => page.getByRole("row").filter({ hasText: id }));
  await other.waitFor();
  check((await pasted.count()) === 0, "the machine is there before the line was pasted");
  await request("paste", { line });
  await pasted.getByText("Online").waitFor();
}

async function terminal(page) {
  await page.goto(`${given.url}/agents/${given.agents[0].id}/terminal`);
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.locator(".xterm-helper-textarea").waitFor();
  await page.keyboard.type("echo $((6*7))-is-the-answer\n");
  await page.waitForFunction(() => document.querySelector(".xterm-rows")?.textContent.includes("42-is-the-answer"));
  await page.keyboard.type("exit\n");
  await page.getByText("The session is over").waitFor();
}

/// Dropped on the page, seen to progress, fetched again: the same bytes.
async function files(page) {
  await page.evaluate(([agent, folder]) => sessionStorage.setItem(`folder:${agent}`, folder), [given.agents[0].id, given.folder]);
  await page.goto(`${given.url}/agents/${given.agents[0].id}/files`);
  await page.getByText("This folder is empty").waitFor();
  // A narrow way up, so that there is time to pause.
  const network = await page.context().newCDPSession(page);
  const up = (bytes) => network.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: bytes });
  await network.send("Network.enable");
  await up(10_000_000);
  // The page's own drop, with a file of its own making: bytes that repeat late.
  await page.getByTestId("files").evaluate((target, size) => {
    const bytes = new Uint8Array(size);
    for (let at = 0, x = 1; at < size; at += 1) bytes[at] = (x = (x * 1_103_515_245 + 12_345) >>> 0) >>> 16;
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "big.bin"));
    window.__uploaded = bytes;
    target.dispatchEvent(new DragEvent("dragover", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    window.__progress = [];
    const timer = setInterval(() => {
      const row = document.querySelector(".uploads li");
      window.__progress.push([row?.dataset.state, row?.querySelector("progress")?.value ?? -1]);
      if (row?.dataset.state === "done" || row?.dataset.state === "failed") clearInterval(timer);
    }, 20);
  }, given.size);
  await page.waitForFunction(() => document.querySelector(".uploads li[data-state=sending] progress")?.value > 15);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".uploads li[data-state=paused]").waitFor();
  await up(-1);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".uploads li[data-state=done]").waitFor({ timeout: 120_000 });
  const progress = await page.evaluate(() => window.__progress.filter(([state]) => state === "sending").map(([, value]) => value));
  check(progress.some((value) => value > 0 && value < 100), `no progress was seen: ${progress}`);
  // What was under way when it was paused may be sent again; what arrived is not.
  const begun = progress.findIndex((value) => value > 0);
  check(progress.slice(begun).every((value) => value > 0), `the upload began anew: ${progress}`);
  const sent = await page.evaluate(async () => {
    const hash = await crypto.subtle.digest("SHA-256", window.__uploaded);
    return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  });
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "big.bin" }).click()]);
  const got = sha256(await readFile(await download.path()));
  check(got === sent, `${sent} was sent and ${got} came back`);
  tell("bytes", { sha256: got, progress: progress.length });
}

/// A machine's own page in a window of its own; logged in there as on the machine itself.
async function webUi(context, page, { id, port, name }) {
  await page.goto(`${given.url}/agents/${id}`);
  await page.getByRole("button", { name: "Where the web UI is" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Scheme").selectOption("https");
  // As the machine's page names itself: it redirects there, and nowhere else has a tunnel.
  await dialog.getByLabel("Host, as the agent sees it").fill("127.0.0.1");
  await dialog.getByLabel("Port").fill(String(port));
  const [window] = await Promise.all([context.waitForEvent("page"), dialog.getByRole("button", { name: "Open" }).click()]);
  await window.locator("#user").waitFor({ timeout: 30_000 }).catch(async (error) => {
    const text = await window.locator("body").innerText().catch(() => "nothing");
    throw new Error(`${window.url()} shows: ${text}`, { cause: error });
  });
  const foreign = (await sent(window)).filter((cookie) => /^(theme|everywhere)=/.test(cookie));
  check(foreign.length === 0, `${name} got another machine's cookies: ${foreign}`);
  await window.locator("#user").fill(given.user);
  await window.locator("#password").fill(given.password);
  await window.locator("#login").click();
  await window.locator("#welcome").waitFor();
  await loggedIn(window, name);
  check(await window.evaluate(() => opener === null), "the machine's page reaches the dashboard");
  return window;
}

/// The cookies that reach the machine, as its own site saw them.
async function sent(window) {
  const headers = await window.evaluate(() => fetch("/headers").then((answer) => answer.json()));
  return headers.filter(([name]) => name === "cookie").flatMap(([, value]) => value.split("; "));
}

/// What the site sets for the whole parent domain of all tunnels is this one host's, and is sent to nobody else.
async function ownCookies(context, window, name) {
  const { hostname } = new URL(window.url());
  const kept = (await context.cookies(window.url())).filter((cookie) => cookie.name === "everywhere");
  const expected = kept.length === 1 && kept[0].value === name && kept[0].domain === hostname;
  check(expected, `${hostname} keeps ${JSON.stringify(kept)}`);
  const own = (await sent(window)).filter((cookie) => cookie.startsWith("everywhere="));
  check(own.length === 1 && own[0] === `everywhere=${name}`, `${name} was sent ${own}`);
}

async function loggedIn(window, name) {
  await window.waitForFunction((name) => document.querySelector("#status")?.textContent === `${name} ok`, name);
  await window.waitForFunction(() => document.querySelector("#clock")?.textContent && document.querySelector("#event")?.textContent);
}

async function windows(context, page) {
  // The second is opened from a tab of its own, as an operator would: presence is the tab's that opened it.
  const [first, second] = given.agents;
  const one = await webUi(context, page, first);
  const other = await context.newPage();
  const two = await webUi(context, other, second);
  check(new URL(one.url()).host !== new URL(two.url()).host, "two machines share an origin");
  for (const [window, { name }] of [[one, first], [two, second]]) {
    await window.reload();
    await loggedIn(window, name);
    await ownCookies(context, window, name);
  }
  const names = (await context.cookies(given.url)).map((cookie) => cookie.name);
  check(names.every((name) => name.startsWith("__Host-landline")), `the dashboard got cookies of machines: ${names}`);
  await one.close();
  const closed = Date.now();
  await request("window-closed", { agent: first.id });
  tell("disconnected", { ms: Date.now() - closed });
  await loggedIn(two, second.name);
  await page.goto(`${given.url}/agents/${first.id}/tunnels`);
  await page.getByText("disconnected, window closed").first().waitFor();
}

async function replay(page) {
  await page.goto(`${given.url}/sessions`);
  await page.getByRole("link", { name: "exited" }).first().click();
  await page.getByRole("button", { name: "16×" }).click();
  await page.waitForFunction(() => document.querySelector(".xterm-rows")?.textContent.includes("42-is-the-answer"));
  await page.locator("[data-testid=player][data-ended=true]").waitFor();
  await page.getByLabel("Moment").fill("0");
  await until("the replay is back at its beginning", () => page.locator(".xterm-rows").textContent().then((text) => !text.includes("42-is")));
}

async function audit(page) {
  await page.goto(`${given.url}/audit`);
  for (const action of given.actions) {
    await page.getByLabel("Action").fill(action);
    await page.getByLabel("Action").press("Enter");
    await page.locator("tbody tr").filter({ hasText: action }).first().waitFor();
    await until(`only ${action} is shown`, async () => {
      const rows = await page.locator("tbody tr td:nth-child(4)").allTextContents();
      return rows.length > 0 && rows.every((row) => row.startsWith(action));
    });
  }
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await page.getByText("whole, rows 1 to").waitFor();
}

script(async () => {
  // The machines' pages are their owners': what they log is theirs.
  const { context, page, close } = await open({ rules: given.rules });
  await people(page);
  await enrol(page);
  await page.goto(`${given.url}/fleet`);
  for (const { id } of given.agents) await page.getByRole("row").filter({ hasText: id }).getByText("Online").waitFor();
  await terminal(page);
  await files(page);
  await windows(context, page);
  await replay(page);
  await audit(page);
  await close();
});
