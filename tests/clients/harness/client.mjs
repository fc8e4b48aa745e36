// The real, unmodified secsync client with a Yjs document, wired as an app wires it.

import { EventEmitter } from "node:events";
import sodium from "libsodium-wrappers";
import { createSyncMachine, deserializeUint8ArrayUpdates, serializeUint8ArrayUpdates } from "secsync";
import { WebSocket } from "ws";
import { createActor } from "xstate";
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as Y from "yjs";
import { pause, until } from "./wait.mjs";

await sodium.ready;
export { sodium };

const FROM_REMOTE = Symbol("from remote");
const FRAMES_KEPT = 40;

/** The same name always gives the same signing keys. */
export const keysOf = (name) => sodium.crypto_sign_seed_keypair(sodium.crypto_generichash(32, name));

/** One key for every document: the server must never need it. */
export const documentKey = new Uint8Array(32).fill(9);

/**
 * Node 20 has no WebSocket of its own, so the client gets the one of `ws`, which here gives every
 * message a task of its own, as browsers do: the client puts `document` into its queue only after
 * an `await`, and anything handled in the same task would overtake it and end in error 200.
 * It also notes the latest frames of the client that opens it, for the message of a failed test.
 */
let opening;
globalThis.WebSocket = class extends WebSocket {
  constructor(url) {
    super(url, { allowSynchronousEvents: false });
    const client = opening;
    opening = undefined;
    client?.note(`open ${url}`);
    this.on("message", (frame) => client?.received(frame));
    this.on("close", (code) => client?.note(`close ${code}`));
    const send = this.send.bind(this);
    this.send = (frame) => {
      client?.note(`> ${summary(frame)}`);
      send(frame);
    };
  }
};

/** A frame in one short line: its type, and of its public data what orders it. */
export function summary(bytes) {
  const frame = JSON.parse(bytes);
  const short = (id) => (id === undefined || id === "" ? "-" : id.slice(0, 6));
  const one = ({ publicData: { snapshotId, refSnapshotId, parentSnapshotId, parentSnapshotUpdateClocks, pubKey, clock } }) => {
    if (refSnapshotId) return `update ${short(refSnapshotId)} by ${short(pubKey)} clock ${clock}`;
    if (!snapshotId) return `ephemeral by ${short(pubKey)}`;
    const clocks = Object.entries(parentSnapshotUpdateClocks).map(([key, last]) => `${short(key)} ${last}`);
    return `snapshot ${short(snapshotId)} by ${short(pubKey)} on ${short(parentSnapshotId)} {${clocks.join(", ")}}`;
  };
  const parts = [frame.type ?? "send"];
  if (frame.publicData) parts.push(one(frame));
  if (frame.snapshot) parts.push(one(frame.snapshot));
  if (frame.snapshotId) parts.push(short(frame.snapshotId));
  if (frame.clock !== undefined) parts.push(`clock ${frame.clock}`);
  if (frame.requiresNewSnapshot) parts.push("requires a new snapshot");
  if (frame.updates) parts.push(`[${frame.updates.map(one).join("; ")}]`);
  if (frame.snapshotProofChain) parts.push(`chain of ${frame.snapshotProofChain.length}`);
  return parts.join(" ");
}

export class Client extends EventEmitter {
  #actor;
  #frames = [];
  /** Updates that were answered by a demand for a new snapshot: the client counts them as in flight for ever. */
  #demanded = new Set();
  doc = new Y.Doc();
  awareness = new Awareness(this.doc);
  /** Public data of every frame that the client asked its app about. */
  publicDataSeen = [];
  snapshotCount = 0;
  reconnectCount = -1;

