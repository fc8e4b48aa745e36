// Clients that were away, whose mutations fail, whose token ran out, or that died with work undone.

import assert from "node:assert/strict";
import { beginAnew, converged } from "./harness/client.mjs";
import { keyOf, mutatorsOf } from "./harness/fixture.mjs";
import { story } from "./harness/story.mjs";

const OFFLINE_MUTATIONS = 450;

/** A client that has loaded, and the line that it is on. */
async function behindProxy(stage, name, options) {
  const proxy = await stage.proxy();
  const client = stage.client(name, { port: proxy.port, ...options });
  await client.loaded();
  return [client, proxy];
}

const answered = (client) => client.ended("push").filter(({ status }) => status !== "no answer");

story(`${OFFLINE_MUTATIONS} mutations made offline need three pushes`, async (stage) => {
  const [ann, proxy] = await behindProxy(stage, "ann");
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  proxy.refuse();
  for (let number = 0; number < OFFLINE_MUTATIONS; number += 1) await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  assert.equal((await ann.pending()).length, OFFLINE_MUTATIONS);
  proxy.restore();
  await ann.replicache.push({ now: true });
  await converged([ann, bob]);
  assert.equal(bob.row(keyOf("counters", stage.row("count"))).n, OFFLINE_MUTATIONS);
  // Pokes and pulls may be faster than the answer to the last push.
  await ann.waitFor("the last push is answered", () => answered(ann).at(-1)?.status === 200);
  const pushes = answered(ann);
  assert.deepEqual(pushes.map(({ status }) => status), [429, 429, 200]);
  assert.equal(pushes[0].sent, OFFLINE_MUTATIONS, "the client sends everything at once");
});

story("clients that were offline at the same time converge", async (stage) => {
  const [[ann, one], [bob, other]] = await Promise.all(["ann", "bob"].map((name) => behindProxy(stage, name)));
  await ann.mutate.createTodo({ id: stage.row("shared"), title: "start" });
  await converged([ann, bob]);
  one.refuse();
  other.refuse();
  for (const [client, by] of [[ann, 1], [bob, 10]]) {
    for (let number = 0; number < 20; number += 1) await client.mutate.inc({ id: stage.row("count"), by });
    await client.mutate.setTitle({ id: stage.row("shared"), title: client.name });
    await client.mutate.createTodo({ id: stage.row(client.name), title: "own" });
  }
  one.restore();
  other.restore();
  const rows = await converged([ann, bob]);
  assert.equal(rows.get(keyOf("counters", stage.row("count"))).n, 220);
  assert.ok(["ann", "bob"].includes(rows.get(keyOf("todos", stage.row("shared"))).title));
  assert.ok(rows.has(keyOf("todos", stage.row("ann"))) && rows.has(keyOf("todos", stage.row("bob"))));
});

story("one offline client deletes what the other changes, and the later word holds on both", async (stage) => {
  const [[ann, one], [bob]] = await Promise.all(["ann", "bob"].map((name) => behindProxy(stage, name)));
  await ann.mutate.createTodo({ id: stage.row("todo"), title: "start" });
  await converged([ann, bob]);
  one.refuse();
  await ann.mutate.setTitle({ id: stage.row("todo"), title: "changed while away" });
  await bob.mutate.deleteTodo({ id: stage.row("todo") });
  await bob.saved();
  one.restore();
  await converged([ann, bob]);
  assert.ok(!ann.rows.has(keyOf("todos", stage.row("todo"))));
});

story("a mutation that the server refuses is undone and blocks nothing", async (stage) => {
  const [ann, bob] = await stage.clients(["ann", "bob"]);
  await ann.mutate.writeThenFail({ id: stage.row("bad") });
  assert.equal(ann.row(keyOf("counters", stage.row("bad")))?.n ?? 99, 99);
  await ann.mutate.inc({ id: stage.row("good"), by: 2 });
  await ann.mutate.addComment({ id: stage.row("comment"), todoId: stage.row("no such"), body: "?" });
  await ann.mutate.createTodo({ id: stage.row("wrong"), title: 7 });
  await ann.mutate.inc({ id: stage.row("good"), by: 3 });
  await converged([ann, bob]);
  assert.equal(ann.row(keyOf("counters", stage.row("good"))).n, 5);
  for (const gone of [keyOf("counters", stage.row("bad")), keyOf("comments", stage.row("comment")), keyOf("todos", stage.row("wrong"))]) {
    assert.ok(!ann.rows.has(gone), gone);
  }
});

