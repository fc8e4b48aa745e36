// First loads, and what makes a client load everything again or give up what it has.

import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { isChosen as onPostgres } from "../harness/postgres.mjs";
import { admin, everything } from "./harness/api.mjs";
import { beginAnew, converged } from "./harness/client.mjs";
import { keyOf } from "./harness/fixture.mjs";
import { notOnPeer } from "./harness/server.mjs";
import { story } from "./harness/story.mjs";

const SCALE = Number(process.env.SYNCLINE_TEST_SCALE ?? 1);
// Making that many takes PostgreSQL a quarter of a minute.
const LOADED_ROWS = onPostgres && SCALE === 1 ? 10_000 : 50_000;
const LOAD_MS = 60_000;
/** Half a page, so that a page is never cut by the size of a version. */
const ROWS_PER_MUTATION = 500;
/** A push is one transaction, which may stay open for a second or so only. */
const MUTATIONS_PER_PUSH = 2;

/** Makes rows `0` to `count - 1` of a story. */
async function fill(stage, count) {
  const pusher = stage.pusher();
  const batches = Array.from({ length: Math.ceil(count / ROWS_PER_MUTATION) }, (_, batch) => batch * ROWS_PER_MUTATION);
  while (batches.length > 0) {
    const mutations = batches.splice(0, MUTATIONS_PER_PUSH).map((from) => {
      const length = Math.min(ROWS_PER_MUTATION, count - from);
      const items = Array.from({ length }, (_, index) => ({ id: stage.row(from + index), title: `todo ${from + index}` }));
      return ["createMany", { items }];
    });
    await pusher.push(...mutations);
  }
}

const ownRows = (stage, client) => [...client.rows.keys()].filter((key) => key.startsWith(keyOf("todos", stage.row(""))));

const pages = (client) => client.ended("pull").filter(({ status, patchLength }) => status === 200 && patchLength > 0);

story(`${LOADED_ROWS} rows are loaded page by page, each announced by a poke`, async (stage) => {
  await fill(stage, LOADED_ROWS);
  const begun = performance.now();
  const ann = stage.client("ann");
  await ann.waitFor("all rows", () => ann.rows.size >= LOADED_ROWS, LOAD_MS);
  const seconds = (performance.now() - begun) / 1e3;
  console.log(`# ${LOADED_ROWS} rows in ${seconds.toFixed(2)} s: ${Math.round(LOADED_ROWS / seconds)} rows a second, client included`);
  await ann.waitFor("the last page", () => ann.ended("pull").at(-1)?.hasMore === false);
  assert.equal(ownRows(stage, ann).length, LOADED_ROWS);
  const loaded = pages(ann);
  assert.ok(loaded.length >= LOADED_ROWS / 1000, `${loaded.length} pages`);
  assert.deepEqual(loaded.map(({ patch }) => patch.includes("clear")), loaded.map((_, index) => index === 0), "only the first page clears");
  assert.ok(loaded.every(({ patchLength }) => patchLength <= 1001));
  await ann.mutate.setTitle({ id: stage.row(7), title: "changed" });
  await ann.saved();
}, { ownServer: true, scale: 3 });

story("a load goes on while others write, and misses nothing", async (stage) => {
  await fill(stage, 6_000);
  const ann = stage.client("ann");
  const pusher = stage.pusher("tok-bob");
  let written = 0;
  while (ann.ended("pull").at(-1)?.hasMore !== false) {
    written += 1;
    const id = stage.row((written * 997) % 6_000);
    await pusher.push(["setTitle", { id, title: `written ${written}` }], ["inc", { id: stage.row("count"), by: 1 }]);
  }
  await ann.sees(keyOf("counters", stage.row("count")), { n: written });
  assert.equal(ownRows(stage, ann).length, 6_000);
  const truth = await everything(stage.server.endpoint(), "tok-alice");
  await ann.waitFor("the server's rows", () => [...truth].every(([key, row]) => isDeepStrictEqual(ann.row(key), row)));
}, { ownServer: true });

story("a client whose mutations wait while it loads gets them confirmed", async (stage) => {
  await fill(stage, 5_000);
  const ann = stage.client("ann");
  for (let number = 0; number < 20; number += 1) await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.saved();
  await ann.sees(keyOf("counters", stage.row("count")), { n: 20 });
  await ann.waitFor("all rows", () => ownRows(stage, ann).length === 5_000);
}, { ownServer: true });

