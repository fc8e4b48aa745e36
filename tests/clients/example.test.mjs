// The example for newcomers runs as it stands. It has packages of its own: `npm ci` in examples/.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { story } from "./harness/story.mjs";

const example = join(dirname(fileURLToPath(import.meta.url)), "../../examples/secsync-two-clients.mjs");

story("the two clients of the example end with the same text", async (stage) => {
  const { stdout } = await promisify(execFile)(process.execPath, [example, stage.server.endpoint()]);
  const [ann, bob] = stdout.trim().split("\n");
  assert.match(ann, /^ann: .*Hello, Bob!/);
  assert.match(ann, /Hello, Ann!/);
  assert.equal(bob, ann.replace("ann:", "bob:"));
});
