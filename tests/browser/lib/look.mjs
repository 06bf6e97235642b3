// Pictures of a page in every theme and width, and axe on it. Serious findings fail; pictures are for people.
import { AxeBuilder } from "@axe-core/playwright";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

export const DESK = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

/// Pictures `name` light, dark and on a phone into `folder`; `ready` waits until the page shows what it should.
export async function look(page, folder, name, ready = async () => {}) {
  mkdirSync(folder, { recursive: true });
  const findings = [];
  for (const [theme, size] of [
    ["light", DESK],
    ["dark", DESK],
    ["light", PHONE],
  ]) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
    await ready();
    const kind = size === PHONE ? "phone" : theme;
    await page.screenshot({ path: join(folder, `${name}-${kind}.png`) });
    findings.push(...(await inspect(page, `${name} ${kind}`)));
    if (size === PHONE) {
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) findings.push(`${name}: ${wide} px wider than a phone`);
    }
  }
  await page.setViewportSize(DESK);
  await page.emulateMedia({ colorScheme: "light" });
  return findings;
}

async function inspect(page, where) {
  // The terminal's own rows are a picture to assistive technology: xterm has a mode of its own for that.
  const { violations } = await new AxeBuilder({ page }).exclude(".xterm").analyze();
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${where}: ${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
}
