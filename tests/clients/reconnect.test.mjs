// The network goes away and comes back.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { converged } from "./harness/client.mjs";
import { audit } from "./harness/raw.mjs";
import { story } from "./harness/story.mjs";
import { pause, until } from "./harness/wait.mjs";

/** A document with a snapshot and some updates of everybody. */
async function warmUp(stage, clients) {
  clients[0].insert("-");
  await converged(clients);
  await Promise.all(clients.map((client) => client.type("w".repeat(12), stage.random, { patient: true })));
  await converged(clients);
}

/** Opens a client whose reconnects the story can steer, beside one with a good network. */
async function annBehindProxy(stage) {
  const proxy = await stage.proxy();
  const [ann] = await stage.clients(["ann"], { port: proxy.port });
  const [bob] = await stage.clients(["bob"]);
  await warmUp(stage, [ann, bob]);
  return { proxy, ann, bob, clients: [ann, bob] };
}

describe("reconnecting", { concurrency: 4 }, () => {
  story("the network is cut three times in the middle of typing and no key is lost", async (stage) => {
    const { proxy, ann, bob, clients } = await annBehindProxy(stage);
    const before = ann.text().length;
    const typing = Promise.all([ann.type("a".repeat(60), stage.random), bob.type("b".repeat(60), stage.random)]);
    for (let cut = 1; cut <= 3; cut += 1) {
      await pause(stage.random(100, 300));
      await ann.waitFor("a loaded document", () => ann.loaded());
      proxy.cut();
      await ann.waitFor("a new connection", () => ann.reconnectCount >= cut);
    }
    await typing;
    const text = await converged(clients);
    assert.equal(text.length, before + 120);
    assert.equal(text.split("a").length - 1, 60);
    assert.equal(text.split("b").length - 1, 60);
  });

  story("edits made without a network merge on return", async (stage) => {
    const { proxy, ann, bob, clients } = await annBehindProxy(stage);
    proxy.refuse();
    await ann.waitFor("no connection", () => ann.state() !== "connected");
    ann.insert("[ann was offline]");
    bob.insert("[bob was online]", 0);
    await bob.waitFor("saved", () => bob.saved());
    assert.ok(!ann.text().includes("bob was"));
    proxy.restore();
    const text = await converged(clients);
    assert.match(text, /^\[bob was online\].*\[ann was offline\]$/s);
  });

  story("a client that leaves and comes back by itself gets what it missed", async (stage) => {
    const { ann, bob, clients } = await annBehindProxy(stage);
    ann.disconnect();
    await ann.waitForState("disconnected");
    ann.insert("[ann]");
    bob.insert("[bob]", 0);
    await bob.waitFor("saved", () => bob.saved());
    ann.connect();
    assert.match(await converged(clients), /^\[bob\].*\[ann\]$/s);
  });

  story("snapshots that were made meanwhile arrive with their proof", async (stage) => {
    const { proxy, ann, bob } = await annBehindProxy(stage);
    const [cem] = await stage.clients(["cem"], { snapshotAfter: 1 });
    proxy.refuse();
    await ann.waitFor("no connection", () => ann.state() !== "connected");
    const known = ann.activeSnapshotId();
    for (let count = 0; count < 8; count += 1) {
      cem.insert("c");
      await cem.waitFor("saved", () => cem.saved());
    }
    await converged([bob, cem]);
    assert.notEqual(bob.activeSnapshotId(), known);
    ann.insert("[ann]");
    proxy.restore();
    const text = await converged([ann, bob, cem]);
    assert.equal(text.split("c").length - 1, 8);
    assert.match(text, /\[ann\]/);
  });

  story("a stalled network keeps order, and nothing is lost when it moves again", async (stage) => {
    const { proxy, ann, bob, clients } = await annBehindProxy(stage);
    proxy.stall();
    await Promise.all([ann.type("a".repeat(10), stage.random), bob.type("b".repeat(10), stage.random)]);
    await bob.waitFor("saved", () => bob.saved());
    assert.ok(!ann.text().includes("b"));
    proxy.restore();
    assert.equal((await converged(clients)).length, 25 + 20);
    assert.equal(ann.reconnectCount, 0);
  });

  story("a delta has exactly the updates that the clocks lack, for each author", async (stage) => {
    const [ann, bob] = await Promise.all(["ann", "bob"].map((name) => stage.writer(name)));
    ann.snapshot("start");
    await until("the snapshot is known", [ann, bob], () => ann.active && bob.active);
    for (const writer of [ann, bob, ann, bob, ann]) {
      writer.update("change");
      await writer.waitFor("saved", () => writer.inFlightCount === 0);
    }
    const delta = async (name, clocks) => {
      const query = `mode=delta&knownSnapshotId=${ann.active.snapshotId}&knownSnapshotUpdateClocks=${encodeURIComponent(JSON.stringify(clocks))}`;
      const document = await stage.tap(name, { query }).document();
      assert.ok(!("snapshot" in document), "a known snapshot is not sent again");
      return document.updates.map(({ publicData: { pubKey, clock } }) => `${pubKey === ann.author ? "ann" : "bob"} ${clock}`);
    };
    assert.deepEqual(await delta("knows nothing", {}), ["ann 0", "bob 0", "ann 1", "bob 1", "ann 2"]);
    assert.deepEqual(await delta("knows ann", { [ann.author]: 2 }), ["bob 0", "bob 1"]);
    assert.deepEqual(await delta("has a gap of bob", { [ann.author]: 1, [bob.author]: 0 }), ["bob 1", "ann 2"]);
    assert.deepEqual(await delta("knows all", { [ann.author]: 2, [bob.author]: 1 }), []);
  });

  story("a whole room is cut off again and again and ends with one text", async (stage) => {
    const proxy = await stage.proxy();
    const clients = await stage.clients(["ann", "bob", "cem"], { port: proxy.port });
    const tap = stage.tap("tap");
    await tap.document();
    await warmUp(stage, clients);
    const typing = Promise.all(clients.map((client) => client.type("t".repeat(50), stage.random)));
    for (let cut = 1; cut <= 3; cut += 1) {
      await pause(stage.random(200, 400));
      await until("everybody is back", clients, () => clients.every((client) => client.loaded()));
      proxy.cut();
      await until("everybody connects again", clients, () => clients.every((client) => client.reconnectCount >= cut));
    }
    await typing;
    assert.equal((await converged(clients)).length, 37 + 150);
    await tap.waitFor("the last update", () => audit(tap.frames).position === clients[0].position());
  });
});
