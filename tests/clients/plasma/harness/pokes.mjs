// How an app hears of changes: server-sent events, a WebSocket, or patches that are sent along.

import { WebSocket } from "ws";
import { pause } from "../../harness/wait.mjs";

/** Apps wait as long as `retry` says; stories have less time. */
const RETRY_MS_MAX = 100;

/** The events of a stream: `{id, event, data, retry}`, comments left out. */
export async function* eventsOf(body) {
  let text = "";
  for await (const part of body.pipeThrough(new TextDecoderStream())) {
    text += part;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const fields = lines.filter((line) => !line.startsWith(":")).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()]);
      if (fields.length > 0) yield Object.fromEntries(fields);
    }
  }
}

/** Server-sent events of a path, with reconnects that say what was seen last. */
export class EventStream {
  #abort = new AbortController();
  #lastEventId;
  #retryMs = RETRY_MS_MAX;
  /** How often it was connected. */
  connections = 0;
  /** All events, in order. */
  events = [];
  /** The status of the last refusal. */
  refused;

  constructor({ url, token, handle }) {
    this.url = url;
    this.token = token;
    this.handle = handle;
    this.#run();
  }

  async #run() {
    while (!this.#abort.signal.aborted) {
      try {
        await this.#listen();
      } catch {
        // The server is away, or the stream was cut: both are followed by a new attempt.
      }
      await pause(Math.min(this.#retryMs, RETRY_MS_MAX));
    }
  }

  async #listen() {
    const headers = { accept: "text/event-stream", authorization: this.token() };
    if (this.#lastEventId !== undefined) headers["last-event-id"] = this.#lastEventId;
    const response = await fetch(await this.url(), { headers, signal: this.#abort.signal });
    if (response.status !== 200) {
      this.refused = response.status;
      await response.body?.cancel();
      return;
    }
    this.connections += 1;
    const isFirst = this.#lastEventId === undefined;
    for await (const { id, event, data, retry } of eventsOf(response.body)) {
      if (id !== undefined) this.#lastEventId = id;
      if (retry !== undefined) this.#retryMs = Number(retry);
      if (!event) continue;
      const parsed = JSON.parse(data);
      this.events.push({ event, data: parsed });
      await this.handle({ event, data: parsed, isFirst });
      if (this.#abort.signal.aborted) return;
    }
  }

  stop() {
    this.#abort.abort();
  }

  describe() {
    const last = this.events.slice(-5).map(({ event, data }) => `${event} ${JSON.stringify(data).slice(0, 80)}`);
    return `events, connected ${this.connections} times, refused ${this.refused ?? "never"}, last [${last.join("; ")}]`;
  }
}

function serverSentEvents(client) {
  return new EventStream({
    token: () => client.replicache.auth,
    url: async () => `${client.endpoint}/poke?clientGroupID=${await client.replicache.clientGroupID}`,
    handle: ({ event, isFirst }) => {
      // Whoever comes back is told by a poke of its own if it missed something.
      if (event === "poke" || (event === "hello" && isFirst)) client.pull();
    },
  });
}

/** Patches instead of pokes. A client that went on by itself starts again from where it is. */
class PatchStream {
  #stream;
  #stopped = false;
  restarts = 0;

  constructor(client) {
    this.client = client;
    this.#start();
  }

  async #start() {
    await this.client.loaded().catch(() => {});
    if (this.#stopped) return;
    this.#stream = new EventStream({
      token: () => this.client.replicache.auth,
      url: async () => {
        const cookie = encodeURIComponent(JSON.stringify(this.client.cookie));
        return `${this.client.endpoint}/poke?mode=data&cookie=${cookie}&clientGroupID=${await this.client.replicache.clientGroupID}`;
      },
      handle: async ({ event, data }) => {
        if (event !== "patch") return;
        try {
          await this.client.poke(data);
        } catch (error) {
          if (!/unexpected base cookie/.test(error.message)) throw error;
          this.restarts += 1;
          this.#stream.stop();
          await this.#start();
        }
      },
    });
  }

  get events() {
    return this.#stream?.events ?? [];
  }

  stop() {
    this.#stopped = true;
    this.#stream?.stop();
  }

  describe() {
    return `patches, started again ${this.restarts} times, ${this.#stream?.describe() ?? "not started"}`;
  }
}

/** Pokes by a WebSocket, which is opened again when it closes. */
export class PokeSocket {
  #socket;
  #stopped = false;
  connections = 0;
  frames = [];
  closeCodes = [];

  constructor(client) {
    this.client = client;
    this.#open();
  }

  async #open() {
    const clientGroupID = await this.client.replicache.clientGroupID;
    if (this.#stopped) return;
    const url = `${this.client.endpoint.replace(/^http/, "ws")}/ws?clientGroupID=${clientGroupID}`;
    this.#socket = new WebSocket(url, ["plasma.v1"], { headers: { authorization: this.client.replicache.auth } });
    this.#socket.on("open", () => (this.connections += 1));
    this.#socket.on("message", (bytes) => {
      const frame = JSON.parse(bytes);
      this.frames.push(frame);
      // A socket has no memory of what was missed, so every hello is a reason to look.
      if (["hello", "poke"].includes(frame.type)) this.client.pull();
      this.client.emit("change");
    });
    this.#socket.on("error", (error) => (this.error = error));
    this.#socket.on("close", async (code) => {
      this.closeCodes.push(code);
      await pause(RETRY_MS_MAX);
      if (!this.#stopped) this.#open();
    });
  }

  get protocol() {
    return this.#socket?.protocol;
  }

  send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  /** Breaks off without a word, as a network does. */
  cut() {
    this.#socket.terminate();
  }

  stop() {
    this.#stopped = true;
    this.#socket?.terminate();
  }

  describe() {
    return `socket, opened ${this.connections} times, closed with [${this.closeCodes}], last frames ${JSON.stringify(this.frames.slice(-5))}`;
  }
}

const silence = { stop: () => {}, describe: () => "none" };

/** What makes a client look for changes. */
export function pokesOf(kind, client) {
  switch (kind) {
    case "sse":
      return serverSentEvents(client);
    case "data":
      return new PatchStream(client);
    case "websocket":
      return new PokeSocket(client);
    case "none":
      return silence;
    default:
      throw new Error(`no such kind of pokes: ${kind}`);
  }
}