  constructor({ endpoint, documentId, name, sessionKey = "writer", keys, snapshotAfter = Infinity, snapshotPublicData, validations }) {
    super();
    this.setMaxListeners(100);
    this.name = name;
    this.keys = keys ?? keysOf(`${documentId} ${name}`);
    const input = {
      documentId,
      signatureKeyPair: this.keys,
      websocketEndpoint: endpoint,
      websocketSessionKey: sessionKey,
      sodium,
      additionalAuthenticationDataValidations: validations,
      applySnapshot: (data) => {
        this.snapshotCount += 1;
        Y.applyUpdateV2(this.doc, data, FROM_REMOTE);
      },
      getNewSnapshotData: () => ({
        data: Y.encodeStateAsUpdateV2(this.doc),
        key: documentKey,
        publicData: snapshotPublicData ?? {},
      }),
      getSnapshotKey: () => documentKey,
      applyChanges: (changes) => changes.forEach((change) => Y.applyUpdateV2(this.doc, change, FROM_REMOTE)),
      serializeChanges: (changes) => serializeUint8ArrayUpdates(changes, sodium),
      deserializeChanges: (text) => deserializeUint8ArrayUpdates(text, sodium),
      // The client's count of updates is a sum of clocks, which start at 0.
      shouldSendSnapshot: ({ snapshotUpdatesCount }) => snapshotUpdatesCount >= snapshotAfter,
      applyEphemeralMessage: (message) => {
        applyAwarenessUpdate(this.awareness, message, FROM_REMOTE);
        this.emit("change");
      },
      isValidClient: async (_publicKey, publicData) => {
        this.publicDataSeen.push(publicData);
        return true;
      },
    };
    this.#actor = createActor(createSyncMachine(), {
      input,
      // Sockets are opened in the same turn in which their actor is created.
      inspect: (event) => {
        if (event.type !== "@xstate.actor" || event.actorRef.id !== "websocketActor") return;
        this.reconnectCount += 1;
        opening = this;
      },
    });
    this.#actor.subscribe(() => this.emit("change"));
    this.doc.on("updateV2", (change, origin) => {
      if (origin !== FROM_REMOTE) this.#actor.send({ type: "ADD_CHANGES", data: [change] });
      this.emit("change");
    });
    this.#actor.start();
  }

  received(bytes) {
    this.note(`< ${summary(bytes)}`);
    const { requiresNewSnapshot, snapshotId, clock } = JSON.parse(bytes);
    if (requiresNewSnapshot) this.#demanded.add(`${snapshotId} ${clock}`);
  }

  note(line) {
    this.#frames.push(line);
    if (this.#frames.length > FRAMES_KEPT) this.#frames.shift();
  }

  get #context() {
    return this.#actor.getSnapshot().context;
  }

  /** `connecting`, `connected`, `disconnected`, `noAccess` or `failed`. */
  state() {
    const { value } = this.#actor.getSnapshot();
    return typeof value === "string" ? value : Object.keys(value)[0];
  }

  text() {
    return this.#text.toString();
  }

  get #text() {
    return this.doc.getText("text");
  }

  /** Everything that the client complained about. */
  errors() {
    const context = this.#context;
    return [
      ...context._snapshotAndUpdateErrors,
      ...context._ephemeralMessageReceivingErrors,
      ...context._ephemeralMessageAuthoringErrors,
    ].map((error) => error.message);
  }

  /** Whether the document was loaded on the present connection. */
  loaded() {
    return this.state() === "connected" && this.#context._documentDecryptionState === "complete";
  }

  /** Whether every change of this client was acknowledged, and no answer is awaited. */
  saved() {
    const context = this.#context;
    const waiting = context._updatesInFlight.filter(({ snapshotId, clock }) => !this.#demanded.has(`${snapshotId} ${clock}`));
    const pendingCount = context._pendingChangesQueue.length + waiting.length;
    return this.loaded() && pendingCount === 0 && context._snapshotInFlight === null;
  }

  /** Whether everything that arrived was handled. */
  handled() {
    return this.#context._incomingQueue.length === 0;
  }

  /** Active snapshot and clocks, as text; equal on two clients if they know the same updates. */
  position() {
    const known = this.#context._snapshotInfosWithUpdateClocks.at(-1);
    if (!known) return "";
    return JSON.stringify([known.snapshotId, Object.entries(known.updateClocks).sort()]);
  }

  activeSnapshotId() {
    return this.#context._snapshotInfosWithUpdateClocks.at(-1)?.snapshotId;
  }

  insert(content, index = this.#text.length) {
    this.#text.insert(index, content);
  }

  /**
   * Types one key after the other at places that the random source picks.
   * `patient`: a key waits until the client has no unacknowledged change (see tests/clients/README.md).
   */
  async type(content, random, { patient = false } = {}) {
    for (const key of content) {
      if (patient) await this.waitFor("the last key is saved", () => this.saved());
      this.insert(key, random(0, this.#text.length));
      await pause(random(17, 40));
    }
  }

  /** Presence; an app sends it only while connected. */
  present(state) {
    this.awareness.setLocalState(state);
    const data = encodeAwarenessUpdate(this.awareness, [this.doc.clientID]);
    this.#actor.send({ type: "ADD_EPHEMERAL_MESSAGE", data });
  }

  /** Whether the two proved their ephemeral sessions to each other, seen from here. */
  knowsSessionOf(other) {
    return sodium.to_base64(other.keys.publicKey) in (this.#context._ephemeralMessagesSession?.validSessions ?? {});
  }

  /** What this client knows about the presence of another. */
  presenceOf(other) {
    return this.awareness.getStates().get(other.doc.clientID);
  }

  disconnect() {
    this.#actor.send({ type: "DISCONNECT" });
  }

  connect() {
    this.#actor.send({ type: "CONNECT" });
  }

  waitFor(what, condition, deadlineMs) {
    return until(`${this.name}: ${what}`, [this], condition, deadlineMs);
  }

  waitForState(state, deadlineMs) {
    return this.waitFor(`state ${state}`, () => this.state() === state, deadlineMs);
  }

  describe() {
    const context = this.#context;
    const queues = ["_incomingQueue", "_pendingChangesQueue", "_updatesInFlight"].map((name) => `${name} ${context[name].length}`);
    return [
      `${this.name}: ${this.state()}, ${JSON.stringify(this.text())}, position ${this.position()}`,
      `${queues.join(", ")}, snapshot in flight ${context._snapshotInFlight !== null}, errors [${this.errors()}]`,
    ].join("; ");
  }

  /** What a failed story shows of this client. */
  evidence() {
    return `${this.describe()}\n${this.#frames.map((line) => `    ${line}`).join("\n")}`;
  }

  stop() {
    this.#actor.stop();
    this.awareness.destroy();
  }
}

/** Waits until all clients are connected and know the same; then their texts must be equal. */
export async function converged(clients, deadlineMs) {
  const [first, ...others] = clients;
  await until("all clients know the same", clients, () => {
    const final = clients.find((client) => ["failed", "noAccess"].includes(client.state()));
    if (final) throw new Error(final.evidence());
    return clients.every((client) => client.saved() && client.handled()) && others.every((other) => other.position() === first.position());
  }, deadlineMs);
  const different = others.find((other) => other.text() !== first.text());
  if (different) {
    const seen = clients.map((client) => `  ${client.evidence()}`);
    throw new Error(`the same position, different texts\n${seen.join("\n")}`);
  }
  return first.text();
}
