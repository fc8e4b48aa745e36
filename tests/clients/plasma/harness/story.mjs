// The stage of plasma's stories.

import assert from "node:assert/strict";
import { Stage, stories } from "../../harness/stage.mjs";
import { Pusher } from "./api.mjs";
import { Client } from "./client.mjs";
import { PlasmaServer } from "./server.mjs";

export class PlasmaStage extends Stage {
  #clients = [];

  /** `port`: of a proxy. Each client is a browser of its own, unless a `store` is shared. */
  client(name, { port, store = name, ...options } = {}) {
    const client = new Client({ endpoint: this.server.endpoint(port), name, store: `${this.id}-${store}`, ...options });
    this.#clients.push(client);
    this.cleanup(() => client.stop());
    return this.describe(client);
  }

  /** Clients that have loaded, and hear pokes. */
  async clients(names, options = {}) {
    const clients = names.map((name) => this.client(name, options));
    await Promise.all(clients.map((client) => client.loaded()));
    return clients;
  }

  pusher(token) {
    return new Pusher(this.server.endpoint(), token);
  }

  /** An id of a row that no other story uses. */
  row(name) {
    return `${this.id}-${name}`;
  }

  /** No client found fault with what it was told. */
  check() {
    for (const { name, complaints } of this.#clients) assert.deepEqual(complaints, [], `complaints of ${name}`);
  }
}

const start = (settings) => PlasmaServer.start(typeof settings === "object" ? settings : {});
const tell = stories(PlasmaStage, start);

/** `ownServer`: true, or settings that replace those of the fixture. */
export function story(name, act, options) {
  tell(name, async (stage) => {
    await act(stage);
    stage.check();
  }, options);
}
