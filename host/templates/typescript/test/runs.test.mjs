// Runs the app in a server: `syncline` on the PATH, or where SYNCLINE_BIN says.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

const folder = mkdtempSync(join(tmpdir(), "{{name}}-"));
let server;
let base;

before(async () => {
  const flags = ["serve", "--config", "syncline.toml", "--listen", "127.0.0.1:0", "--data", join(folder, "data")];
  server = spawn(process.env.SYNCLINE_BIN ?? "syncline", flags, { stdio: ["ignore", "pipe", "inherit"] });
  // It says where it listens as soon as it does.
  for await (const line of createInterface({ input: server.stdout })) {
    const address = /http:\/\/[^/ ]+/.exec(line);
    if (address) {
      base = `${address[0]}/sync`;
      break;
    }
  }
  assert.ok(base, "the server says where it listens");
});

after(async () => {
  const ended = once(server, "exit");
  server.kill();
  await ended;
  rmSync(folder, { recursive: true });
});

async function post(path, body) {
  const response = await fetch(base + path, { method: "POST", body: JSON.stringify({ schemaVersion: "1", clientGroupID: "g", ...body }) });
  assert.equal(response.status, 200);
  return response.json();
}

test("the mutators run on the server", async () => {
  const calls = [
    ["createTodo", { id: "t1", title: "Buy milk" }],
    ["createTodo", { id: "t2", title: " " }],
    ["createTodo", { id: "t3", title: "Buy bread" }],
    ["completeTodo", { id: "t1" }],
    ["completeTodo", { id: "t4" }],
    ["removeCompleted", null],
  ];
  const mutations = calls.map(([name, args], index) => ({ id: index + 1, clientID: "c", name, args, timestamp: 0 }));
  const { results } = await post("/push", { pushVersion: 1, mutations });
  const failures = results.map(({ error }) => error?.message ?? "applied");
  assert.deepEqual(failures, ["applied", "a todo needs a title", "applied", "applied", "there is no such todo", "applied"]);
  const { patch } = await post("/pull", { pullVersion: 1, cookie: null });
  const rows = patch.filter(({ op }) => op === "put").map(({ value }) => value);
  assert.deepEqual(rows, [{ id: "t3", title: "Buy bread", done: false, owner: "me" }]);
});
