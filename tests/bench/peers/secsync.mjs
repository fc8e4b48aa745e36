// A straightforward secsync server: ws, better-sqlite3, WAL, synchronous = FULL, one commit per write.
//
//   node secsync.mjs FILE check|trust
//
// It does what the reference server does and what the measured cases need: documents, snapshots, updates and
// ephemeral messages, with the same checks as Syncline in the order of docs/protocols/secsync.md.

import { createPublicKey, verify } from "node:crypto";
import Database from "better-sqlite3";
import { WebSocketServer } from "ws";

const [file, signatures] = process.argv.slice(2);
const checksSignatures = signatures === "check";

const database = new Database(file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec(`
  CREATE TABLE documents (id TEXT PRIMARY KEY, active_snapshot_id TEXT, update_count INTEGER NOT NULL);
  CREATE TABLE snapshots (id TEXT PRIMARY KEY, doc_id TEXT NOT NULL, parent_id TEXT NOT NULL, body TEXT NOT NULL);
  CREATE TABLE updates (snapshot_id TEXT NOT NULL, seq INTEGER NOT NULL, pub_key TEXT NOT NULL, clock INTEGER NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (snapshot_id, seq));
  CREATE UNIQUE INDEX updates_clocks ON updates (snapshot_id, pub_key, clock);
`);
const sql = {
  document: database.prepare("SELECT active_snapshot_id AS active, update_count AS count FROM documents WHERE id = ?"),
  create: database.prepare("INSERT INTO documents (id, update_count) VALUES (?, 0)"),
  snapshotBody: database.prepare("SELECT body FROM snapshots WHERE id = ?").pluck(),
  updateBodies: database.prepare("SELECT body FROM updates WHERE snapshot_id = ? ORDER BY seq").pluck(),
  clocks: database.prepare("SELECT pub_key, MAX(clock) AS clock FROM updates WHERE snapshot_id = ? GROUP BY pub_key"),
  lastClock: database.prepare("SELECT MAX(clock) FROM updates WHERE snapshot_id = ? AND pub_key = ?").pluck(),
  insertSnapshot: database.prepare("INSERT INTO snapshots (id, doc_id, parent_id, body) VALUES (?, ?, ?, ?)"),
  activate: database.prepare("UPDATE documents SET active_snapshot_id = ?, update_count = 0 WHERE id = ?"),
  insertUpdate: database.prepare("INSERT INTO updates (snapshot_id, seq, pub_key, clock, body) VALUES (?, ?, ?, ?, ?)"),
  count: database.prepare("UPDATE documents SET update_count = ? WHERE id = ?"),
};

/** The connections of each document. */
const rooms = new Map();

/** JSON with sorted keys; enough of RFC 8785 for what clients sign. */
function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const members = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}

const base64url = /^[A-Za-z0-9_-]*$/;
const isBase64Of = (text, characters) => typeof text === "string" && text.length === characters && base64url.test(text);

function isWellFormed({ ciphertext, nonce, signature, publicData }) {
  return (
    typeof ciphertext === "string" && ciphertext.length >= 64 && base64url.test(ciphertext) &&
    isBase64Of(nonce, 32) && isBase64Of(signature, 86) && isBase64Of(publicData.pubKey, 43)
  );
}

function isSigned(context, { ciphertext, nonce, signature, publicData }) {
  if (!checksSignatures) return true;
  const encoded = Buffer.from(canonical(publicData)).toString("base64url");
  const message = context + canonical({ ciphertext, nonce, publicData: encoded });
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: publicData.pubKey }, format: "jwk" });
  return verify(null, Buffer.from(message), key, Buffer.from(signature, "base64url"));
}

const open = database.transaction((documentId) => {
  const found = sql.document.get(documentId);
  if (!found) sql.create.run(documentId);
  return found;
});

