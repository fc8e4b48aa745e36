// The server ends in the middle of it all, in order or by kill -9, and comes back.

import assert from "node:assert/strict";
import { isChosen as onSpin } from "../harness/spin.mjs";
import { pause } from "../harness/wait.mjs";
import { everything } from "./harness/api.mjs";
import { converged } from "./harness/client.mjs";
import { keyOf } from "./harness/fixture.mjs";
import { isPeer } from "./harness/server.mjs";
import { story } from "./harness/story.mjs";

const SCALE = Number(process.env.SYNCLINE_TEST_SCALE ?? 1);
const KILLS = 3 * SCALE;
const CLIENT_KILLS = 2 * SCALE;
const PUSHERS = 8;
/** What must have been acknowledged before a kill, for it to prove anything. Under Spin each request is an instance of its own. */
const LOAD = onSpin ? 3 : 10;

/** Real clients work while the server ends and comes back, so many times. */
async function survives(stage, times, end) {
  const clients = [
    stage.client("ann"),
    stage.client("tab", { store: "ann" }),
    stage.client("bob", { token: "tok-bob", pokes: isPeer ? "sse" : "websocket" }),
    stage.client("cem", { token: "tok-carol", pokes: isPeer ? "sse" : "data" }),
  ];
  await Promise.all(clients.map((client) => client.loaded()));
  let count = 0;
  for (let time = 1; time <= times; time += 1) {
    let working = true;
    const work = clients.map(async (client) => {
      for (let number = 0; working; number += 1) {
        await client.mutate.inc({ id: stage.row("count"), by: 1 });
        count += 1;
        await client.mutate.createTodo({ id: stage.row(`${client.name}-${time}-${number}`), title: "x" });
        await pause(stage.random(5, 25));
      }
    });
    await pause(stage.random(200, 500));
    await end(stage.server);
    await pause(stage.random(50, 150));
    await stage.server.start();
    working = false;
    await Promise.all(work);
    // What waits is sent after a pause that grows; nobody needs to wait for that.
    for (const client of clients) {
      client.replicache.push({ now: true }).catch(() => {});
      client.replicache.pull({ now: true }).catch(() => {});
    }
    const rows = await converged(clients);
    assert.equal(rows.get(keyOf("counters", stage.row("count"))).n, count, `after end ${time}`);
  }
  const late = stage.client("late", { token: "tok-bob" });
  await converged([...clients, late]);
  for (const client of clients) assert.equal(client.statesLost, 0);
}

story("clients go on after a restart with SIGTERM, and no mutation is lost or done twice", (stage) =>
  survives(stage, 1, async (server) => assert.equal(await server.terminate(), 0)), { ownServer: true });

story(`clients go on after kill -9, and no mutation is lost or done twice (${CLIENT_KILLS} kills)`, (stage) =>
  survives(stage, CLIENT_KILLS, (server) => server.kill()), { ownServer: true, scale: SCALE });

/** Pushes until the server is gone; what was acknowledged, and how often `inc` was tried without an answer. */
async function pushOn(stage, name) {
  const pusher = stage.pusher();
  const acknowledged = [];
  for (let number = 0; ; number += 1) {
    const id = stage.row(`${name}-${number}`);
    try {
      await pusher.push(["createTodo", { id, title: "x".repeat(stage.random(1, 2_000)) }], ["inc", { id: stage.row(name), by: 1 }]);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      return acknowledged;
    }
    acknowledged.push(id);
  }
}

story(`every acknowledged push survives kill -9 under load (${KILLS} kills)`, async (stage) => {
  let total = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const names = Array.from({ length: PUSHERS }, (_, index) => `pusher-${kill}-${index}`);
    const pushing = names.map((name) => pushOn(stage, name));
    await pause(stage.random(200, 800));
    await stage.server.kill();
    const acknowledged = await Promise.all(pushing);
    await stage.server.start();
    const rows = await everything(stage.server.endpoint());
    for (const [index, ids] of acknowledged.entries()) {
      for (const id of ids) assert.ok(rows.has(keyOf("todos", id)), `acknowledged and gone: ${id}`);
      const made = [...rows.keys()].filter((key) => key.startsWith(keyOf("todos", stage.row(`${names[index]}-`)))).length;
      // The last one may have been done without an answer; a push is done whole or not at all.
      assert.ok(made - ids.length === 0 || made - ids.length === 1, `${made} made, ${ids.length} acknowledged`);
      assert.equal(rows.get(keyOf("counters", stage.row(names[index])))?.n ?? 0, made);
      total += ids.length;
    }
  }
  console.log(`# ${total} acknowledged pushes`);
  assert.ok(total > LOAD * KILLS, `only ${total} pushes were acknowledged: no load`);
}, { ownServer: true, scale: SCALE });
