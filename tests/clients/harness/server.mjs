// The shipped binary as a process: start, SIGTERM, kill -9, start again on the same port and data.
//
// SYNCLINE_TEST_EXECUTOR=postgres gives every server a database of its own in PostgreSQL; otherwise its rows are in SQLite.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { copyDatabase, createDatabase, dropDatabase, isChosen as onPostgres } from "./postgres.mjs";
import { DEADLINE_MS } from "./wait.mjs";

const here = dirname(fileURLToPath(import.meta.url));
export const conformance = resolve(here, "../../conformance");

export const binary = resolve(process.env.SYNCLINE_BIN ?? join(here, "../../../target/release/syncline"));

/** Compiled code is the same for every server, and takes longer than most stories to make. */
const compiled = resolve(here, "../node_modules/.cache/syncline");

/** An engine of JavaScript is large, and compiled by the first server that has it. */
export const APP_START_MS = 180_000;

/** Of a long log the end is what explains a failure. */
const LOG_CHARACTERS_SHOWN = 6_000;

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Server {
  #child;
  #database;
  folder = mkdtempSync(join(tmpdir(), "syncline-clients-"));
  port = 0;

  static async start(options) {
    const server = new this(options);
    await server.start();
    return server;
  }

  /** How long a start may take. */
  get startMs() {
    return DEADLINE_MS;
  }

  get data() {
    return join(this.folder, "data");
  }

  /** The configuration file. */
  config() {
    return join(conformance, "secsync.toml");
  }

  /** How the server is started: the program and its arguments. */
  async command() {
    if (!existsSync(binary)) throw new Error(`no binary at ${binary}: build it, or set SYNCLINE_BIN`);
    if (!existsSync(this.data)) {
      mkdirSync(compiled, { recursive: true });
      mkdirSync(this.data);
      symlinkSync(compiled, join(this.data, "cache"));
    }
    const options = ["--config", this.config(), "--listen", `127.0.0.1:${this.port}`, "--data", this.data];
    if (onPostgres) {
      this.#database ??= await createDatabase();
      options.push("--executor", this.#database);
    }
    return [binary, options];
  }

  async start() {
    const [program, options] = await this.command();
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("SYNCLINE_"));
    const child = spawn(program, options, { env: Object.fromEntries(environment), stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    running.add(child);
    child.once("exit", () => running.delete(child));
    const log = createWriteStream(join(this.folder, "log"), { flags: "a" });
    child.stderr.pipe(log);
    this.port = await new Promise((resolve, reject) => {
      const refuse = (why) => reject(new Error(`the server did not start: ${why}\n${this.log()}`));
      const timer = setTimeout(refuse, this.startMs, "no address on standard output");
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

  /** Everything that the server keeps, as it is now; the server must have ended. */
  async saved() {
    const copy = join(this.folder, "saved");
    cpSync(this.data, copy, { recursive: true, verbatimSymlinks: true });
    return { copy, database: this.#database && (await copyDatabase(this.#database)) };
  }

  /** Goes back to what `saved` gave; the server must have ended. */
  async restore({ copy, database }) {
    rmSync(this.data, { recursive: true });
    cpSync(copy, this.data, { recursive: true, verbatimSymlinks: true });
    if (!database) return;
    await dropDatabase(this.#database);
    this.#database = database;
  }

  log() {
    const file = join(this.folder, "log");
    return existsSync(file) ? readFileSync(file, "utf8").slice(-LOG_CHARACTERS_SHOWN) : "(no log)";
  }

  async remove() {
    await this.kill();
    if (this.#database) await dropDatabase(this.#database);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