/** The `document` frame; what is stored goes out as the text that it is. */
function documentFrame(documentId) {
  // A document that is there is only read; a new one is a write.
  const found = sql.document.get(documentId) ?? open(documentId);
  if (!found?.active) return '{"type":"document","updates":[],"snapshotProofChain":[]}';
  const updates = sql.updateBodies.all(found.active).join(",");
  return `{"type":"document","snapshot":${sql.snapshotBody.get(found.active)},"updates":[${updates}],"snapshotProofChain":[]}`;
}

const saveSnapshot = database.transaction(({ publicData }, body) => {
  const { docId, snapshotId, parentSnapshotId, parentSnapshotUpdateClocks } = publicData;
  const { active } = sql.document.get(docId);
  if (active) {
    if (active !== parentSnapshotId) return false;
    const clocks = Object.fromEntries(sql.clocks.all(active).map(({ pub_key, clock }) => [pub_key, clock]));
    if (canonical(clocks) !== canonical(parentSnapshotUpdateClocks)) return false;
  }
  sql.insertSnapshot.run(snapshotId, docId, parentSnapshotId, body);
  sql.activate.run(snapshotId, docId);
  return true;
});

const saveUpdate = database.transaction(({ publicData: { docId, pubKey, refSnapshotId, clock } }, body) => {
  const { active, count } = sql.document.get(docId);
  if (active !== refSnapshotId || clock !== (sql.lastClock.get(active, pubKey) ?? -1) + 1) return false;
  sql.insertUpdate.run(active, count, pubKey, clock, body);
  sql.count.run(count + 1, docId);
  return true;
});

/** One buffer for all, so that the text is encoded once. */
function broadcast(socket, text) {
  const message = Buffer.from(text);
  for (const other of rooms.get(socket.documentId)) {
    if (other !== socket) other.send(message, { binary: false });
  }
}

function handle(socket, frame) {
  const { ciphertext, nonce, publicData, signature } = frame;
  const body = () => JSON.stringify({ ciphertext, nonce, publicData, signature });
  const fits = isWellFormed(frame) && publicData.docId === socket.documentId;
  if (publicData.snapshotId) {
    const stored = fits && isSigned("secsync_snapshot", frame) && body();
    if (!stored || !saveSnapshot(frame, stored)) return socket.send('{"type":"snapshot-save-failed"}');
    socket.send(JSON.stringify({ type: "snapshot-saved", snapshotId: publicData.snapshotId }));
    broadcast(socket, `{"type":"snapshot","snapshot":${stored}}`);
  } else if (publicData.refSnapshotId) {
    const reply = { snapshotId: publicData.refSnapshotId, clock: publicData.clock };
    const stored = fits && isSigned("secsync_update", frame) && body();
    if (!stored || !saveUpdate(frame, stored)) {
      return socket.send(JSON.stringify({ type: "update-save-failed", ...reply, requiresNewSnapshot: false }));
    }
    socket.send(JSON.stringify({ type: "update-saved", ...reply }));
    broadcast(socket, `{"type":"update",${stored.slice(1)}`);
  } else if (fits && isSigned("secsync_ephemeral_message", frame)) {
    broadcast(socket, `{"type":"ephemeral-message",${body().slice(1)}`);
  }
}

function parse(message) {
  try {
    const frame = JSON.parse(message);
    return frame?.publicData && typeof frame.publicData === "object" ? frame : undefined;
  } catch {
    return undefined;
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, maxPayload: 16 << 20, clientTracking: false });
server.on("connection", (socket, request) => {
  const { pathname } = new URL(request.url, "http://peer");
  socket.documentId = decodeURIComponent(pathname.slice("/secsync/".length));
  const room = rooms.get(socket.documentId) ?? new Set();
  rooms.set(socket.documentId, room.add(socket));
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0) rooms.delete(socket.documentId);
  });
  // A client that breaks off is closed by `ws`; there is nothing to do about it.
  socket.on("error", () => {});
  socket.on("message", (message) => {
    const frame = parse(message);
    if (frame) handle(socket, frame);
  });
  socket.send(documentFrame(socket.documentId));
});
server.on("listening", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
