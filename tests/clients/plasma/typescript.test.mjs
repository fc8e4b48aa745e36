// Mutators in TypeScript: one file, in the real client and in the server's app component.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { isChosen as onPostgres } from "../harness/postgres.mjs";
import { stories } from "../harness/stage.mjs";
import { request } from "./harness/api.mjs";
import { App, AppServer } from "./harness/app.mjs";
import { converged } from "./harness/client.mjs";
import { keyOf } from "./harness/fixture.mjs";
import { notOnPeer } from "./harness/server.mjs";
import { PlasmaStage } from "./harness/story.mjs";

const apps = [];
after(() => apps.forEach((app) => app.remove()));

/** An app; built with the first server that has it. */
const making = (sources) => async () => {
  const app = await App.make(sources);
  apps.push(app);
  await app.npm("run", "build");
  return AppServer.start(app);
};

const own = (place) => fileURLToPath(new URL(`typescript/${place}`, import.meta.url));
const fresh = stories(PlasmaStage, making());
const probing = stories(PlasmaStage, making({ "src/mutators.ts": own("mutators.ts"), "settings.json": own("settings.json") }));

/** Clients with the mutators of an app. */
async function clients(stage, app, names, user) {
  const mutators = (await app.mutators())(user);
  return stage.clients(names, { schemaVersion: "1", mutators });
}

const packages = (file) => JSON.parse(readFileSync(file)).devDependencies;

fresh("what new-app makes is checked, built and run by its own test", async (stage) => {
  const { app } = stage.server;
  const installed = packages(new URL("../package.json", import.meta.url));
  for (const [name, version] of Object.entries(packages(join(app.folder, "package.json")))) assert.equal(installed[name], version, name);
  assert.match(await app.npm("test"), /pass 1\b[^]*fail 0\b/);
}, { skip: notOnPeer.skip || (onPostgres && "its server is its own"), scale: 5 });

fresh("the same mutators run in two clients and on the server, which knows better who calls", async (stage) => {
  const { app } = stage.server;
  const [ann, bob] = await clients(stage, app, ["ann", "bob"], { userId: "somebody else" });
  const id = stage.row("milk");
  await ann.mutate.createTodo({ id, title: "Buy milk" });
  assert.equal(await ann.replicache.query((tx) => tx.has(keyOf("todos", id))), true);
  await bob.sees(keyOf("todos", id), { id, title: "Buy milk", done: false, owner: "me" });
  await bob.mutate.completeTodo({ id });
  await ann.sees(keyOf("todos", id), { done: true, owner: "me" });
  await assert.rejects(ann.mutate.createTodo({ id: stage.row("none"), title: " " }), /a todo needs a title/);
  await ann.mutate.removeCompleted();
  await bob.misses(keyOf("todos", id));
  await converged([ann, bob]);
}, notOnPeer);

const IDS = ["a", "b", "a/b", "a%b", "a-b", "a%2Fb", "B", "10", "9", "é", "\uffee", "\u{1f600}"];
const ROWS = [
  ...IDS.map((id) => [keyOf("texts", id), { note: "x" }]),
  ...[["a", 2], ["a", 10], ["a", -1], ["a-", 1], ["b", 1]].map((key) => [keyOf("pairs", ...key), {}]),
  ...[[true, "12"], [false, "-3"]].map((key) => [keyOf("flags", ...key), {}]),
];

const SCANS = [
  {},
  ...["t", "texts", "texts/", "texts/a", "texts/a%", "texts/a%2", "texts/a%2F", "texts/9", "nowhere/"].map((prefix) => ({ prefix })),
  ...["pairs/a", "pairs/a/", "pairs/a/1", "pairs/a/10", "pairs/a/1/", "flags/t", "flags/true/", "flags/true/1"].map((prefix) => ({ prefix })),
  { start: { key: "pairs/b/1" }, limit: 3 },
  { prefix: "texts/", start: { key: "texts/a%2Fb" } },
  { prefix: "texts/", start: { key: "texts/a%2Fb", exclusive: true }, limit: 4 },
  { prefix: "texts/", limit: 0 },
];

probing("a mutator sees the same on both sides: rows, their keys, and the order of scans", async (stage) => {
  const { app } = stage.server;
  const [ann, bob] = await clients(stage, app, ["ann", "bob"]);
  await ann.mutate.fill({ rows: ROWS });
  await ann.saved();
  const told = [];
  for (const [number, options] of SCANS.entries()) told.push([`scan ${number}`, await ann.mutate.look({ id: `scan ${number}`, options })]);
  for (const [key] of ROWS) told.push([`of ${key}`, await ann.mutate.remove({ id: `of ${key}`, key })]);
  for (const [id, seen] of told) {
    const key = keyOf("seen", id);
    await bob.sees(key);
    assert.deepEqual(bob.row(key).seen, seen, id);
  }
  assert.ok(told[0][1].length >= ROWS.length, "the first scan gives all rows");
}, { ...notOnPeer, scale: 5 });

probing("what only the server knows, mutators ask where they run there", async (stage) => {
  const { app } = stage.server;
  const [ann] = await clients(stage, app, ["ann"]);
  await ann.mutate.fill({ rows: ROWS.slice(0, 3) });
  await ann.mutate.count({ id: "count" });
  await ann.sees(keyOf("seen", "count"), { seen: [3] });
  await ann.mutate.where({ id: "where" });
  await ann.sees(keyOf("seen", "where"), { seen: ["server", ann.replicache.clientID, 3, false] });
  await ann.mutate.replace({ id: "replaced" });
  await ann.sees(keyOf("texts", "replaced"), { id: "replaced", note: null, rank: 1 });
}, notOnPeer);

probing("a mutator that fails, runs on or takes all memory fails its own mutation, and the next is applied", async (stage) => {
  const names = ["nowhere", "otherKey", "wrongType", "survive", "loop", "eat", "unheard-of", "toString", "survive"];
  const mutations = names.map((name, index) => ({ id: index + 1, clientID: stage.row("c"), name, args: null, timestamp: 0 }));
  const body = { pushVersion: 1, schemaVersion: "1", clientGroupID: stage.row("g"), mutations };
  const { status, body: answer } = await request(`${stage.server.endpoint()}/push`, { body });
  assert.equal(status, 200, JSON.stringify(answer));
  const outcomes = answer.results.map(({ error }) => error?.message ?? "applied");
  // The engine says so where it can; on a slow machine its time is up first.
  assert.match(outcomes[5], /^(out of memory|mutator eat (trapped|took too long))$/);
  assert.deepEqual(outcomes.toSpliced(5, 1), [
    "nowhere/x: there is no table nowhere",
    "texts: id is not what the key of the row says",
    "column rank expects integer",
    "applied",
    "mutator loop took too long",
    "unknown mutator: unheard-of",
    "unknown mutator: toString",
    "applied",
  ]);
  const { app } = stage.server;
  const [ann] = await clients(stage, app, ["ann"]);
  await ann.sees(keyOf("seen", "survived"), { seen: ["unknown column colour"] });
  assert.equal(ann.row(keyOf("texts", "fallen")), undefined);
}, { ...notOnPeer, scale: 5 });
