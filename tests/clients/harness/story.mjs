// A test and its stage: a server, clients, and everything cleared away afterwards. On failure the
// seed, the clients' states and last frames and the end of the server's log are shown.

import { after, test } from "node:test";
import { Client } from "./client.mjs";
import { Proxy } from "./proxy.mjs";
import { Tap, Writer } from "./raw.mjs";
import { Server } from "./server.mjs";
import { randomFrom, seed } from "./wait.mjs";

const STORY_MS = 60_000;

let shared;
const sharedServer = () => (shared ??= Server.start());
after(async () => (await shared)?.remove());

let storyCount = 0;

class Stage {
  #number = (storyCount += 1);
  #cleanups = [];
  #described = [];
  #servers = [];
  random = randomFrom(seed + this.#number);
  mount = "/secsync";

  /** An id that no other story uses. */
  documentId = `story-${seed}-${this.#number}`;

  /** A server that the story may end; otherwise all stories of a file share one. */
  async ownServer() {
    const server = await Server.start();
    this.#servers.push(server);
    this.#cleanups.push(() => server.remove());
    this.server = server;
    return server;
  }

  async sharedServer() {
    this.server = await sharedServer();
    this.#servers.push(this.server);
  }

  async proxy(options) {
    const proxy = await Proxy.open(this.server, options);
    this.#cleanups.push(() => proxy.close());
    return proxy;
  }

  #join(Kind, { port, ...options }) {
    const endpoint = this.server.endpoint(this.mount, port);
    const joined = new Kind({ endpoint, documentId: this.documentId, ...options });
    this.#cleanups.push(() => joined.stop());
    this.#described.push(joined);
    return joined;
  }

  /** The real client. `port`: of a proxy. */
  client(name, options = {}) {
    return this.#join(Client, { name, ...options });
  }

  /** Clients whose document is loaded. */
  async clients(names, options = {}) {
    const clients = names.map((name) => this.client(name, options));
    await Promise.all(clients.map((client) => client.waitFor("the document", () => client.loaded())));
    return clients;
  }

  tap(name, options = {}) {
    return this.#join(Tap, { name, ...options });
  }

  async writer(name, options = {}) {
    const writer = this.#join(Writer, { name, ...options });
    await writer.document();
    return writer;
  }

  async clear() {
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
  }

  evidence() {
    const described = this.#described.map((thing) => `${thing.describe()}${thing instanceof Client ? `\n${thing.frames()}` : ""}`);
    const logs = this.#servers.map((server) => `--- end of the server's log\n${server.log()}`);
    return [`--- seed: SYNCLINE_TEST_SEED=${seed}`, ...described, ...logs].join("\n");
  }
}

/** `ownServer`: the story gets a server of its own as `stage.server`, which it may end. */
export function story(name, act, { ownServer = false, scale = 1 } = {}) {
  test(name, { timeout: STORY_MS * scale }, async () => {
    const stage = new Stage();
    try {
      await (ownServer ? stage.ownServer() : stage.sharedServer());
      await act(stage);
    } catch (error) {
      console.error(`\n=== ${name}\n${stage.evidence()}\n`);
      throw error;
    } finally {
      await stage.clear();
    }
  });
}
