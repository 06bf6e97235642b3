// The way in: the one-time link of a new master, or name and password.
export const PASSWORD = "a long and quiet winter evening";

/// Makes the first administrator by the setup link and waits for the fleet.
export async function setUp(page, link, name = "ada") {
  await page.goto(link);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByLabel("Password again").fill(PASSWORD);
  await page.getByRole("button", { name: "Create" }).click();
  await page.waitForURL("**/fleet");
}

export async function signIn(page, code, name = "ada") {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  if (!code) return;
  await page.getByLabel("Code of your authenticator").fill(code());
  await page.getByRole("button", { name: "Sign in" }).click();
}

/// By the setup link where the test gave one, else whoever the address knows already.
export async function enter(page, { setup, url }) {
  if (setup) await setUp(page, setup);
  else await page.goto(url);
  await page.getByRole("heading", { name: "Fleet" }).waitFor();
}
