// A dashboard that is left open while the master is killed and started again, and while its session ends.
import { enter, signIn } from "./lib/enter.mjs";
import { check, open } from "./lib/browser.mjs";
import { given, request, script } from "./lib/talk.mjs";

script(async () => {
  const { page, context, close } = await open();
  await enter(page, given);
  await page.goto(`${given.url}/agents/home/terminal`);
  await page.getByRole("button", { name: "New terminal" }).click();
  const rows = page.locator(".xterm-rows");
  const shows = (text) => page.waitForFunction((text) => document.querySelector(".xterm-rows")?.textContent.includes(text), text);
  await page.locator(".xterm-helper-textarea").waitFor();
  await page.keyboard.type("echo bef''ore\n");
  await shows("before");

  await request("kill");
  await page.getByText("The master does not answer.").waitFor();
  check((await rows.textContent()).includes("before"), "the terminal was wiped");
  await request("start");
  await page.getByText("The master does not answer.").waitFor({ state: "hidden", timeout: 30_000 });
  await page.getByText("Online").first().waitFor({ timeout: 30_000 });
  // The same terminal goes on: its session belongs to the agent.
  await page.locator(".xterm-helper-textarea").focus();
  await page.waitForFunction(() => !document.querySelector(".under")?.textContent);
  await page.keyboard.type("echo af''ter\n");
  await shows("after");

  // So does a reload of the page.
  await page.reload();
  await shows("after");
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("echo aga''in\n");
  await shows("again");

  if (given.setup) {
    // The session ends elsewhere: the login comes by itself, and then the page where one was.
    await context.clearCookies();
    await request("kill");
    await request("start");
    await page.getByRole("heading", { name: "Sign in" }).waitFor({ timeout: 30_000 });
    await signIn(page);
    await page.getByRole("link", { name: "Terminal" }).waitFor();
    check(page.url().endsWith("/agents/home/terminal"), `after the login one is at ${page.url()}`);
  }
  await close();
});
