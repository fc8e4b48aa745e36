// Several people write in one document.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { converged } from "./harness/client.mjs";
import { audit } from "./harness/raw.mjs";
import { story } from "./harness/story.mjs";

const ROUNDS = 3;
const KEYS_PER_ROUND = 24;
const LATENCY_MS = 40;

/** Everybody types an own letter at places of their own; every key must arrive exactly once. */
async function typeTogether(stage, clients, options) {
  const letters = "abcdef";
  for (let round = 1; round <= ROUNDS; round += 1) {
    await Promise.all(clients.map((client, index) => client.type(letters[index].repeat(KEYS_PER_ROUND), stage.random, options)));
    const text = await converged(clients);
    for (const [index] of clients.entries()) {
      const count = text.split(letters[index]).length - 1;
      assert.equal(count, round * KEYS_PER_ROUND, `keys of ${clients[index].name} after round ${round}`);
    }
  }
}

/** The first snapshot is there, and everybody knows it. */
async function startTogether(clients) {
  clients[0].insert("-");
  await converged(clients);
}

describe("typing", { concurrency: 4 }, () => {
  story("a second client reads what the first one wrote and writes back", async (stage) => {
    const [ann, bob] = await stage.clients(["ann", "bob"]);
    ann.insert("hello");
    await converged([ann, bob]);
    bob.insert(" world");
    assert.equal(await converged([ann, bob]), "hello world");
    assert.deepEqual([ann.errors(), bob.errors()], [[], []]);
  });

  story("three clients converge without a complaint", async (stage) => {
    const clients = await stage.clients(["ann", "bob", "cem"]);
    await startTogether(clients);
    for (const client of clients) client.insert(`${client.name} `);
    const text = await converged(clients);
    for (const client of clients) {
      assert.equal(client.state(), "connected");
      assert.match(text, new RegExp(client.name));
      assert.deepEqual(client.errors(), []);
    }
  });

  for (const names of [["ann", "bob"], ["ann", "bob", "cem"]]) {
    story(`${names.length} clients type at the same time`, async (stage) => {
      const clients = await stage.clients(names);
      await startTogether(clients);
      await typeTogether(stage, clients);
      for (const client of clients) assert.deepEqual(client.errors(), []);
    });

    story(`${names.length} clients type at the same time, ${LATENCY_MS} ms away from the server`, async (stage) => {
      const { port } = await stage.proxy({ delayMs: LATENCY_MS });
      const clients = await stage.clients(names, { port });
      await startTogether(clients);
      await typeTogether(stage, clients);
      for (const client of clients) assert.deepEqual(client.errors(), []);
    });
  }

  story("snapshots come after every few updates while others type", async (stage) => {
    const clients = await stage.clients(["ann", "bob", "cem"], { snapshotAfter: 4 });
    const tap = stage.tap("tap");
    await tap.document();
    await startTogether(clients);
    await typeTogether(stage, clients, { patient: true });
    const { position } = await tap.waitFor("the end", () => {
      const audited = audit(tap.frames);
      return audited.position === clients[0].position() && audited;
    });
    assert.equal(position, clients[0].position());
    const snapshotCount = tap.types().filter((type) => type === "snapshot").length;
    assert.ok(snapshotCount >= 10, `only ${snapshotCount} snapshots`);
  });

  story("two clients open a new document and write at the same moment", async (stage) => {
    for (let round = 0; round < 8; round += 1) {
      const documentId = `${stage.documentId}-${round}`;
      const clients = ["ann", "bob"].map((name) => stage.client(name, { documentId }));
      for (const client of clients) client.insert(`${client.name} `);
      const text = await converged(clients);
      assert.equal(text.split("ann ").length, 2);
      assert.equal(text.split("bob ").length, 2);
      for (const client of clients) client.stop();
    }
  });
});
