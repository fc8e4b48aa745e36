// The shipped binary with the settings of the fixture; or, with SYNCLINE_TEST_PEER=1, the plain Node server that the benchmarks
// compare it with (tests/bench/peers/plasma), which shows that the stories ask for nothing but the protocol.

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { Server } from "../../harness/server.mjs";
import { fixture } from "./fixture.mjs";

const PEER = fileURLToPath(new URL("../../../bench/peers/plasma/main.mjs", import.meta.url));

export const isPeer = process.env.SYNCLINE_TEST_PEER === "1";

/** For stories that the peer cannot do. */
export const notOnPeer = { skip: isPeer && "the peer does not do this" };

export class PlasmaServer extends Server {
  #settings;

  /** `settings` replace those of the fixture, key by key. */
  constructor(settings = {}) {
    super();
    this.configure(settings);
  }

  /** Takes effect with the next start. */
  configure(settings) {
    this.#settings = { ...fixture, ...settings };
  }

  config() {
    const settings = join(this.folder, "plasma.json");
    const config = join(this.folder, "syncline.toml");
    writeFileSync(settings, JSON.stringify(this.#settings));
    writeFileSync(config, `[[mount]]\nprotocol = "plasma"\npath = "/sync"\nsettings_file = ${JSON.stringify(settings)}\n`);
    return config;
  }

  async command() {
    if (!isPeer) return super.command();
    return [process.execPath, [PEER, join(this.folder, "peer.sqlite"), `127.0.0.1:${this.port}`]];
  }

  endpoint(port = this.port) {
    return `http://127.0.0.1:${port}/sync`;
  }
}