story("another schema version makes the old app ask for an update, and the new app works", async (stage) => {
  const [old] = await stage.clients(["old"], { store: "browser" });
  await old.mutate.inc({ id: stage.row("count"), by: 1 });
  await old.saved();
  await stage.server.terminate();
  stage.server.configure({ schemaVersion: "8" });
  await stage.server.start();
  await old.mutate.inc({ id: stage.row("count"), by: 10 });
  await old.waitFor("the wish for an update", () => old.updatesNeeded.length > 0);
  assert.deepEqual(old.updatesNeeded[0], { type: "VersionNotSupported", versionType: "schema" });
  assert.equal((await old.pending()).length, 1);
  const fresh = stage.client("new", { store: "browser", schemaVersion: "8" });
  await fresh.sees(keyOf("counters", stage.row("count")), { n: 1 });
  await fresh.mutate.inc({ id: stage.row("count"), by: 1 });
  await fresh.saved();
}, { ownServer: true, ...notOnPeer });

story("a client group that was forgotten is told so, and begins anew", async (stage) => {
  const options = { store: "browser" };
  const [ann] = await stage.clients(["ann"], options);
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.saved();
  await admin(stage.server.endpoint(), "forget", { clientGroupID: await ann.replicache.clientGroupID });
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.waitFor("its state is lost", () => ann.statesLost > 0);
  const fresh = await beginAnew(stage, ann, options);
  await fresh.sees(keyOf("counters", stage.row("count")), { n: 1 });
  await fresh.mutate.inc({ id: stage.row("count"), by: 1 });
  await fresh.saved();
});

story("clients ahead of a server that went back to older data are told so, and begin anew", async (stage) => {
  const { server } = stage;
  const options = { store: "browser" };
  const [ann] = await stage.clients(["ann"], options);
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await converged([ann, bob]);
  await server.terminate();
  const old = await server.saved();
  await server.start();
  for (let number = 0; number < 3; number += 1) await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await converged([ann, bob]);
  await server.terminate();
  await server.restore(old);
  await server.start();
  // One pulls. The other has pushed nothing that was lost, so that its push is good, and learns it when it pulls what came of that;
  // or when its stream of pokes is back, if that is sooner.
  ann.pull();
  await bob.mutate.inc({ id: stage.row("count"), by: 1 });
  const hasPushed = () => bob.ended("push").some(({ status }) => status === 200);
  await bob.waitFor("a push, or the loss", () => hasPushed() || bob.statesLost > 0);
  bob.pull();
  await ann.waitFor("its state is lost", () => ann.statesLost > 0);
  await bob.waitFor("its state is lost", () => bob.statesLost > 0);
  const fresh = await beginAnew(stage, ann, options);
  // What Bob did before he knew is there; what was done before the server went back is not.
  await fresh.sees(keyOf("counters", stage.row("count")), { n: hasPushed() ? 2 : 1 });
}, { ownServer: true, ...notOnPeer });

story("whoever was away while the log was compacted loads once again, and then goes on as before", async (stage) => {
  const proxy = await stage.proxy();
  const ann = stage.client("ann", { port: proxy.port });
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  await ann.loaded();
  await bob.mutate.createTodo({ id: stage.row("kept"), title: "kept" });
  await bob.mutate.createTodo({ id: stage.row("gone"), title: "gone" });
  await ann.sees(keyOf("todos", stage.row("gone")));
  proxy.refuse();
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await bob.mutate.deleteTodo({ id: stage.row("gone") });
  await bob.mutate.setTitle({ id: stage.row("kept"), title: "changed" });
  await bob.saved();
  const { removed, minVersion } = await admin(stage.server.endpoint(), "compact", { keepVersions: 0 });
  assert.ok(removed > 0 && minVersion > 0);
  proxy.restore();
  await converged([ann, bob]);
  assert.equal(ann.row(keyOf("todos", stage.row("kept"))).title, "changed");
  assert.ok(!ann.rows.has(keyOf("todos", stage.row("gone"))));
  for (let number = 0; number < 5; number += 1) {
    await bob.mutate.inc({ id: stage.row("count"), by: 1 });
    await converged([ann, bob]);
  }
  assert.equal(ann.ended("pull").filter(({ reset }) => reset).length, 1);
  assert.equal(bob.ended("pull").filter(({ reset }) => reset).length, 0);
  assert.equal(ann.row(keyOf("counters", stage.row("count"))).n, 6);
}, { ownServer: true, ...notOnPeer });

story("what a client sent before the log was compacted is not done twice", async (stage) => {
  const proxy = await stage.proxy();
  const ann = stage.client("ann", { port: proxy.port, pokes: "none" });
  await ann.loaded();
  for (let number = 0; number < 5; number += 1) await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.waitFor("a push", () => ann.ended("push").some(({ status }) => status === 200));
  await admin(stage.server.endpoint(), "compact", { keepVersions: 0 });
  // Not confirmed by a pull yet: all of them go out once more.
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.waitFor("another push", () => ann.ended("push").filter(({ status }) => status === 200).length >= 2);
  ann.pull();
  await ann.saved();
  assert.equal(ann.row(keyOf("counters", stage.row("count"))).n, 6);
}, { ownServer: true, ...notOnPeer });
