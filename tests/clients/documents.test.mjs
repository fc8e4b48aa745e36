// What a document may be called, what it carries in public, and who is present.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { createEphemeralMessage, generateId } from "secsync";
import { z } from "zod";
import { converged, documentKey, sodium } from "./harness/client.mjs";
import { story } from "./harness/story.mjs";
import { until } from "./harness/wait.mjs";

describe("document ids", { concurrency: 4 }, () => {
  const ids = {
    "slashes": "team/notes/2024",
    "spaces": "my shopping list",
    "umlauts": "Größenübersicht",
    "emoji": "plan 🚀 for 明日",
    "punctuation": "a+b&c=d;e,f@g!$'()*~[x]",
  };
  for (const [kind, id] of Object.entries(ids)) {
    story(`two clients share a document whose id has ${kind}`, async (stage) => {
      const documentId = `${id} ${stage.documentId}`;
      const [ann, bob] = await stage.clients(["ann", "bob"], { documentId });
      ann.insert("hello");
      await converged([ann, bob]);
      bob.insert(" world");
      const late = stage.client("late", { documentId });
      assert.equal(await converged([ann, bob, late]), "hello world");
    });
  }

  story("a document below another one is a document of its own", async (stage) => {
    const [parent] = await stage.clients(["ann"], { documentId: stage.documentId });
    const [child] = await stage.clients(["bob"], { documentId: `${stage.documentId}/child` });
    parent.insert("parent");
    child.insert("child");
    await until("both are saved", [parent, child], () => parent.saved() && child.saved());
    assert.deepEqual([parent.text(), child.text()], ["parent", "child"]);
    assert.notEqual(parent.activeSnapshotId(), child.activeSnapshotId());
  });
});

describe("size", () => {
  story("a book travels as an update, as a snapshot, and to a newcomer", async (stage) => {
    const book = "All happy families are alike. ".repeat(20_000);
    const [ann, bob] = await stage.clients(["ann", "bob"], { snapshotAfter: 1 });
    ann.insert("Tolstoy: ");
    await converged([ann, bob]);
    const snapshotId = ann.activeSnapshotId();
    ann.insert(book);
    await converged([ann, bob]);
    assert.equal(bob.activeSnapshotId(), snapshotId);
    // The third update finds a sum of clocks of 1, and becomes a snapshot.
    for (const key of "...") {
      ann.insert(key);
      await converged([ann, bob]);
    }
    assert.notEqual(bob.activeSnapshotId(), snapshotId);
    const late = stage.client("late");
    assert.equal((await converged([ann, bob, late])).length, book.length + 12);
  });
});

describe("public data", { concurrency: 4 }, () => {
  const validations = {
    snapshot: z.object({ title: z.string().optional() }),
    update: z.object({ tag: z.string().optional() }),
    ephemeralMessage: z.object({ room: z.string().optional() }),
  };

  story("clients read the title of a snapshot, the tag of an update and the room of a message", async (stage) => {
    stage.mount = "/secsync-policy";
    stage.documentId = `pol-${stage.documentId}`;
    const ann = stage.client("ann", { validations, snapshotPublicData: { title: "Plans" } });
    const [bob] = await stage.clients(["bob"], { validations });
    ann.insert("hello");
    await converged([ann, bob]);
    const seen = (field) => bob.publicDataSeen.map((data) => data[field]).filter((value) => value !== undefined);
    assert.deepEqual(seen("title"), ["Plans"]);

    // The client itself sends additional public data in snapshots only.
    const writer = await stage.writer("writer");
    writer.update("[]", { tag: "typo" });
    await bob.waitFor("the tag", () => seen("tag").includes("typo"));
    const { id, counter } = { id: generateId(sodium), counter: 1 };
    const publicData = { docId: stage.documentId, pubKey: writer.author, room: "kitchen" };
    writer.send(createEphemeralMessage(new Uint8Array(), "initialize", publicData, documentKey, writer.keys, id, counter, sodium));
    await bob.waitFor("the room", () => seen("room").includes("kitchen"));
    const late = stage.client("late", { validations });
    await converged([ann, bob, late]);
    assert.ok(late.publicDataSeen.some(({ title }) => title === "Plans"));
    assert.deepEqual([ann.errors(), bob.errors(), late.errors()], [[], [], []]);
  });

  story("public data of the wrong type or with an unknown field is refused", async (stage) => {
    stage.mount = "/secsync-policy";
    stage.documentId = `pol-${stage.documentId}`;
    const writer = await stage.writer("writer");
    for (const publicData of [{ title: 7 }, { colour: "red" }]) {
      writer.snapshot("start", publicData);
      assert.deepEqual(await writer.next("snapshot-save-failed"), { type: "snapshot-save-failed" });
    }
    writer.snapshot("start", { title: "Plans" });
    await writer.next("snapshot-saved");
    const { clock, refSnapshotId } = writer.update("change", { tag: 7 }).publicData;
    const refusal = { type: "update-save-failed", snapshotId: refSnapshotId, clock, requiresNewSnapshot: false };
    assert.deepEqual(await writer.next("update-save-failed"), refusal);
  });

  story("a mount without public data refuses it", async (stage) => {
    const writer = await stage.writer("writer");
    writer.snapshot("start", { title: "Plans" });
    assert.deepEqual(await writer.next("snapshot-save-failed"), { type: "snapshot-save-failed" });
  });
});

describe("presence", { concurrency: 4 }, () => {
  story("two clients see each other's cursors", async (stage) => {
    const ann = stage.client("ann");
    ann.insert("hello");
    await ann.waitFor("saved", () => ann.saved());
    // The client introduces itself when it loads a document that has a snapshot.
    const bob = stage.client("bob");
    await converged([ann, bob]);
    await until("they know each other", [ann, bob], () => ann.knowsSessionOf(bob) && bob.knowsSessionOf(ann));
    ann.present({ name: "ann", cursor: 1 });
    bob.present({ name: "bob", cursor: 5 });
    await bob.waitFor("ann's cursor", () => bob.presenceOf(ann)?.cursor === 1);
    await ann.waitFor("bob's cursor", () => ann.presenceOf(bob)?.cursor === 5);
    ann.present({ name: "ann", cursor: 3 });
    await bob.waitFor("ann's next cursor", () => bob.presenceOf(ann)?.cursor === 3);
    assert.deepEqual([ann.errors(), bob.errors()], [[], []]);
  });

  story("presence keeps its order beside typing, and a newcomer hears nothing of the past", async (stage) => {
    const ann = stage.client("ann");
    ann.insert("hello");
    await ann.waitFor("saved", () => ann.saved());
    const bob = stage.client("bob");
    await until("they know each other", [ann, bob], () => ann.knowsSessionOf(bob) && bob.knowsSessionOf(ann));
    const cursors = [];
    bob.on("change", () => {
      const cursor = bob.presenceOf(ann)?.cursor;
      if (cursor !== undefined && cursor !== cursors.at(-1)) cursors.push(cursor);
    });
    for (let cursor = 1; cursor <= 20; cursor += 1) {
      ann.insert("x");
      ann.present({ cursor });
    }
    await bob.waitFor("the last cursor", () => cursors.at(-1) === 20);
    assert.deepEqual(cursors, cursors.toSorted((left, right) => left - right));
    await converged([ann, bob]);
    const tap = stage.tap("newcomer");
    await tap.document();
    ann.insert("!");
    await tap.next("update");
    assert.deepEqual(tap.types(), ["document", "update"]);
  });
});
