// Somebody who tries passwords at the sign-in page: told plainly, slowed more and more, and nobody else's trouble.
import { check, open } from "./lib/browser.mjs";
import { PASSWORD, setUp, signIn } from "./lib/enter.mjs";
import { given, request, script, tell } from "./lib/talk.mjs";

const WRONG = "the name or the password is wrong";

/// Tries once, on the page as it stands, and gives what it says and how long that took.
async function attempt(page, name, password) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  const begun = Date.now();
  const answered = page.waitForResponse("**/api/v1/login");
  await page.getByRole("button", { name: "Sign in" }).click();
  await answered;
  const took = Date.now() - begun;
  await page.waitForFunction(() => document.querySelector("[role=alert]")?.textContent);
  check(await page.getByRole("heading", { name: "Sign in" }).isVisible(), "the page is gone");
  return { said: await page.getByRole("alert").textContent(), took };
}

script(async () => {
  const inside = await open();
  await setUp(inside.page, given.setup);
  await request("bob");
  const { page, close } = await open();
  await page.goto(given.url);
  for (let at = 0; at < given.free; at += 1) {
    const { said } = await attempt(page, "ada", `guess ${at}`);
    check(said === WRONG, `attempt ${at}: ${said}`);
  }
  // From here on nothing tells whether a guess was right, the right one included.
  for (const password of ["one more guess", PASSWORD]) {
    const { said } = await attempt(page, "ada", password);
    check(/^too many failed attempts; try again in ([1-5]?\d|60) s$/.test(said), said);
  }
  // Other names from here are slowed instead: 0.1 s, doubled each time.
  const tries = [];
  for (let at = 0; at < 5; at += 1) {
    const { said, took } = await attempt(page, `nobody-${at}`, "guess");
    check(said === WRONG, said);
    tries.push(took);
  }
  tell("slowed", { tries });
  check(tries[4] >= 1_500 && tries[3] >= 750, `not slowed: ${tries} ms`);
  // Who is in stays in, and whoever knows a password comes in at once, from the same address.
  await inside.page.reload();
  await inside.page.getByRole("heading", { name: "Fleet" }).waitFor();
  await signIn(page, undefined, "bob");
  await page.getByRole("heading", { name: "Fleet" }).waitFor();
  await close();
  await inside.close();
});
