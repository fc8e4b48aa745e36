// Two Replicache clients share one table. Start a server with `make run`, then:
//
//   npm ci && node plasma-two-clients.mjs [http://127.0.0.1:8787/sync]

import { EventSource } from "eventsource"; // browsers have one
import { Replicache, TEST_LICENSE_KEY } from "replicache";

const server = process.argv[2] ?? process.env.PLASMA_ENDPOINT ?? "http://127.0.0.1:8787/sync";

function connect(name) {
  const client = new Replicache({
    name, schemaVersion: "1", licenseKey: TEST_LICENSE_KEY,
    kvStore: "mem", // in browsers leave it out: the copy is kept
    pushURL: `${server}/push`, pullURL: `${server}/pull`,
    mutators: { "todos.upsert": (tx, row) => tx.set(`todos/${row.id}`, row) },
  });
  const pokes = new EventSource(`${server}/poke`);
  // After each connect, too: something may have been missed.
  for (const event of ["hello", "poke"]) pokes.addEventListener(event, () => client.pull());
  return client;
}

const ann = connect("ann");
const bob = connect("bob");

function showWhenEqual() {
  const [ofAnn, ofBob] = [ann, bob].map((client) => client.seen?.map((row) => row.title).join(", "));
  if (ofAnn !== ofBob || !ofAnn?.includes("milk") || !ofAnn.includes("bread")) return;
  console.log(`ann: ${ofAnn}\nbob: ${ofBob}`);
  process.exit(0);
}
for (const client of [ann, bob]) {
  const todos = (tx) => tx.scan({ prefix: "todos/" }).values().toArray();
  client.subscribe(todos, (rows) => {
    client.seen = rows;
    showWhenEqual();
  });
}

await ann.mutate["todos.upsert"]({ id: "1", title: "Buy milk", done: false, rank: 0 });
await bob.mutate["todos.upsert"]({ id: "2", title: "Buy bread", done: false, rank: 1 });

setTimeout(() => {
  console.error(`not in sync after 10 s: is there a server at ${server}?`);
  process.exit(1);
}, 10_000);
