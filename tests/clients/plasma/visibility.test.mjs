// Who sees what: rows of one's own, rows of one's team, and what changes that.

import assert from "node:assert/strict";
import { admin, everything, request } from "./harness/api.mjs";
import { fixture, keyOf, mutatorsOf } from "./harness/fixture.mjs";
import { notOnPeer } from "./harness/server.mjs";
import { story } from "./harness/story.mjs";

const resets = (client) => client.ended("pull").filter(({ reset }) => reset).length;

story("a row that is no longer shared vanishes for others, and comes back", async (stage) => {
  const [ann] = await stage.clients(["ann"]);
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  const [root] = await stage.clients(["root"], { token: "tok-root" });
  const id = stage.row("todo");
  const key = keyOf("todos", id);
  await ann.mutate.createTodo({ id, title: "ours" });
  await bob.sees(key);
  await ann.mutate.setShared({ id, shared: false });
  await bob.misses(key);
  await root.sees(key, { shared: false });
  await ann.mutate.setShared({ id, shared: true });
  await bob.sees(key, { shared: true });
  assert.deepEqual([resets(ann), resets(bob), resets(root)], [0, 0, 0]);
});

story("nobody changes what belongs to somebody else", async (stage) => {
  const [ann] = await stage.clients(["ann"]);
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  const id = stage.row("todo");
  await ann.mutate.createTodo({ id, title: "mine", shared: false });
  await ann.saved();
  // Bob does not see it, and tries nevertheless, as a forged client would.
  const refused = await stage.pusher("tok-bob").send(["setTitle", { id, title: "his" }], ["deleteTodo", { id }], ["putTodo", { id, title: "his" }]);
  assert.equal(refused.status, 200);
  assert.deepEqual(refused.body.results.map(({ status }) => status), ["error", "error", "error"]);
  assert.equal(refused.body.results[0].error.name, "PlasmaAuthorizationError");
  await bob.mutate.inc({ id: stage.row("count"), by: 1 });
  await ann.sees(keyOf("counters", stage.row("count")), { n: 1 });
  assert.equal(ann.row(keyOf("todos", id)).title, "mine");
  assert.ok(!bob.rows.has(keyOf("todos", id)));
});

story("who joins a team sees its boards, who leaves it does not, and nothing else is loaded again", async (stage) => {
  const [ann] = await stage.clients(["ann"]);
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  const team = stage.row("team");
  const boards = [1, 2, 3].map((number) => stage.row(`board-${number}`));
  await ann.mutate.join({ team, userId: "alice" });
  for (const id of boards) await ann.mutate.createBoard({ id, team, name: id });
  await ann.mutate.createBoard({ id: stage.row("other"), team: stage.row("other team"), name: "other" });
  await ann.saved();
  await ann.sees(keyOf("boards", boards[2]));
  await bob.sees(keyOf("members", team, "alice"));
  for (let round = 0; round < 2; round += 1) {
    assert.ok(!bob.rows.has(keyOf("boards", boards[0])));
    await ann.mutate.join({ team, userId: "bob" });
    for (const id of boards) await bob.sees(keyOf("boards", id), { name: id });
    await ann.mutate.createBoard({ id: boards[0], team, name: `renamed ${round}` });
    await bob.sees(keyOf("boards", boards[0]), { name: `renamed ${round}` });
    await ann.mutate.leave({ team, userId: "bob" });
    for (const id of boards) await bob.misses(keyOf("boards", id));
    await ann.mutate.createBoard({ id: boards[0], team, name: boards[0] });
    await ann.saved();
  }
  assert.ok(!bob.rows.has(keyOf("boards", stage.row("other"))));
  assert.deepEqual(bob.rows, await everything(stage.server.endpoint(), "tok-bob"));
  assert.deepEqual(ann.rows, await everything(stage.server.endpoint(), "tok-alice"));
  assert.equal(resets(bob), 0, "only the boards come and go");
}, notOnPeer);

story("membership that changed while a client was away is seen at its return", async (stage) => {
  const proxy = await stage.proxy();
  const bob = stage.client("bob", { token: "tok-bob", port: proxy.port });
  const [ann] = await stage.clients(["ann"]);
  await bob.loaded();
  const [red, blue] = ["red", "blue"].map((team) => stage.row(team));
  for (const team of [red, blue]) await ann.mutate.createBoard({ id: team, team, name: team });
  await ann.mutate.join({ team: red, userId: "bob" });
  await bob.sees(keyOf("boards", red));
  proxy.refuse();
  await ann.mutate.leave({ team: red, userId: "bob" });
  await ann.mutate.join({ team: blue, userId: "bob" });
  await ann.mutate.createBoard({ id: blue, team: blue, name: "renamed" });
  await ann.saved();
  proxy.restore();
  await bob.sees(keyOf("boards", blue), { name: "renamed" });
  await bob.misses(keyOf("boards", red));
});

