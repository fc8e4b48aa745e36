// The server ends, in order or by kill -9, and comes back.

import assert from "node:assert/strict";
import { verifyAndDecryptUpdate } from "secsync";
import { converged, documentKey, sodium } from "./harness/client.mjs";
import { audit } from "./harness/raw.mjs";
import { story } from "./harness/story.mjs";
import { pause, until } from "./harness/wait.mjs";

const SCALE = Number(process.env.SYNCLINE_TEST_SCALE ?? 1);
const KILLS = 3 * SCALE;
// Real clients take seconds to come back.
const CLIENT_KILLS = 2 * SCALE;
const DOCUMENTS = 5;
const UPDATES_IN_FLIGHT = 8;
const LARGE_CHARACTERS = 220_000;

/** Two clients type while the server ends and comes back, so many times. */
async function survives(stage, times, end) {
  const clients = await stage.clients(["ann", "bob"]);
  clients[0].insert("-");
  await converged(clients);
  await Promise.all(clients.map((client) => client.type("w".repeat(10), stage.random, { patient: true })));
  await converged(clients);
  for (let time = 1; time <= times; time += 1) {
    const typing = Promise.all(clients.map((client) => client.type("t".repeat(40), stage.random)));
    await pause(stage.random(100, 400));
    await end(stage.server);
    await until("everybody notices", clients, () => clients.every((client) => client.state() !== "connected"));
    await stage.server.start();
    await typing;
    assert.equal((await converged(clients)).length, 1 + 20 + 80 * time);
  }
  for (const client of clients) assert.ok(client.reconnectCount >= times);
  const late = stage.client("late");
  await converged([...clients, late]);
}

story("clients reconnect after a restart with SIGTERM, and no key is lost", (stage) =>
  survives(stage, 1, async (server) => assert.equal(await server.terminate(), 0)), { ownServer: true });

story(`clients reconnect after kill -9, and no key is lost (${CLIENT_KILLS} kills)`, (stage) =>
  survives(stage, CLIENT_KILLS, (server) => server.kill()), { ownServer: true, scale: SCALE });

story("what was acknowledged before SIGTERM is there, and the sockets close with 1001", async (stage) => {
  const writer = await stage.writer("ann");
  writer.snapshot("start");
  await writer.next("snapshot-saved");
  for (let count = 0; count < 50; count += 1) writer.update(`update ${count}`);
  await writer.next("update-saved");
  assert.equal(await stage.server.terminate(), 0);
  await writer.waitForClose();
  assert.equal(writer.closeCode, 1001);
  await stage.server.start();
  const { updates } = await stage.tap("tap").document();
  assert.ok(updates.length >= writer.acknowledged.size);
  assert.deepEqual(updates.map(({ publicData }) => publicData.clock), updates.map((_, index) => index));
}, { ownServer: true });

/** Writes until the connection dies. */
async function writeOn(stage, writer) {
  for (let count = 0; !writer.closed; count += 1) {
    await writer.waitFor("room, or the end", () => writer.closed || (!writer.snapshotInFlight && writer.inFlightCount < UPDATES_IN_FLIGHT));
    if (writer.closed) return;
    // Some contents are so large that the server keeps them as objects.
    const more = stage.random(1, 30) === 1 ? "x".repeat(LARGE_CHARACTERS) : "";
    if (stage.random(1, 40) === 1) writer.snapshot(`snapshot after ${count} ${more}`);
    else writer.update(`update ${count} ${more}`);
  }
}

/** Everything acknowledged is in what a newcomer gets, and that has no holes. Returns how much it was. */
async function check(stage, documentId, writers) {
  const document = await stage.tap("newcomer", { documentId }).document();
  audit([document]);
  const active = document.snapshot.publicData.snapshotId;
  const stored = new Map();
  for (const update of document.updates) {
    const { pubKey, clock } = update.publicData;
    const { error } = verifyAndDecryptUpdate(update, documentKey, active, clock - 1, sodium);
    assert.equal(error, undefined);
    stored.set(`${active} ${pubKey} ${clock}`, update.signature);
  }
  for (const { acknowledged, acknowledgedSnapshots, name } of writers) {
    for (const [key, signature] of acknowledged) {
      // A snapshot is only accepted with all updates before it, so what it replaced needs no check.
      if (key.startsWith(active)) assert.equal(stored.get(key), signature, `an acknowledged update is gone: ${key}`);
    }
    const latest = acknowledgedSnapshots.at(-1);
    if (latest === undefined || latest === active) continue;
    const query = `mode=complete&knownSnapshotId=${latest}`;
    const { snapshotProofChain } = await stage.tap(`${name} again`, { documentId, query }).document();
    assert.ok(snapshotProofChain.length > 0, `an acknowledged snapshot is gone: ${latest}`);
  }
  return writers.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0);
}

story(`every acknowledged update survives kill -9 under load (${KILLS} kills)`, async (stage) => {
  let acknowledgedTotal = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const documentIds = Array.from({ length: DOCUMENTS }, (_, index) => `${stage.documentId}-${kill}-${index}`);
    const rooms = await Promise.all(documentIds.map(async (documentId) => {
      const writers = await Promise.all(["ann", "bob"].map((name) => stage.writer(name, { documentId })));
      writers[0].snapshot("start");
      await until("the first snapshot is known", writers, () => writers.every((writer) => writer.active));
      return { documentId, writers };
    }));
    const writing = rooms.flatMap(({ writers }) => writers.map((writer) => writeOn(stage, writer)));
    const killAfterMs = stage.random(150, 1_200);
    console.log(`# kill ${kill} after ${killAfterMs} ms`);
    await pause(killAfterMs);
    await stage.server.kill();
    await Promise.all(writing);
    await stage.server.start();
    for (const { documentId, writers } of rooms) {
      acknowledgedTotal += await check(stage, documentId, writers);
    }
  }
  console.log(`# ${acknowledgedTotal} acknowledged updates`);
  assert.ok(acknowledgedTotal > 100 * KILLS, `only ${acknowledgedTotal} updates were acknowledged: no load`);
}, { ownServer: true, scale: SCALE });
