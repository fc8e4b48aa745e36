// A TCP proxy: a bad network between clients and a server.

import { once } from "node:events";
import net from "node:net";

export class Proxy {
  #connections = new Set();
  #listener;
  #refusing = false;
  #stalled = false;

  /** `delayMs` is the latency of each way. */
  static async open(server, { delayMs = 0 } = {}) {
    const proxy = new Proxy();
    proxy.#listener = net.createServer((near) => proxy.#accept(near, server.port, delayMs));
    proxy.#listener.listen(0, "127.0.0.1");
    await once(proxy.#listener, "listening");
    return proxy;
  }

  get port() {
    return this.#listener.address().port;
  }

  #accept(near, port, delayMs) {
    if (this.#refusing) return near.resetAndDestroy();
    const far = net.connect({ port, host: "127.0.0.1", noDelay: true });
    near.setNoDelay(true);
    const connection = [near, far];
    this.#connections.add(connection);
    if (this.#stalled) connection.forEach((socket) => socket.pause());
    const later = delayMs === 0 ? (act) => act() : (act) => setTimeout(act, delayMs);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", (bytes) => later(() => to.destroyed || to.write(bytes)));
      from.on("end", () => later(() => to.end()));
      from.on("error", () => to.resetAndDestroy());
      from.on("close", () => {
        this.#connections.delete(connection);
        later(() => to.destroy());
      });
    }
  }

  /** Cuts every connection with a reset, as a dying network does. */
  cut() {
    for (const connection of this.#connections) connection.forEach((socket) => socket.resetAndDestroy());
  }

  /** Cuts, and resets every attempt to connect until `restore`. */
  refuse() {
    this.#refusing = true;
    this.cut();
  }

  /** Keeps connections open, and lets nothing through until `restore`. */
  stall() {
    this.#stalled = true;
    for (const connection of this.#connections) connection.forEach((socket) => socket.pause());
  }

  restore() {
    this.#refusing = false;
    this.#stalled = false;
    for (const connection of this.#connections) connection.forEach((socket) => socket.resume());
  }

  close() {
    this.#listener.close();
    this.cut();
  }
}
