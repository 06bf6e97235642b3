// What the dashboard weighs, compressed, and that its first page fetches neither terminal nor charts.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { check } from "./lib/browser.mjs";
import { script, tell } from "./lib/talk.mjs";

const MOST = 400_000;

script(async () => {
  const dist = new URL("../../master/dashboard/dist/", import.meta.url).pathname;
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const sizes = files.map((entry) => [entry.name, gzipSync(readFileSync(join(entry.parentPath ?? entry.path, entry.name))).length]);
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  check(total <= MOST, `${total} bytes: ${JSON.stringify(sizes)}`);
  const index = readFileSync(join(dist, "index.html"), "utf8");
  const first = [...index.matchAll(/(?:src|href)="\/([^"]+)"/g)].map(([, path]) => path);
  const eager = first.map((path) => readFileSync(join(dist, path), "utf8")).join("");
  check(!eager.includes("xterm-helper-textarea"), "the first page holds the terminal");
  check(!eager.includes("uPlot"), "the first page holds the charts");
  check(!/<script>|<style|\son\w+=|https?:\/\//.test(index), "the page has inline parts or foreign addresses");
  tell("bytes", { total, sizes });
});
