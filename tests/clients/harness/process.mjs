// A process that says on its standard output where it listens.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { DEADLINE_MS } from "./wait.mjs";

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Process {
  #child;
  port;

  /** `log`: the stream that gets what it complains about. `environment` comes on top of this one's, which loses the settings of Syncline. */
  static async start([program, options], { log, startMs = DEADLINE_MS, environment = {} }) {
    const started = new this();
    const bare = Object.entries(process.env).filter(([name]) => !name.startsWith("SYNCLINE_"));
    const env = { ...Object.fromEntries(bare), ...environment };
    const child = spawn(program, options, { env, stdio: ["pipe", "pipe", "pipe"] });
    started.#child = child;
    running.add(child);
    child.once("exit", () => running.delete(child));
    child.stderr.pipe(log, { end: false });
    started.port = await new Promise((resolve, reject) => {
      const refuse = (why) => reject(new Error(`${program} did not start: ${why}`));
      const timer = setTimeout(refuse, startMs, "no address on standard output");
      child.once("error", (error) => refuse(error.message));
      child.once("exit", (code, signal) => refuse(`it ended with ${code ?? signal}`));
      createInterface({ input: child.stdout }).on("line", (line) => {
        const address = /^listening on http:\/\/127\.0\.0\.1:(\d+)$/.exec(line);
        if (!address) return;
        clearTimeout(timer);
        resolve(Number(address[1]));
      });
    });
    return started;
  }

  /** Ends it; the exit code. */
  async #end(act) {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, "exit", { signal: AbortSignal.timeout(DEADLINE_MS) });
    act(child);
    const [code] = await ended;
    return code;
  }

  /** SIGTERM. */
  terminate() {
    return this.#end((child) => child.kill("SIGTERM"));
  }

  /** kill -9. */
  kill() {
    return this.#end((child) => child.kill("SIGKILL"));
  }

  /** Closes its standard input. */
  release() {
    return this.#end((child) => child.stdin.end());
  }
}
