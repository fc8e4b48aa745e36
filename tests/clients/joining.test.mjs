// Somebody comes while others write: `document` first, and every update once.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { converged } from "./harness/client.mjs";
import { audit } from "./harness/raw.mjs";
import { story } from "./harness/story.mjs";
import { pause, until } from "./harness/wait.mjs";

const TAP_COUNT = 30;
const UPDATES_PER_WRITER = 60;
const UPDATES_IN_FLIGHT = 5;

async function tapsWhileTyping(stage, writers, typing) {
  let typed = false;
  const done = typing.finally(() => (typed = true));
  const taps = [];
  while (!typed && taps.length < TAP_COUNT) {
    taps.push(stage.tap(`tap ${taps.length}`));
    await pause(stage.random(5, 50));
  }
  await done;
  await converged(writers);
  const position = writers[0].position();
  for (const tap of taps) {
    await tap.waitFor("the last update", () => tap.frames.length > 0 && audit(tap.frames).position === position);
  }
  return taps;
}

describe("joining", { concurrency: 4 }, () => {
  story("a late joiner gets every update of the writers once", async (stage) => {
    const writers = await stage.clients(["ann", "bob"]);
    writers[0].insert("-");
    await converged(writers);
    const typing = Promise.all(writers.map((writer) => writer.type("x".repeat(40), stage.random)));
    const taps = await tapsWhileTyping(stage, writers, typing);
    const counts = new Set(taps.map((tap) => audit(tap.frames).updateCount));
    assert.equal(counts.size, 1, "the same updates for everybody, from the document or as broadcasts");
    const kinds = taps.map((tap) => tap.frames[0].updates.length);
    assert.ok(Math.max(...kinds) > Math.min(...kinds), "some came early and some late");
  });

  story("a late joiner gets every update once while snapshots replace each other", async (stage) => {
    const writers = await stage.clients(["ann", "bob"], { snapshotAfter: 3 });
    writers[0].insert("-");
    await converged(writers);
    const typing = Promise.all(writers.map((writer) => writer.type("x".repeat(30), stage.random, { patient: true })));
    await tapsWhileTyping(stage, writers, typing);
  });

  for (const [mount, snapshotOdds] of [["/secsync", 0], ["/secsync", 15], ["/secsync-policy", 0], ["/secsync-policy", 15]]) {
    const kind = snapshotOdds === 0 ? "updates" : "updates and snapshots";
    story(`a late joiner gets everything once while five writers send ${kind} as fast as they can (${mount})`, async (stage) => {
      stage.mount = mount;
      stage.documentId = `pol-${stage.documentId}`;
      const writers = await Promise.all(["a", "b", "c", "d", "e"].map((name) => stage.writer(name)));
      writers[0].snapshot("start");
      await until("everybody has the snapshot", writers, () => writers.every((writer) => writer.active));
      const taps = [stage.tap("early tap")];
      await taps[0].document();
      const writing = writers.map(async (writer) => {
        for (let count = 0; count < UPDATES_PER_WRITER; count += 1) {
          await writer.waitFor("room for another frame", () => !writer.snapshotInFlight && writer.inFlightCount < UPDATES_IN_FLIGHT);
          if (stage.random(1, 100) <= snapshotOdds) writer.snapshot(`${writer.name} ${count}`);
          else writer.update(`${writer.name} ${count}`);
        }
        await writer.waitFor("answers", () => !writer.snapshotInFlight && writer.inFlightCount === 0);
      });
      while (taps.length < TAP_COUNT) {
        const tap = stage.tap(`tap ${taps.length}`);
        await tap.document();
        taps.push(tap);
      }
      await Promise.all(writing);
      await until("all writers know the same", writers, () => writers.every((writer) => writer.position() === writers[0].position()));
      for (const tap of taps) {
        await tap.waitFor("everything", () => audit(tap.frames).position === writers[0].position());
      }
      if (snapshotOdds > 0) return;
      for (const writer of writers) assert.ok(!writer.types().includes("update-save-failed"), `${writer.name} was refused`);
      assert.equal(audit(taps[0].frames).updateCount, UPDATES_PER_WRITER * writers.length);
    });
  }

  story("a real client joins while others type and ends with the same text", async (stage) => {
    const writers = await stage.clients(["ann", "bob"]);
    writers[0].insert("-");
    await converged(writers);
    const typing = Promise.all(writers.map((writer) => writer.type("x".repeat(40), stage.random)));
    const late = [];
    for (const name of ["cem", "dora", "emil"]) {
      await pause(stage.random(100, 300));
      late.push(stage.client(name));
    }
    await typing;
    assert.equal((await converged([...writers, ...late])).length, 81);
  });
});
