// A test and its stage: a server, clients, and everything cleared away afterwards. On failure the seed, what each
// client says of itself and the end of the server's log are shown. Each protocol extends it (story.mjs, plasma/harness).

import { after, test } from "node:test";
import { Proxy } from "./proxy.mjs";
import { randomFrom, seed } from "./wait.mjs";

const STORY_MS = 60_000;

let storyCount = 0;

export class Stage {
  #number = (storyCount += 1);
  #cleanups = [];
  #described = [];
  #servers = [];
  random = randomFrom(seed + this.#number);

  /** An id that no other story uses. */
  id = `story-${seed}-${this.#number}`;

  /** Called with what was done last first, when the story is over. */
  cleanup(act) {
    this.#cleanups.push(act);
  }

  /** What is shown when the story fails; it has `describe()`, or `evidence()` for more than one line. */
  describe(thing) {
    this.#described.push(thing);
    return thing;
  }

  /** The server of the story. */
  use(server) {
    this.server = server;
    this.#servers.push(server);
  }

  async proxy(options) {
    const proxy = await Proxy.open(this.server, options);
    this.cleanup(() => proxy.close());
    return proxy;
  }

  async clear() {
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
  }

  evidence() {
    const seen = this.#described.map((thing) => thing.evidence?.() ?? thing.describe());
    const logs = this.#servers.map((server) => `--- end of the server's log\n${server.log()}`);
    return [`--- seed: SYNCLINE_TEST_SEED=${seed}`, ...seen, ...logs].join("\n");
  }
}

/**
 * Gives `story(name, act, options)`. Stories of a file share one server, unless a story has `ownServer`: then it gets one
 * of its own as `stage.server`, which it may end. `start` starts a server; it gets the value of `ownServer`.
 */
export function stories(Kind, start) {
  let shared;
  after(async () => (await shared)?.remove());

  const serve = async (stage, ownServer) => {
    if (!ownServer) return stage.use(await (shared ??= start()));
    const server = await start(ownServer);
    stage.cleanup(() => server.remove());
    stage.use(server);
  };

  return function story(name, act, { ownServer = false, scale = 1, skip = false } = {}) {
    test(name, { timeout: STORY_MS * scale, skip }, async () => {
      const stage = new Kind();
      try {
        await serve(stage, ownServer);
        await act(stage);
      } catch (error) {
        console.error(`\n=== ${name}\n${stage.evidence()}\n`);
        throw error;
      } finally {
        await stage.clear();
      }
    });
  };
}
