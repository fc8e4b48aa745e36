// The stage of secsync's stories: the real client, taps and writers on a document of the story's own.

import { Client } from "./client.mjs";
import { Tap, Writer } from "./raw.mjs";
import { Server } from "./server.mjs";
import { Stage, stories } from "./stage.mjs";

class SecsyncStage extends Stage {
  mount = "/secsync";
  documentId = this.id;

  #join(Kind, { port, ...options }) {
    const endpoint = this.server.endpoint(this.mount, port);
    const joined = new Kind({ endpoint, documentId: this.documentId, ...options });
    this.cleanup(() => joined.stop());
    return this.describe(joined);
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
}

export const story = stories(SecsyncStage, () => Server.start());
