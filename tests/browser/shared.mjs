// Two people at the same tunnels, one of them behind what the other did: each is told what came of it.
import { check, open, until } from "./lib/browser.mjs";
import { setUp, signIn } from "./lib/enter.mjs";
import { given, request, script } from "./lib/talk.mjs";

const AT_CAP = "the tunnel has reached the longest life a tunnel may have; open a new one";
const OVER = "the tunnel is over; open a new one";
const CLOSED = "disconnected, closed by user";

/// A person's browser. While `hears` is false, no event reaches its page.
async function person(enters) {
  const { page, close } = await open();
  const one = { page, close, hears: true };
  await page.routeWebSocket(/\/api\/v1\/live/, (socket) => {
    const server = socket.connectToServer();
    server.onMessage((message) => {
      if (one.hears || JSON.parse(message).type !== "events") socket.send(message);
    });
  });
  await enters(page);
  await page.getByRole("heading", { name: "Fleet" }).waitFor();
  await page.goto(`${given.url}/agents/${given.agent}/tunnels`);
  for (const tunnel of given.tunnels) await row(one, tunnel).getByText("active").waitFor();
  return one;
}

const row = ({ page }, tunnel) => page.locator(`tr[data-tunnel="${tunnel}"]`);
const press = (one, tunnel, name) => row(one, tunnel).getByRole("button", { name, exact: true }).click();
const closed = (one, tunnel) => row(one, tunnel).getByText(CLOSED).waitFor();

/// Seconds that a row counts down.
async function left(one, tunnel) {
  const text = await row(one, tunnel).locator("td").nth(3).textContent();
  return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

/// The one message on the page, which is closed once it was read.
async function told({ page }, text) {
  const alert = page.locator(".toast.error");
  await alert.filter({ hasText: text }).waitFor();
  check((await alert.count()) === 1, `more than "${text}" is told`);
  await alert.getByRole("button", { name: "Close" }).click();
  await alert.waitFor({ state: "detached" });
}

async function extend(ada, bob) {
  const [tunnel] = given.tunnels;
  check((await left(bob, tunnel)) <= given.ttl, "it lives longer than it was opened for");
  await press(ada, tunnel, "Extend");
  for (const one of [ada, bob]) await until("both see it extended", async () => (await left(one, tunnel)) > given.ttl);
  await press(bob, tunnel, "Extend");
  await told(bob, AT_CAP);
  await Promise.all([ada, bob].map((one) => press(one, tunnel, "Extend")));
  for (const one of [ada, bob]) await told(one, AT_CAP);
}

async function end(ada, bob) {
  const [first, second, third] = given.tunnels;
  bob.hears = false;
  for (const [tunnel, button, says] of [[first, "Extend", OVER], [second, "Close"]]) {
    await press(ada, tunnel, "Close");
    await closed(ada, tunnel);
    check(await row(bob, tunnel).getByText("active").isVisible(), "bob heard of it");
    await press(bob, tunnel, button);
    if (says) await told(bob, says);
    await closed(bob, tunnel);
  }
  // Both at once, before either page hears of the other.
  ada.hears = false;
  await Promise.all([ada, bob].map((one) => press(one, third, "Close")));
  for (const one of [ada, bob]) await closed(one, third);
  for (const { page } of [ada, bob]) check((await page.locator(".toast.error").count()) === 0, "closed twice is no error");
}

script(async () => {
  const ada = await person((page) => setUp(page, given.setup));
  const bob = await person(async (page) => {
    await request("bob");
    await page.goto(given.url);
    await signIn(page, undefined, "bob");
  });
  await extend(ada, bob);
  await end(ada, bob);
  await ada.close();
  await bob.close();
});
