// By keyboard, on many machines at once, and over somebody's shoulder.
import { enter } from "./lib/enter.mjs";
import { check, open } from "./lib/browser.mjs";
import { given, script } from "./lib/talk.mjs";

async function keyboard(page) {
  await page.locator("body").press("/");
  check(await page.evaluate(() => document.activeElement?.matches("input[type=search]")), "/ does not search");
  await page.keyboard.type(given.agents[1].id);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelectorAll(".virtual .row").length === 1);
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/agents/${given.agents[1].id}`);
  for (const [keys, heading] of [["gt", "Tunnels"], ["gs", "Sessions"], ["gc", "Settings"], ["gf", "Fleet"]]) {
    for (const key of keys) await page.keyboard.press(key);
    await page.getByRole("heading", { name: heading, exact: true }).waitFor();
  }
  // The search is still there: one comes back to what one looked for.
  check((await page.getByRole("searchbox").inputValue()) === given.agents[1].id, "the search was forgotten");
  await page.getByRole("searchbox").fill("");
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  await page.getByText("this help").waitFor();
  await page.keyboard.press("Escape");
  await page.getByText("this help").waitFor({ state: "hidden" });
}

async function many(page) {
  await page.getByLabel("Choose all shown").check();
  await page.getByText(`${given.agents.length} chosen`).waitFor();
  await page.getByRole("button", { name: "Label", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("site");
  await dialog.getByLabel("Value").fill("berlin");
  await dialog.getByRole("button", { name: "Set" }).click();
  await page.getByText("site=berlin").nth(given.agents.length).waitFor();
  await page.getByLabel("Label", { exact: true }).selectOption("site=berlin");
  await page.getByTestId("count").filter({ hasText: `${given.agents.length} of ${given.agents.length}` }).waitFor();

  await page.getByRole("button", { name: "Run a command" }).click();
  await dialog.getByLabel("Command line").fill("echo from-$((40+2)); exit 3");
  await dialog.getByRole("button", { name: /^Run on/ }).click();
  for (let at = 0; at < given.agents.length; at += 1) {
    await dialog.getByText("exit code 3").nth(at).waitFor();
    await dialog.getByText("from-42").nth(at).waitFor();
  }
  await dialog.getByRole("button", { name: "Close" }).click();

  await page.getByRole("button", { name: "Suspend", exact: true }).first().click();
  await dialog.getByRole("button", { name: "Suspend" }).click();
  await page.locator(".fleet-row .chip.bad").nth(given.agents.length - 1).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  // They may come back, and do in their own time: a refused agent asks again a minute later.
  await page.waitForFunction(() => !document.querySelector(".fleet-row .chip.bad"));
}

async function shoulder(context, page) {
  await page.goto(`${given.url}/agents/${given.agents[0].id}/terminal`);
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.locator(".xterm-helper-textarea").waitFor();
  const other = await context.newPage();
  await other.goto(`${given.url}/sessions`);
  await other.getByRole("link", { name: "live" }).first().click();
  await page.keyboard.type("echo se''en\n");
  const shows = (text) => document.querySelector(".xterm-rows")?.textContent.includes(text);
  await other.waitForFunction(shows, "seen");
  await other.locator(".xterm").click();
  await other.keyboard.type("echo nev''er\n");
  await page.keyboard.type("echo la''st\n");
  await other.waitForFunction(shows, "last");
  check(!(await page.locator(".xterm-rows").textContent()).includes("never"), "a watcher typed");
  await other.getByRole("button", { name: "End it" }).click();
  await page.getByText("The session is over").waitFor();
}

script(async () => {
  const { page, context, close } = await open();
  await enter(page, given);
  await page.getByRole("row").filter({ hasText: given.agents[0].id }).waitFor();
  await keyboard(page);
  await shoulder(context, page);
  await page.goto(`${given.url}/fleet`);
  await many(page);
  await close();
});
