// The shipped binary as a process: start, SIGTERM, kill -9, start again on the same port and data.
//
// SYNCLINE_TEST_EXECUTOR=postgres gives every server a database of its own in PostgreSQL; otherwise its rows are in SQLite.
// With SYNCLINE_TEST_HOST it runs under Spin (spin.mjs), and clients connect to a gateway.

import { cpSync, createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { copyDatabase, createDatabase, dropDatabase, isChosen as onPostgres } from "./postgres.mjs";
import { Process } from "./process.mjs";
import { Deployment, isChosen as onSpin } from "./spin.mjs";
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

export class Server {
  #front;
  #gateways = [];
  #database;
  /** What is behind the gateways, under Spin. */
  deployment = onSpin ? new Deployment() : undefined;
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

  #how() {
    return { log: createWriteStream(join(this.folder, "log"), { flags: "a" }), startMs: this.startMs };
  }

  /** Under Spin: what is behind the gateways. */
  async startDeployment() {
    await this.deployment.start(await this.command(), this.#how());
  }

  /** Under Spin: one more gateway. */
  async gateway() {
    const gateway = await this.deployment.gateway(binary, 0, this.#how());
    this.#gateways.push(gateway);
    return gateway;
  }

  async #startFront() {
    if (!this.deployment) return Process.start(await this.command(), this.#how());
    await this.startDeployment();
    return this.deployment.gateway(binary, this.port, this.#how());
  }

  async start() {
    try {
      this.#front = await this.#startFront();
    } catch (error) {
      throw new Error(`${error.message}\n${this.log()}`);
    }
    this.port = this.#front.port;
    const ready = await fetch(`http://127.0.0.1:${this.port}/readyz`, { signal: AbortSignal.timeout(DEADLINE_MS) });
    if (!ready.ok) throw new Error(`/readyz answers ${ready.status}: ${await ready.text()}`);
  }

  /** The endpoint of a mount, as an app configures it. */
  endpoint(mount = "/secsync", port = this.port) {
    return `ws://127.0.0.1:${port}${mount}`;
  }

  /** SIGTERM; the exit code. */
  async terminate() {
    const code = await this.#front?.terminate();
    await this.deployment?.kill();
    return code;
  }

  /** kill -9. */
  async kill() {
    await Promise.all([this.#front, this.deployment, ...this.#gateways].map((part) => part?.kill()));
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
