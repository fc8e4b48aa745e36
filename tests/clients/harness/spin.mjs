// Syncline under Spin with a gateway in front of it, in place of a server: SYNCLINE_TEST_HOST=spin is the fake of the Rust tests,
// spin-up is Fermyon's.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { Process } from "./process.mjs";

const host = process.env.SYNCLINE_TEST_HOST;
if (![undefined, "spin", "spin-up"].includes(host)) throw new Error(`SYNCLINE_TEST_HOST is ${host}: it may be spin or spin-up`);

/** Whether the stories run under Spin. */
export const isChosen = host !== undefined;

/** For stories that are about Spin. */
export const onlyOnSpin = { skip: !isChosen && "this is about Spin: npm run test:spin" };

const SECRET = { SYNCLINE_GATEWAY_SECRET: "between gateway and deployment" };

/** The composed component under Spin, without a gateway. */
export class Deployment {
  #process;
  port = 0;

  /** `command`: how a server would be started, at an address that its gateways remember. */
  async start([binary, options], how) {
    const program = join(dirname(binary), "examples/spin");
    if (!existsSync(program)) throw new Error(`no ${program}: cargo build --example spin`);
    const listen = options.indexOf("--listen") + 1;
    const environment = { ...SECRET, SYNCLINE_TEST_HOST: host };
    this.#process = await Process.start([program, options.with(listen, `127.0.0.1:${this.port}`)], { ...how, environment });
    this.port = this.#process.port;
  }

  /** It is gone, in the middle of whatever it does. */
  async kill() {
    await this.#process?.release();
  }

  /** A gateway before it. */
  gateway(binary, port, how) {
    const options = ["gateway", "--upstream", `http://127.0.0.1:${this.port}`, "--listen", `127.0.0.1:${port}`];
    return Process.start([binary, options], { ...how, environment: SECRET });
  }
}
