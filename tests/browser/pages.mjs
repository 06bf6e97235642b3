// Every page in light, in dark and on a phone: pictures for people, axe for what machines can judge.
import { enter } from "./lib/enter.mjs";
import { check, open } from "./lib/browser.mjs";
import { look } from "./lib/look.mjs";
import { given, script, tell } from "./lib/talk.mjs";

/// The same session over a colleague's shoulder.
async function watched(page) {
  const other = await page.context().newPage();
  await other.goto(`${given.url}/sessions`);
  await other.getByRole("link", { name: "live" }).first().click();
  const shows = () => other.waitForFunction(() => document.querySelector(".xterm-rows")?.textContent.includes("load average"));
  const findings = await look(other, given.pictures, "live", shows);
  await other.close();
  return findings;
}

script(async () => {
  const { page, close } = await open();
  const findings = [];
  const at = async (path, name, ready) => {
    await page.goto(`${given.url}${path}`);
    await ready?.();
    findings.push(...(await look(page, given.pictures, name, ready)));
    // So that the test sees it go on.
    tell("page", { name });
  };
  const sees = (text) => () => page.getByText(text).first().waitFor();
  if (given.setup) {
    await page.goto(given.setup);
    findings.push(...(await look(page, given.pictures, "setup", sees("The first administrator"))));
  }
  await enter(page, given);
  await at("/fleet", "fleet", sees("home-1"));
  await at("/agents/home-1", "agent", () => page.locator(".charts canvas").first().waitFor());

  await page.goto(`${given.url}/agents/home-1/terminal`);
  findings.push(...(await look(page, given.pictures, "terminal-empty", sees("No terminal is open here"))));
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.locator(".xterm-helper-textarea").waitFor();
  await page.keyboard.type("ls --color=always /usr; uptime\n");
  await page.waitForFunction(() => document.querySelector(".xterm-rows")?.textContent.includes("load average"));
  findings.push(...(await look(page, given.pictures, "terminal", sees("Terminal 1"))));
  findings.push(...(await watched(page)));
  await page.keyboard.type("exit\n");
  await page.getByText("The session is over").waitFor();

  await page.evaluate((folder) => sessionStorage.setItem("folder:home-1", folder), given.folder);
  await at("/agents/home-1/files", "files", sees("report.txt"));
  await at("/agents/home-1/tunnels", "agent-tunnels", sees("active"));
  await page.goto(`${given.url}/agents/home-1/commands`);
  await page.getByLabel("Command line").fill("df -h / /tmp");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText("exit code").waitFor();
  await page.getByRole("button", { name: "Call" }).click();
  findings.push(...(await look(page, given.pictures, "commands", sees("Payload"))));
  await page.getByRole("button", { name: "New key" }).click();
  findings.push(...(await look(page, given.pictures, "new-key", sees("Give home-1 a new key?"))));
  await page.getByRole("dialog").getByRole("button", { name: "New key" }).click();
  await sees("home-1 has a new key")();
  await at("/agents/home-1/timeline", "timeline", sees("agent key rotated"));
  await at("/tunnels", "tunnels", sees("active"));
  await at("/sessions", "sessions", sees("exited"));
  await page.getByRole("link", { name: "exited" }).first().click();
  // By name, not by an id.
  await page.getByText(/Opened by \w+ at/).waitFor();
  findings.push(...(await look(page, given.pictures, "replay", () => page.getByRole("button", { name: /Play|Pause/ }).waitFor())));
  for (const { path, name, text } of given.more ?? []) await at(path, name, sees(text));
  await page.goto(`${given.url}/fleet`);
  await page.getByText("home-1").first().waitFor();
  await page.keyboard.press("?");
  findings.push(...(await look(page, given.pictures, "help", sees("this help"))));
  if (given.setup) {
    await page.context().clearCookies();
    await at("/fleet", "login", sees("Sign in"));
  }
  tell("findings", { findings });
  check(findings.length === 0, findings.join("\n"));
  await close();
});
