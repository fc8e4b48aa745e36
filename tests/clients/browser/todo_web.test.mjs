// The page of examples/todo-web in two browsers. It is built before: `npm ci && npm run build` there.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { APP_START_MS, Server } from "../harness/server.mjs";
import { Stage, stories } from "../harness/stage.mjs";
import { Page, launch } from "./pages.mjs";

const example = fileURLToPath(new URL("../../../examples/todo-web", import.meta.url));

class TodoServer extends Server {
  /** The first one compiles the app. */
  get startMs() {
    return APP_START_MS;
  }

  config() {
    if (!existsSync(join(example, "dist/todo.wasm"))) throw new Error("examples/todo-web is not built");
    return join(example, "syncline.toml");
  }
}

let browser;
after(async () => (await browser)?.close());

class TodoStage extends Stage {
  async page(name) {
    const page = await Page.open(await (browser ??= launch()), name, `http://127.0.0.1:${this.server.port}/`);
    this.cleanup(() => page.close());
    return this.describe(page);
  }
}

const story = stories(TodoStage, () => TodoServer.start());

/** Runs in the page: titles as they are shown, a cross before those that are done. */
const todos = () => [...document.querySelectorAll("#todos li")].map((item) => (item.className === "done" ? "x " : "") + item.querySelector(".title").value);

const links = () => [...document.querySelectorAll("#todos li a")].map((link) => link.title).sort();

/** Of pictures that are loaded. */
const widths = () => [...document.querySelectorAll("#todos img")].map((picture) => picture.naturalWidth);

async function add(page, title) {
  await page.page.fill("#title", title);
  await page.page.press("#title", "Enter");
}

const item = (page, number) => page.page.locator("#todos li").nth(number);

async function rename(page, number, title) {
  await item(page, number).locator(".title").fill(title);
  await item(page, number).locator(".title").blur();
}

story("each page sees what the other does", async (stage) => {
  const [ann, bob] = [await stage.page("ann"), await stage.page("bob")];
  await add(ann, "Buy milk");
  await bob.shows(todos, ["Buy milk"]);
  await add(bob, "Buy bread");
  await ann.shows(todos, ["Buy milk", "Buy bread"]);
  await item(ann, 1).locator("[type=checkbox]").click();
  await bob.shows(todos, ["Buy milk", "x Buy bread"]);
  await rename(bob, 0, "Buy oat milk");
  await ann.shows(todos, ["Buy oat milk", "x Buy bread"]);
  await item(ann, 0).locator("button").click();
  await bob.shows(todos, ["x Buy bread"]);
  await ann.page.reload();
  await ann.shows(todos, ["x Buy bread"]);
  assert.deepEqual([...ann.complaints, ...bob.complaints], []);
}, { ownServer: true, scale: 5 });

story("what is done offline is merged on return", async (stage) => {
  const [ann, bob] = [await stage.page("ann"), await stage.page("bob")];
  await add(ann, "one");
  await add(ann, "two");
  await bob.shows(todos, ["one", "two"]);
  await Promise.all([ann.offline(true), bob.offline(true)]);
  await rename(ann, 0, "one of ann");
  await item(bob, 0).locator("[type=checkbox]").click();
  await item(bob, 1).locator("button").click();
  await add(ann, "three");
  await ann.shows(todos, ["one of ann", "two", "three"]);
  await bob.shows(todos, ["x one"]);
  await Promise.all([ann.offline(false), bob.offline(false)]);
  await ann.shows(todos, ["x one of ann", "three"]);
  await bob.shows(todos, ["x one of ann", "three"]);
}, { ownServer: true, scale: 5 });

story("whoever writes a title is not disturbed, and sees what others wrote when done", async (stage) => {
  const [ann, bob] = [await stage.page("ann"), await stage.page("bob")];
  await add(ann, "one");
  await bob.shows(todos, ["one"]);
  await item(bob, 0).locator(".title").focus();
  await rename(ann, 0, "one of ann");
  await add(ann, "two");
  await bob.shows(todos, ["one", "two"]);
  await bob.shows(() => document.activeElement.value, "one");
  await item(bob, 0).locator(".title").blur();
  await bob.shows(todos, ["one of ann", "two"]);
  await rename(bob, 0, " ");
  await bob.shows(() => document.querySelector("#problem").textContent, "a title has 1 to 500 characters");
  await bob.shows(todos, ["one of ann", "two"]);
}, { ownServer: true, scale: 5 });

story("a title that the rules do not allow is refused where it is written", async (stage) => {
  const ann = await stage.page("ann");
  await add(ann, " ");
  await ann.shows(() => document.querySelector("#problem").textContent, "a title has 1 to 500 characters");
  await ann.shows(todos, []);
}, { ownServer: true, scale: 5 });

/** A picture of one pixel. */
const PIXEL = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==", "base64");

story("an upload appears on both pages", async (stage) => {
  const [ann, bob] = [await stage.page("ann"), await stage.page("bob")];
  await add(ann, "With files");
  await ann.shows(todos, ["With files"]);
  await item(ann, 0).locator("[type=file]").setInputFiles([
    { name: "note.txt", mimeType: "text/plain", buffer: Buffer.from("two pints") },
    { name: "pixel.png", mimeType: "image/png", buffer: PIXEL },
  ]);
  const both = async (look, expected) => {
    for (const page of [ann, bob]) await page.shows(look, expected);
  };
  await both(links, ["note.txt", "pixel.png"]);
  await both(widths, [1]);
  const url = await item(bob, 0).locator("a[title='note.txt']").getAttribute("href");
  assert.equal(await bob.page.evaluate(async (url) => (await fetch(url)).text(), url), "two pints");
  // Now from the server, too.
  await ann.page.reload();
  await ann.shows(widths, [1]);
  await item(bob, 0).locator("button").click();
  await both(links, []);
  assert.deepEqual([...ann.complaints, ...bob.complaints], []);
}, { ownServer: true, scale: 5 });
