// What agents say is text on every page, whatever it looks like (SECURITY R53).
import { enter } from "./lib/enter.mjs";
import { check, open, until } from "./lib/browser.mjs";
import { given, request, script } from "./lib/talk.mjs";

/// Nothing of the corpus became an element, ran, or left the page.
async function unharmed(page, where) {
  const found = await page.evaluate(() => ({
    ran: window.__ran ?? null,
    planted: document.querySelectorAll("[data-planted], main script, main iframe, main object, main embed, main base, main meta, main style:not(.xterm style)").length,
    title: document.title,
    handlers: [...document.querySelectorAll("main *")].filter((element) => [...element.attributes].some(({ name }) => name.startsWith("on"))).length,
    links: [...document.querySelectorAll("main a")].filter((link) => !/^https?:$/.test(link.protocol)).length,
  }));
  check(found.ran === null, `${where}: ${found.ran} ran`);
  check(found.planted === 0 && found.handlers === 0 && found.links === 0, `${where}: ${JSON.stringify(found)}`);
  check(found.title.endsWith("Landline"), `${where}: the title is ${found.title}`);
}

script(async () => {
  const { page, context, close, hosts } = await open();
  await enter(page, given);
  for (const { id, hostname } of given.puppets) {
    await page.goto(`${given.url}/fleet`);
    await page.getByRole("row").filter({ hasText: id }).filter({ hasText: hostname }).first().waitFor();
    await unharmed(page, `fleet with ${hostname}`);
    await page.goto(`${given.url}/agents/${id}`);
    await page.getByText(hostname, { exact: true }).first().waitFor();
    await page.getByText(given.mount, { exact: false }).first().waitFor();
    await page.getByText("Policy of its owner").click();
    await unharmed(page, `agent with ${hostname}`);
    await page.goto(`${given.url}/agents/${id}/timeline`);
    await page.getByText("agent online").first().waitFor();
    await unharmed(page, `timeline with ${hostname}`);
  }

  await page.goto(`${given.url}/agents/real/commands`);
  await page.getByLabel("Command line").fill(`cat ${given.output}`);
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByText("exit code 0").waitFor();
  check((await page.getByTestId("output").textContent()).includes("<img src=x"), "the output is not shown as it is");
  await unharmed(page, "output of an exec");

  await page.evaluate((folder) => sessionStorage.setItem("folder:real", folder), given.folder);
  await page.goto(`${given.url}/agents/real/files`);
  await page.getByText("<img src=x", { exact: false }).first().waitFor();
  await unharmed(page, "names of files");

  await page.evaluate(() => navigator.clipboard.writeText("untouched"));
  await page.goto(`${given.url}/agents/real/terminal`);
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.locator(".xterm-helper-textarea").waitFor();
  await page.keyboard.type(`cat ${given.output}; echo en''ded\n`);
  await until("the terminal shows it", () => page.locator(".xterm-rows").textContent().then((text) => text.includes("ended")));
  await unharmed(page, "a terminal");
  check((await page.evaluate(() => navigator.clipboard.readText())) === "untouched", "OSC 52 reached the clipboard");

  // A file that is a page must come as a file.
  const answer = await context.request.get(`${given.url}/api/v1/agents/real/files/content?path=${encodeURIComponent(`${given.folder}/page.html`)}`);
  check(answer.ok(), `the file is not to be had: ${answer.status()}`);
  check(answer.headers()["content-type"] === "application/octet-stream", `a page of an agent comes as ${answer.headers()["content-type"]}`);
  check(answer.headers()["x-content-type-options"] === "nosniff", "a page of an agent may be guessed at");

  await request("end-shells");
  const own = new URL(given.url).host;
  const foreign = [...hosts].filter((host) => host !== own);
  check(foreign.length === 0, `requests went to ${foreign}`);
  await close();
});
