// Apps in TypeScript, made by `syncline new-app` and built with the packages of these tests.

import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import esbuild from "esbuild";
import { APP_START_MS, binary } from "../../harness/server.mjs";
import { PlasmaServer } from "./server.mjs";

const packages = resolve(fileURLToPath(new URL("../../node_modules", import.meta.url)));

/** A folder with an app. */
export class App {
  #parent = mkdtempSync(join(tmpdir(), "syncline-app-"));
  folder = join(this.#parent, "my-app");

  /** `sources`: files by their place in the app, that take the place of those that it begins with. */
  static async make(sources = {}) {
    const app = new this();
    await promisify(execFile)(binary, ["new-app", "--lang", "ts", "my-app", "--into", app.#parent]);
    symlinkSync(packages, join(app.folder, "node_modules"));
    for (const [place, source] of Object.entries(sources)) cpSync(source, join(app.folder, place));
    return app;
  }

  /** `npm …` in it; what it says. */
  async npm(...command) {
    const env = { ...process.env, SYNCLINE_BIN: binary };
    // The tests of the app are run on their own, and not by this runner.
    delete env.NODE_TEST_CONTEXT;
    const { stdout } = await promisify(execFile)("npm", command, { cwd: this.folder, env });
    return stdout;
  }

  /** Its mutators, as the browser has them. */
  async mutators() {
    const outfile = join(this.folder, "dist/mutators.mjs");
    await esbuild.build({ entryPoints: [join(this.folder, "src/mutators.ts")], bundle: true, format: "esm", outfile });
    return (await import(outfile)).mutators;
  }

  remove() {
    rmSync(this.#parent, { recursive: true, force: true });
  }
}

/** A server with the configuration of an app. */
export class AppServer extends PlasmaServer {
  constructor(app) {
    super();
    this.app = app;
  }

  /** The first one compiles the app. */
  get startMs() {
    return APP_START_MS;
  }

  config() {
    return join(this.app.folder, "syncline.toml");
  }
}
