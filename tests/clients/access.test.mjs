// Who may do what, on a mount with a policy (tests/conformance/secsync-policy.json).

import assert from "node:assert/strict";
import { once } from "node:events";
import { describe } from "node:test";
import { converged, keysOf, sodium } from "./harness/client.mjs";
import { story } from "./harness/story.mjs";

/** The key that the policy names for the session key `bykey`. */
const namedKeys = sodium.crypto_sign_seed_keypair(new Uint8Array(32).fill(7));

function policyStory(name, act, prefix = "pol-") {
  story(name, (stage) => {
    stage.mount = "/secsync-policy";
    stage.documentId = `${prefix}${stage.documentId}`;
    return act(stage);
  });
}

/** Whatever the server sent to this tap before now has arrived. */
async function flushed(tap) {
  const pong = once(tap, "pong flush");
  tap.socket.ping("flush");
  await pong;
}

describe("access", { concurrency: 4 }, () => {
  policyStory("a session key without rights ends in noAccess", async (stage) => {
    const stranger = stage.client("stranger", { sessionKey: "stranger" });
    await stranger.waitForState("noAccess");
    const tap = stage.tap("tap", { sessionKey: "stranger" });
    await tap.waitForClose();
    assert.deepEqual(tap.frames, [{ type: "unauthorized" }]);
    assert.equal(tap.closeCode, 1005);
  });

  policyStory("two writers with different session keys work together", async (stage) => {
    const ann = stage.client("ann");
    const bob = stage.client("bob", { sessionKey: "writer-2" });
    ann.insert("hello");
    await converged([ann, bob]);
    bob.insert(" world");
    assert.equal(await converged([ann, bob]), "hello world");
  });

  policyStory("a reader reads along, and a write ends its session", async (stage) => {
    // It opens the document before there is a snapshot: otherwise the client introduces itself with an
    // ephemeral message, which a reader has no right to send either.
    const reader = stage.client("reader", { sessionKey: "reader" });
    await reader.waitFor("the document", () => reader.loaded());
    const [writer] = await stage.clients(["writer"]);
    writer.insert("hello");
    await converged([reader, writer]);
    writer.insert(" world");
    assert.equal(await converged([reader, writer]), "hello world");
    reader.insert("!");
    await reader.waitForState("noAccess");
    await writer.waitFor("saved", () => writer.saved());
    assert.equal(writer.text(), "hello world");
  });

  policyStory("a reader of a document with content gets it before its introduction ends the session", async (stage) => {
    const writer = stage.client("writer");
    writer.insert("hello");
    await writer.waitFor("saved", () => writer.saved());
    const tap = stage.tap("listening reader", { sessionKey: "reader" });
    assert.ok((await tap.document()).snapshot);
    writer.insert(" world");
    await tap.next("update");
    const reader = stage.client("reader", { sessionKey: "reader" });
    await reader.waitForState("noAccess");
    assert.ok(!tap.closed);
  });

  policyStory("a muted session gets the document and no broadcast", async (stage) => {
    const muted = stage.tap("muted", { sessionKey: "muted" });
    const reader = stage.tap("reader", { sessionKey: "reader" });
    await Promise.all([muted.document(), reader.document()]);
    const [writer] = await stage.clients(["writer"]);
    for (const content of ["a", "b", "c"]) {
      writer.insert(content);
      await writer.waitFor("saved", () => writer.saved());
    }
    await reader.waitFor("two updates", () => reader.types().filter((type) => type === "update").length === 2);
    await flushed(muted);
    assert.deepEqual(muted.types(), ["document"]);
    assert.ok(!muted.closed);
    const again = stage.tap("muted again", { sessionKey: "muted" });
    assert.equal((await again.document()).updates.length, 2);
  });

  policyStory("the client of a muted session stays connected and sees nothing new", async (stage) => {
    const muted = stage.client("muted", { sessionKey: "muted" });
    await muted.waitFor("the document", () => muted.loaded());
    const [writer, other] = await stage.clients(["writer", "other"]);
    writer.insert("hello");
    await converged([writer, other]);
    assert.equal(muted.state(), "connected");
    assert.equal(muted.text(), "");
  });

  policyStory("a quiet session writes, and an ephemeral message ends it", async (stage) => {
    const quiet = stage.client("quiet", { sessionKey: "quiet" });
    quiet.insert("hello");
    await quiet.waitFor("saved", () => quiet.saved());
    quiet.insert(" world");
    await quiet.waitFor("saved", () => quiet.saved());
    quiet.present({ cursor: 1 });
    await quiet.waitForState("noAccess");
    const reader = stage.tap("reader", { sessionKey: "reader" });
    assert.equal((await reader.document()).updates.length, 1);
  });

  policyStory("a session that is bound to a public key writes with that key", async (stage) => {
    const bound = stage.client("bound", { sessionKey: "bykey", keys: namedKeys });
    bound.insert("hello");
    await bound.waitFor("saved", () => bound.saved());
    const writer = stage.client("writer");
    writer.insert(" world");
    await converged([bound, writer]);
    bound.insert("!");
    await converged([bound, writer]);
    assert.equal(bound.state(), "connected");
  });

  policyStory("a session that is bound to a public key reads, and ends when it writes with another key", async (stage) => {
    const bound = stage.client("bound", { sessionKey: "bykey", keys: keysOf("somebody else") });
    await bound.waitFor("the document", () => bound.loaded());
    bound.insert("hello");
    await bound.waitForState("noAccess");
    const reader = stage.tap("reader", { sessionKey: "reader" });
    assert.equal((await reader.document()).snapshot, undefined);
  });

  policyStory("a document that may not be created is not found", async (stage) => {
    const writer = stage.client("writer");
    await writer.waitForState("noAccess");
    const tap = stage.tap("tap");
    await tap.waitForClose();
    assert.deepEqual(tap.frames, [{ type: "document-not-found" }]);
  }, "nope-");

  policyStory("at the limit of updates the client makes a new snapshot and goes on", async (stage) => {
    const [ann, bob] = await stage.clients(["ann", "bob"]);
    const tap = stage.tap("tap");
    await tap.document();
    for (const key of "twelve-keys!") {
      ann.insert(key);
      await ann.waitFor("saved", () => ann.saved());
    }
    assert.equal(await converged([ann, bob]), "twelve-keys!");
    const snapshots = tap.frames.filter(({ type }) => type === "snapshot");
    assert.equal(snapshots.length, 3, "keys 1, 5 and 9 are in snapshots, three updates after each");
    bob.insert(" bob too");
    assert.equal(await converged([ann, bob]), "twelve-keys! bob too");
  }, "pol-limit-");
});
