// Pages in headless Chromium, each in a browser of its own as far as it can tell.

import { EventEmitter } from "node:events";
import { existsSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { chromium } from "playwright-core";
import { DEADLINE_MS } from "../harness/wait.mjs";

const executablePath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path));

/** One process for all stories of a file. */
export function launch() {
  if (!executablePath) throw new Error("there is no chromium: install it, or say where it is by CHROMIUM");
  // Its sandbox wants rights that containers do not give; the pages are our own.
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

/** A page that is watched: what it says of errors is shown when a story fails. */
export class Page extends EventEmitter {
  #context;
  #page;
  /** What the page complained of, but that it could not reach the server. */
  complaints = [];

  static async open(browser, name, url) {
    const opened = new this();
    opened.name = name;
    opened.#context = await browser.newContext();
    opened.#page = await opened.#context.newPage();
    opened.#page.setDefaultTimeout(DEADLINE_MS);
    opened.#page.on("pageerror", (error) => opened.complaints.push(String(error)));
    opened.#page.on("console", (message) => {
      if (message.type() === "error" && !/Failed to load resource|net::|Failed to fetch/.test(message.text())) opened.complaints.push(message.text());
    });
    await opened.#page.goto(url);
    return opened;
  }

  get page() {
    return this.#page;
  }

  /** Cuts the line of this browser, or restores it. */
  offline(isOffline) {
    return this.#context.setOffline(isOffline);
  }

  /** Waits until a function in the page gives what is expected. */
  async shows(look, expected) {
    const deadline = Date.now() + DEADLINE_MS;
    for (;;) {
      const seen = await this.#page.evaluate(look);
      if (isDeepStrictEqual(seen, expected)) return;
      if (Date.now() > deadline) throw new Error(`${this.name} shows ${JSON.stringify(seen)} and not ${JSON.stringify(expected)}`);
      // The next look is at the next frame.
      await this.#page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
    }
  }

  describe() {
    return `${this.name}: complaints ${JSON.stringify(this.complaints)}`;
  }

  close() {
    return this.#context.close();
  }
}
