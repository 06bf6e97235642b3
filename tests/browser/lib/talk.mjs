// The script's side of the conversation with the Rust test that runs it: a line out for what happened, a line in for
// what the test did about it.
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export function tell(word, value = {}) {
  process.stdout.write(`${JSON.stringify({ word, ...value })}\n`);
}

/// Tells, and waits until the test has done its part.
export async function request(word, value = {}) {
  tell(word, value);
  const { value: line, done } = await lines.next();
  if (done) throw new Error("the test is gone");
  return JSON.parse(line);
}

/// What the test gave the script to begin with.
export const given = JSON.parse(process.env.LANDLINE_GIVEN ?? "{}");

/// Runs the script and ends with its outcome.
export async function script(run) {
  try {
    await run();
    tell("done");
    process.exit(0);
  } catch (error) {
    process.stderr.write(`${error.stack ?? error}\n`);
    process.exit(1);
  }
}