story("a mutator that the server does not know is acknowledged and blocks nothing", async (stage) => {
  const strange = { brandNew: (tx, { id }) => tx.set(keyOf("counters", id), { id, n: 1 }), constructor: () => {} };
  const ann = stage.client("ann", { mutators: { ...mutatorsOf("alice"), ...strange } });
  await ann.loaded();
  await ann.mutate.brandNew({ id: stage.row("strange") });
  await ann.mutate.constructor({});
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.saved();
  assert.ok(!ann.rows.has(keyOf("counters", stage.row("strange"))));
  assert.equal(ann.row(keyOf("counters", stage.row("count"))).n, 1);
});

story("a token that ran out is replaced once, and nothing is lost", async (stage) => {
  let asked = 0;
  const getAuth = () => ((asked += 1), "tok-alice");
  const ann = stage.client("ann", { token: "tok-of-yesterday", mutators: mutatorsOf("alice"), getAuth });
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.saved();
  const refused = ann.exchanges.filter(({ status }) => status === 401);
  assert.equal(refused.length, asked);
  // Push and pull run side by side, and may both have gone out with the old token.
  assert.ok(asked >= 1 && asked <= 2, `asked ${asked} times`);
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.saved();
  assert.equal(ann.exchanges.filter(({ status }) => status === 401).length, asked);
});

story("a token that is refused leaves the client usable", async (stage) => {
  const [ann] = await stage.clients(["ann"]);
  ann.replicache.auth = "Bearer nobody";
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.waitFor("a refusal", () => ann.ended("push").some(({ status }) => status === 401));
  assert.equal((await ann.pending()).length, 1);
  ann.replicache.auth = "Bearer tok-alice";
  await ann.replicache.push({ now: true });
  await ann.saved();
  assert.equal(ann.row(keyOf("counters", stage.row("count"))).n, 1);
});

story("the client group of another user is refused, and its own user works on", async (stage) => {
  const [owner] = await stage.clients(["owner"], { store: "browser" });
  await owner.mutate.inc({ id: stage.row("count"), by: 1 });
  await owner.saved();
  const thief = stage.client("thief", { store: "browser", token: "tok-bob", mutators: mutatorsOf("alice") });
  assert.equal(await thief.replicache.clientGroupID, await owner.replicache.clientGroupID);
  await thief.mutate.inc({ id: stage.row("count"), by: 10 });
  const forbidden = (kind) => thief.ended(kind).some(({ status, error }) => status === 403 && error === "forbidden");
  await thief.waitFor("both are refused", () => forbidden("push") && forbidden("pull"));
  await owner.mutate.inc({ id: stage.row("count"), by: 1 });
  await owner.saved();
  thief.replicache.auth = "tok-alice";
  await thief.replicache.push({ now: true });
  await thief.saved();
  await owner.sees(keyOf("counters", stage.row("count")), { n: 12 });
});

/** The mutations that a client left behind when it died are known to the store that its browser keeps. */
async function diesWithWorkUndone(stage, options) {
  const [dying, proxy] = await behindProxy(stage, "dying", options);
  const witness = stage.client("witness", { ...options, pokes: "none" });
  await witness.loaded();
  await dying.mutate.inc({ id: stage.row("count"), by: 1 });
  await dying.saved();
  proxy.refuse();
  for (let number = 0; number < 5; number += 1) await dying.mutate.inc({ id: stage.row("count"), by: 1 });
  // Only what was written to the store can be recovered: another tab sees it there.
  await witness.sees(keyOf("counters", stage.row("count")), { n: 6 });
  await dying.stop();
  return witness;
}

story("mutations of a tab that died are pushed by another tab of its browser", async (stage) => {
  const options = { store: "browser" };
  const witness = await diesWithWorkUndone(stage, options);
  const [other] = await stage.clients(["other"], { token: "tok-bob" });
  const heir = stage.client("heir", options);
  await other.sees(keyOf("counters", stage.row("count")), { n: 6 });
  witness.pull();
  await converged([heir, witness, other]);
});

story("a new version of the app pushes what the old version left in its browser, and then begins anew", async (stage) => {
  const options = { store: "browser" };
  const witness = await diesWithWorkUndone(stage, options);
  const oldGroup = await witness.replicache.clientGroupID;
  await witness.stop();
  const mutators = { ...mutatorsOf("alice"), brandNew: () => {} };
  const upgraded = stage.client("upgraded", { ...options, mutators });
  await upgraded.waitFor("the old work is pushed", () => upgraded.ended("push").some(({ clientGroupID, status }) => clientGroupID === oldGroup && status === 200));
  // It begins with the rows and the cookie of the old version's group, in a group that the server does not know.
  await upgraded.waitFor("its state is lost", () => upgraded.statesLost === 1);
  const fresh = await beginAnew(stage, upgraded, { ...options, mutators });
  await fresh.sees(keyOf("counters", stage.row("count")), { n: 6 });
  await fresh.mutate.inc({ id: stage.row("count"), by: 1 });
  await fresh.saved();
});
