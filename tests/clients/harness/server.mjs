// The shipped binary as a process: start, SIGTERM, kill -9, start again on the same port and data.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { DEADLINE_MS } from "./wait.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const config = resolve(here, "../../conformance/secsync.toml");

export const binary = resolve(process.env.SYNCLINE_BIN ?? join(here, "../../../target/release/syncline"));

/** Of a long log the end is what explains a failure. */
const LOG_CHARACTERS_SHOWN = 6_000;

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Server {
  #child;
  #folder = mkdtempSync(join(tmpdir(), "syncline-clients-"));
  port = 0;

  static async start() {
    const server = new Server();
    await server.start();
    return server;
  }

  async start() {
    if (!existsSync(binary)) throw new Error(`no binary at ${binary}: build it, or set SYNCLINE_BIN`);
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("SYNCLINE_"));
    const child = spawn(
      binary,
      ["--config", config, "--listen", `127.0.0.1:${this.port}`, "--data", join(this.#folder, "data")],
      { env: Object.fromEntries(environment), stdio: ["ignore", "pipe", "pipe"] },
    );
    this.#child = child;
    running.add(child);
    child.once("exit", () => running.delete(child));
    const log = createWriteStream(join(this.#folder, "log"), { flags: "a" });
    child.stderr.pipe(log);
    this.port = await new Promise((resolve, reject) => {
      const refuse = (why) => reject(new Error(`the server did not start: ${why}\n${this.log()}`));
      const timer = setTimeout(refuse, DEADLINE_MS, "no address on standard output");
      child.once("error", (error) => refuse(error.message));
      child.once("exit", (code, signal) => refuse(`it ended with ${code ?? signal}`));
      createInterface({ input: child.stdout }).on("line", (line) => {
        const address = /^listening on http:\/\/127\.0\.0\.1:(\d+)$/.exec(line);
        if (!address) return;
        clearTimeout(timer);
        resolve(Number(address[1]));
      });
    });
    const ready = await fetch(`http://127.0.0.1:${this.port}/readyz`, { signal: AbortSignal.timeout(DEADLINE_MS) });
    if (!ready.ok) throw new Error(`/readyz answers ${ready.status}: ${await ready.text()}`);
  }

  /** The endpoint of a mount, as an app configures it. */
  endpoint(mount = "/secsync", port = this.port) {
    return `ws://127.0.0.1:${port}${mount}`;
  }

  async #end(signal) {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, "exit", { signal: AbortSignal.timeout(DEADLINE_MS) });
    child.kill(signal);
    const [code] = await ended;
    return code;
  }

  /** SIGTERM; the exit code. */
  terminate() {
    return this.#end("SIGTERM");
  }

  /** kill -9. */
  kill() {
    return this.#end("SIGKILL");
  }

  log() {
    const file = join(this.#folder, "log");
    return existsSync(file) ? readFileSync(file, "utf8").slice(-LOG_CHARACTERS_SHOWN) : "(no log)";
  }

  async remove() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
