// Two secsync clients edit one end-to-end encrypted document. Start a server with `make run`, then:
//
//   npm ci && node secsync-two-clients.mjs [ws://127.0.0.1:8787/secsync]

import sodium from "libsodium-wrappers";
import { createSyncMachine, deserializeUint8ArrayUpdates, serializeUint8ArrayUpdates } from "secsync";
import { WebSocket } from "ws";
import { createActor } from "xstate";
import * as Y from "yjs";

const endpoint = process.argv[2] ?? process.env.SECSYNC_ENDPOINT ?? "ws://127.0.0.1:8787/secsync";
await sodium.ready;

// One message per turn, as in browsers: the client relies on it.
globalThis.WebSocket = function (url) {
  return new WebSocket(url, { allowSynchronousEvents: false });
};

// Everybody who has this key can read the document; the server never sees it.
const documentKey = sodium.crypto_aead_xchacha20poly1305_ietf_keygen();
const documentId = `example-${sodium.to_hex(sodium.randombytes_buf(8))}`;

function openDocument(sessionKey) {
  const doc = new Y.Doc();
  const actor = createActor(createSyncMachine(), {
    input: {
      documentId,
      websocketEndpoint: endpoint,
      websocketSessionKey: sessionKey,
      signatureKeyPair: sodium.crypto_sign_keypair(),
      sodium,
      isValidClient: async () => true, // an app compares the public key with its list of members
      shouldSendSnapshot: ({ snapshotUpdatesCount }) => snapshotUpdatesCount > 100,
      getSnapshotKey: async () => documentKey,
      getNewSnapshotData: async () => ({ data: Y.encodeStateAsUpdateV2(doc), key: documentKey, publicData: {} }),
      applySnapshot: (snapshot) => Y.applyUpdateV2(doc, snapshot, "remote"),
      applyChanges: (changes) => changes.forEach((change) => Y.applyUpdateV2(doc, change, "remote")),
      serializeChanges: (changes) => serializeUint8ArrayUpdates(changes, sodium),
      deserializeChanges: (serialized) => deserializeUint8ArrayUpdates(serialized, sodium),
    },
  });
  doc.on("updateV2", (change, origin) => {
    if (origin !== "remote") actor.send({ type: "ADD_CHANGES", data: [change] });
  });
  actor.start();
  return doc.getText("text");
}

const ann = openDocument("ann's session");
const bob = openDocument("bob's session");
const fromAnn = "Hello, Bob!";
const fromBob = "Hello, Ann!";

function showWhenEqual() {
  const complete = ann.length === fromAnn.length + fromBob.length;
  if (!complete || ann.toString() !== bob.toString()) return;
  console.log(`ann: ${ann}\nbob: ${bob}`);
  process.exit(0);
}
ann.observe(showWhenEqual);
bob.observe(showWhenEqual);

ann.insert(0, fromAnn);
bob.insert(0, fromBob);

setTimeout(() => {
  console.error(`not in sync after 10 s: is there a server at ${endpoint}?`);
  process.exit(1);
}, 10_000);
