// The examples for newcomers run as they stand, against the demonstration. They have packages of their own: `npm ci` in examples/.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Server } from "./harness/server.mjs";
import { Stage, stories } from "./harness/stage.mjs";

const examples = join(dirname(fileURLToPath(import.meta.url)), "../../examples");

/** What is served where there is no configuration file. */
class Demonstration extends Server {
  async command() {
    const [program, options] = await super.command();
    return [program, options.toSpliced(options.indexOf("--config"), 2)];
  }
}

const story = stories(Stage, () => Demonstration.start());

/** The lines that an example prints. */
async function run(example, endpoint) {
  const { stdout } = await promisify(execFile)(process.execPath, [join(examples, example), endpoint]);
  return stdout.trim().split("\n");
}

story("the two clients of secsync's example end with the same text", async (stage) => {
  const [ann, bob] = await run("secsync-two-clients.mjs", stage.server.endpoint("/secsync"));
  assert.match(ann, /^ann: .*Hello, Bob!/);
  assert.match(ann, /Hello, Ann!/);
  assert.equal(bob, ann.replace("ann:", "bob:"));
});

story("the two clients of plasma's example end with the same rows", async (stage) => {
  const lines = await run("plasma-two-clients.mjs", `http://127.0.0.1:${stage.server.port}/sync`);
  assert.deepEqual(lines, ["ann: Buy milk, Buy bread", "bob: Buy milk, Buy bread"]);
});
