// The wire without the client's machine: a tap that records frames, and a writer.

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { createInitialSnapshot, createSnapshot, createUpdate, generateId, hash } from "secsync";
import { WebSocket } from "ws";
import { documentKey, keysOf, sodium, summary } from "./client.mjs";
import { until } from "./wait.mjs";

/** One socket; keeps every frame that it received, in order. */
export class Tap extends EventEmitter {
  frames = [];
  closed = false;

  constructor({ endpoint, documentId, name = "tap", sessionKey = "writer", query = "mode=complete" }) {
    super();
    this.name = name;
    this.documentId = documentId;
    this.socket = new WebSocket(`${endpoint}/${documentId}?sessionKey=${sessionKey}&${query}`);
    this.socket.on("message", (bytes, isBinary) => {
      assert.equal(isBinary, false, "every frame of the server is a text frame");
      const frame = JSON.parse(bytes);
      this.frames.push(frame);
      this.handle(frame);
      this.emit("change");
    });
    this.socket.on("pong", (bytes) => this.emit(`pong ${bytes}`));
    this.socket.on("close", (code) => {
      this.closed = true;
      this.closeCode = code;
      this.emit("change");
    });
    this.socket.on("error", (error) => (this.error = error));
  }

  /** For those that do more than listen. */
  handle(_frame) {}

  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  types() {
    return this.frames.map(({ type }) => type);
  }

  waitFor(what, condition, deadlineMs) {
    return until(`${this.name}: ${what}`, [this], condition, deadlineMs);
  }

  document() {
    return this.waitFor("a document", () => this.frames.find(({ type }) => type === "document"));
  }

  waitForClose() {
    return this.waitFor("the server closes", () => this.closed);
  }

  /** The next frame of a type, counted from now. */
  next(type) {
    const from = this.frames.length;
    return this.waitFor(type, () => this.frames.slice(from).find((frame) => frame.type === type));
  }

  describe() {
    const closed = this.closed ? `closed with ${this.closeCode}` : "open";
    return `${this.name}: ${closed}, received ${this.types().slice(-12).join(" ") || "nothing"}`;
  }

  stop() {
    this.socket.terminate();
  }
}

/**
 * Walks through what a tap received, as a listener that believes nothing: `document` comes first,
 * updates refer to the active snapshot, no author's clock is left out, nothing comes twice.
 * Returns the position in the form of `Client.position`, and how many updates there were.
 */
export function audit(frames) {
  const walked = [];
  try {
    return walk(frames, walked);
  } catch (error) {
    const lines = walked.map((frame) => `    ${summary(JSON.stringify(frame))}`);
    throw new Error(`${error.message}\n${lines.join("\n")}`);
  }
}

function walk(frames, walked) {
  walked.push(frames[0]);
  assert.equal(frames[0]?.type, "document", "the document comes first");
  let active = frames[0].snapshot?.publicData.snapshotId;
  let clocks = new Map();
  let updateCount = 0;
  const signatures = new Set();
  const once = ({ signature }) => {
    assert.ok(!signatures.has(signature), "nothing comes twice");
    signatures.add(signature);
  };
  const take = (update) => {
    const { pubKey, clock, refSnapshotId } = update.publicData;
    once(update);
    assert.equal(refSnapshotId, active, "an update refers to the active snapshot");
    assert.equal(clock, (clocks.get(pubKey) ?? -1) + 1, `no hole in the clocks of ${pubKey}`);
    clocks.set(pubKey, clock);
    updateCount += 1;
  };
  if (frames[0].snapshot) once(frames[0].snapshot);
  frames[0].updates.forEach(take);
  for (const frame of frames.slice(1)) {
    walked.push(frame);
    assert.notEqual(frame.type, "document", "there is one document frame");
    if (frame.type === "update") take(frame);
    if (frame.type === "snapshot") {
      const { parentSnapshotId, parentSnapshotUpdateClocks, snapshotId } = frame.snapshot.publicData;
      once(frame.snapshot);
      if (active) {
        assert.equal(parentSnapshotId, active, "a snapshot follows the active one");
        assert.deepEqual(parentSnapshotUpdateClocks, Object.fromEntries(clocks), "a snapshot covers every update");
      }
      active = snapshotId;
      clocks = new Map();
    }
  }
  const position = active ? JSON.stringify([active, [...clocks].sort()]) : "";
  return { position, updateCount };
}

