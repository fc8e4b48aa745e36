// node bench_app.mjs FILE: makes the app in TypeScript that the benchmarks load, for the tables of the fixture.

import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { App } from "./harness/app.mjs";
import { fixture } from "./harness/fixture.mjs";

const app = await App.make({ "src/mutators.ts": fileURLToPath(new URL("typescript/bench_mutators.ts", import.meta.url)) });
try {
  writeFileSync(join(app.folder, "settings.json"), JSON.stringify({ schema: fixture.schema }));
  await app.npm("run", "build");
  copyFileSync(join(app.folder, "dist/app.wasm"), process.argv[2]);
} finally {
  app.remove();
}
