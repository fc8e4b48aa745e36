// The real, unmodified Replicache client, wired as an app wires it: pokes make it pull.

import { EventEmitter, setMaxListeners } from "node:events";
import { isDeepStrictEqual } from "node:util";
import { Replicache, dropDatabase } from "replicache";
import { until } from "../../harness/wait.mjs";
import { SCHEMA_VERSION, mutatorsOf, userOf } from "./fixture.mjs";
import { pokesOf } from "./pokes.mjs";

// The client has a dozen things to end when it is closed, and Node would warn of them.
setMaxListeners(100);

const EXCHANGES_SHOWN = 25;
const PATCH_KEPT = 100;

/** By the id that each request carries. */
const clients = new Map();

/** The client asks the global `fetch`; what it asks, and what it is told, is noted. */
const bareFetch = globalThis.fetch;
globalThis.fetch = (request, options) => {
  const id = request instanceof Request ? request.headers.get("x-replicache-requestid") : null;
  const client = clients.get(id?.split("-")[0]);
  return client ? client.exchange(request) : bareFetch(request, options);
};

export class Client extends EventEmitter {
  #pokes;
  #rows = new Map();
  /** Every push and pull in short: kind, what was sent, status, and what came back. */
  exchanges = [];
  /** What the client logged as an error, but for answers other than 200. */
  complaints = [];
  updatesNeeded = [];
  statesLost = 0;
  /** The newest cookie that it was given. */
  cookie = null;

  /**
   * `pokes`: `sse`, `websocket`, `data` or `none`. `store`: instances of one store are tabs of one browser.
   * `getAuth` gives the next token when the server refuses one.
   */
  constructor({ endpoint, name, store, token = "tok-alice", pokes = "sse", schemaVersion = SCHEMA_VERSION, mutators, getAuth }) {
    super();
    this.name = name;
    this.endpoint = endpoint;
    this.replicache = new Replicache({
      name: store ?? name,
      auth: token,
      pushURL: `${endpoint}/push`,
      pullURL: `${endpoint}/pull`,
      schemaVersion,
      mutators: mutators ?? mutatorsOf(userOf(token)),
      // Nothing is learned by asking again and again: a story that needs that must fail.
      pullInterval: null,
      kvStore: "mem",
      logLevel: "error",
      logSinks: [{ log: (_level, _context, ...parts) => this.#logged(parts.map(String).join(" ")) }],
    });
    clients.set(this.replicache.clientID, this);
    if (getAuth) this.replicache.getAuth = getAuth;
    this.replicache.onSync = () => this.emit("change");
    this.replicache.onUpdateNeeded = (reason) => this.#noted(() => this.updatesNeeded.push(reason));
    this.replicache.onClientStateNotFound = () => this.#noted(() => (this.statesLost += 1));
    this.replicache.experimentalWatch((diff) => this.#changed(diff), { initialValuesInFirstDiff: true });
    this.#pokes = pokesOf(pokes, this);
  }

  #noted(note) {
    note();
    this.emit("change");
  }

  #logged(text) {
    if (!/non 200 response|Client state not found on server/.test(text)) this.complaints.push(text);
  }

  #changed(diff) {
    for (const { op, key, newValue } of diff) {
      if (op === "del") this.#rows.delete(key);
      else this.#rows.set(key, newValue);
    }
    this.emit("change");
  }

  /** Sends a request of the client and notes what became of it. */
  async exchange(request) {
    const kind = new URL(request.url).pathname.split("/").at(-1);
    const asked = await request.clone().json();
    const entry = { kind, clientGroupID: asked.clientGroupID, sent: asked.mutations?.length ?? asked.cookie, status: undefined };
    this.exchanges.push(entry);
    this.emit("change");
    try {
      const response = await bareFetch(request);
      const reply = await response.clone().json().catch(() => ({}));
      const { error, cookie, hasMore, reset, patch } = reply;
      Object.assign(entry, { status: response.status, error, cookie, hasMore, reset, patchLength: patch?.length });
      entry.patch = patch?.slice(0, PATCH_KEPT).map(({ op, key }) => (key ? `${op} ${key}` : op));
      if (kind === "pull" && cookie !== undefined) this.cookie = cookie;
      return response;
    } catch (failure) {
      entry.status = "no answer";
      throw failure;
    } finally {
      this.emit("change");
    }
  }