/**
 * Speaks the protocol with the client's own functions and keeps a ledger of what was acknowledged.
 * Unlike the client it may have several updates in flight, and never sends a clock a second time.
 */
export class Writer extends Tap {
  /** What the server promised to keep: `${snapshotId} ${author} ${clock}` to signature. */
  acknowledged = new Map();
  acknowledgedSnapshots = [];
  active = null;
  #clocks = {};
  #clock = -1;
  #sent = new Map();
  #snapshotInFlight = null;
  keys;

  constructor({ keys, ...options }) {
    super(options);
    this.keys = keys ?? keysOf(`${options.documentId} ${options.name}`);
    this.author = sodium.to_base64(this.keys.publicKey);
  }

  #activate({ ciphertext, publicData: { snapshotId, parentSnapshotProof } }) {
    this.active = { snapshotId, parentSnapshotProof, ciphertextHash: hash(ciphertext, sodium) };
    this.#clocks = {};
    this.#clock = -1;
  }

  #learn({ publicData: { refSnapshotId, pubKey, clock } }) {
    if (refSnapshotId !== this.active?.snapshotId) return;
    this.#clocks[pubKey] = Math.max(clock, this.#clocks[pubKey] ?? -1);
    if (pubKey === this.author) this.#clock = Math.max(clock, this.#clock);
  }

  handle(frame) {
    switch (frame.type) {
      case "document":
        if (frame.snapshot) this.#activate(frame.snapshot);
        frame.updates.forEach((update) => this.#learn(update));
        break;
      case "snapshot":
        this.#activate(frame.snapshot);
        break;
      case "update":
        this.#learn(frame);
        break;
      case "update-saved": {
        const key = `${frame.snapshotId} ${this.author} ${frame.clock}`;
        const update = this.#sent.get(key);
        assert.ok(update, `an update that was never sent was acknowledged: ${key}`);
        this.acknowledged.set(key, update.signature);
        this.#learn(update);
        break;
      }
      case "snapshot-saved":
        assert.equal(frame.snapshotId, this.#snapshotInFlight?.publicData.snapshotId);
        this.acknowledgedSnapshots.push(frame.snapshotId);
        this.#activate(this.#snapshotInFlight);
        this.#snapshotInFlight = null;
        break;
      case "snapshot-save-failed":
        this.#snapshotInFlight = null;
        if (frame.snapshot && frame.snapshot.publicData.snapshotId !== this.active?.snapshotId) this.#activate(frame.snapshot);
        frame.updates?.forEach((update) => this.#learn(update));
        break;
    }
  }

  /** As `Client.position`. */
  position() {
    return this.active ? JSON.stringify([this.active.snapshotId, Object.entries(this.#clocks).sort()]) : "";
  }

  get snapshotInFlight() {
    return this.#snapshotInFlight !== null;
  }

  /** Updates that wait for their answer. */
  get inFlightCount() {
    return this.active ? this.#clock - (this.#clocks[this.author] ?? -1) : 0;
  }

  update(content, publicData = {}) {
    this.#clock += 1;
    const fields = { ...publicData, refSnapshotId: this.active.snapshotId, docId: this.documentId, pubKey: this.author };
    const update = createUpdate(content, fields, documentKey, this.keys, this.#clock, sodium);
    this.#sent.set(`${this.active.snapshotId} ${this.author} ${this.#clock}`, update);
    this.send(update);
    return update;
  }

  snapshot(content, publicData = {}) {
    const fields = {
      ...publicData,
      snapshotId: generateId(sodium),
      docId: this.documentId,
      pubKey: this.author,
      parentSnapshotId: this.active?.snapshotId ?? "",
      parentSnapshotUpdateClocks: this.#clocks,
    };
    this.#snapshotInFlight = this.active
      ? createSnapshot(content, fields, documentKey, this.keys, this.active.ciphertextHash, this.active.parentSnapshotProof, sodium)
      : createInitialSnapshot(content, fields, documentKey, this.keys, sodium);
    this.send(this.#snapshotInFlight);
    return this.#snapshotInFlight;
  }
}