story("boards of the same team appear for all tabs and users who belong to it", async (stage) => {
  const tabs = await stage.clients(["tab-1", "tab-2"], { store: "browser", token: "tok-bob" });
  const [carol] = await stage.clients(["carol"], { token: "tok-carol" });
  const pusher = stage.pusher();
  const team = stage.row("team");
  await pusher.push(["createBoard", { id: team, team, name: "board" }], ["join", { team, userId: "bob" }], ["join", { team, userId: "carol" }]);
  for (const client of [...tabs, carol]) await client.sees(keyOf("boards", team), { name: "board" });
  await pusher.push(["leave", { team, userId: "carol" }]);
  await carol.misses(keyOf("boards", team));
  await tabs[0].mutate.inc({ id: stage.row("count"), by: 1 });
  await tabs[1].sees(keyOf("counters", stage.row("count")), { n: 1 });
  for (const tab of tabs) assert.ok(tab.rows.has(keyOf("boards", team)));
});

const roles = {
  auth: { mode: "static", tokens: { ...fixture.auth.tokens, "tok-alice-admin": { userId: "alice", role: "admin" } } },
};

story("another role of the same user shows what it may see, by one reset each time", async (stage) => {
  const [bob] = await stage.clients(["bob"], { token: "tok-bob" });
  const [ann] = await stage.clients(["ann"], { mutators: mutatorsOf("alice") });
  await bob.mutate.createTodo({ id: stage.row("secret"), title: "bob's own", shared: false });
  await bob.mutate.createTodo({ id: stage.row("shared"), title: "for all" });
  await ann.sees(keyOf("todos", stage.row("shared")));
  for (const [token, expectedResets] of [["tok-alice-admin", 1], ["tok-alice", 2]]) {
    ann.replicache.auth = token;
    ann.pull();
    await ann.waitFor("a reset", () => resets(ann) === expectedResets);
    if (token === "tok-alice-admin") await ann.sees(keyOf("todos", stage.row("secret")));
    else await ann.misses(keyOf("todos", stage.row("secret")));
    await ann.mutate.inc({ id: stage.row("count"), by: 1 });
    await ann.saved();
    await bob.mutate.setTitle({ id: stage.row("shared"), title: token });
    await ann.sees(keyOf("todos", stage.row("shared")), { title: token });
    assert.equal(resets(ann), expectedResets);
  }
}, { ownServer: roles, ...notOnPeer });

story("what the administrator writes appears at once", async (stage) => {
  const [ann] = await stage.clients(["ann"]);
  const [bob] = await stage.clients(["bob"], { token: "tok-bob", pokes: "websocket" });
  const endpoint = stage.server.endpoint();
  const id = stage.row("todo");
  const row = { id, owner: "alice", title: "by the administrator" };
  const { version, changed } = await admin(endpoint, "db", { as: null, ops: [{ insert: { table: "todos", row } }, { insert: { table: "counters", row: { id: stage.row("count"), n: 5 } } }] });
  assert.ok(version > 0);
  assert.equal(changed, 2);
  for (const client of [ann, bob]) await client.sees(keyOf("todos", id), { title: row.title, done: false, shared: true });
  await ann.mutate.inc({ id: stage.row("count"), by: 1 });
  await admin(endpoint, "db", { as: null, ops: [{ update: { table: "todos", pk: [id], set: { done: true } } }] });
  await bob.sees(keyOf("todos", id), { done: true });
  await admin(endpoint, "db", { as: null, ops: [{ delete: { table: "todos", pk: [id] } }] });
  for (const client of [ann, bob]) await client.misses(keyOf("todos", id));
  await bob.sees(keyOf("counters", stage.row("count")), { n: 6 });
  const denied = await request(`${endpoint}/admin/db`, { token: "admin-secret", body: { as: { userId: "bob" }, ops: [{ insert: { table: "notes", row: { id, owner: "alice", body: null } } }] } });
  assert.ok([403, 422].includes(denied.status), JSON.stringify(denied.body));
  assert.equal((await request(`${endpoint}/admin/db`, { token: "tok-root", body: { as: null, ops: [] } })).status, 401);
  for (const [client, token] of [[ann, "tok-alice"], [bob, "tok-bob"]]) {
    await client.saved();
    assert.deepEqual(client.rows, await everything(endpoint, token));
  }
}, notOnPeer);