  /** Rows as the app sees them: key to value, what is not yet acknowledged included. */
  get rows() {
    return this.#rows;
  }

  row(key) {
    return this.#rows.get(key);
  }

  get mutate() {
    return this.replicache.mutate;
  }

  /** Pushes or pulls that ended, in order. */
  ended(kind) {
    return this.exchanges.filter((entry) => entry.kind === kind && entry.status !== undefined);
  }

  pull() {
    // A failed pull is repeated by the client; a closed client has nobody to tell.
    this.replicache.pull().catch(() => {});
  }

  /** Hands over what the server sent unasked; rejects if it does not follow what the client has. */
  async poke(poke) {
    await this.replicache.poke(poke);
    this.cookie = poke.pullResponse.cookie;
    this.emit("change");
  }

  async pending() {
    // It must have opened its store before it can be asked.
    await this.replicache.query(() => {});
    return this.replicache.experimentalPendingMutations();
  }

  waitFor(what, condition, deadlineMs) {
    return until(`${this.name}: ${what}`, [this], condition, deadlineMs);
  }

  /** Everything that was done here is acknowledged, and known to be so. */
  saved(deadlineMs) {
    return this.waitFor("everything is acknowledged", async () => (await this.pending()).length === 0, deadlineMs);
  }

  /** The first pull has ended. */
  loaded() {
    return this.waitFor("the first load", () => this.ended("pull").some(({ status, hasMore }) => status === 200 && hasMore === false));
  }

  /** A row is there, and as `expected` says. */
  sees(key, expected = {}, deadlineMs) {
    const fits = (row) => row !== undefined && Object.entries(expected).every(([name, value]) => isDeepStrictEqual(row[name], value));
    return this.waitFor(`${key} with ${JSON.stringify(expected).slice(0, 200)}`, () => fits(this.row(key)), deadlineMs);
  }

  misses(key) {
    return this.waitFor(`no ${key}`, () => !this.#rows.has(key));
  }

  /** Ends the stream of pokes; the client works on, and hears nothing. */
  deafen() {
    this.#pokes.stop();
  }

  /** Listens to pokes again. */
  listen(pokes) {
    this.#pokes.stop();
    this.#pokes = pokesOf(pokes, this);
  }

  get pokes() {
    return this.#pokes;
  }

  describe() {
    const lost = this.statesLost > 0 ? ", state lost" : "";
    return `${this.name}: ${this.#rows.size} rows, cookie ${JSON.stringify(this.cookie)}, ${this.exchanges.length} requests${lost}, complaints [${this.complaints}]`;
  }

  evidence() {
    const line = ({ patch, ...entry }) => `    ${JSON.stringify(entry)} ${(patch ?? []).slice(0, 5).join(", ")}`;
    return [this.describe(), `    pokes: ${this.#pokes.describe()}`, ...this.exchanges.slice(-EXCHANGES_SHOWN).map(line)].join("\n");
  }

  async stop() {
    this.#pokes.stop();
    if (!this.replicache.closed) await this.replicache.close();
    clients.delete(this.replicache.clientID);
  }
}

/** Waits until everybody's mutations are acknowledged and all have the same rows; gives those. */
export async function converged(group, deadlineMs) {
  const [first, ...others] = group;
  await until("all have the same rows and nothing is pending", group, async () => {
    const pending = await Promise.all(group.map((client) => client.pending()));
    return pending.every(({ length }) => length === 0) && others.every((other) => isDeepStrictEqual(other.rows, first.rows));
  }, deadlineMs);
  return first.rows;
}

/** What an app does whose state was lost: it drops what the browser keeps, since every new client would begin with it, and starts again. */
export async function beginAnew(stage, client, options) {
  const { idbName } = client.replicache;
  await client.stop();
  await dropDatabase(idbName, { kvStore: "mem" });
  const fresh = stage.client(`${client.name} anew`, options);
  await fresh.loaded();
  return fresh;
}
