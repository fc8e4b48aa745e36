// For `make bench`: how long a mutation in one real client takes to another. node latency.mjs ENDPOINT COUNT
//
// Writes the times in microseconds as a JSON array to standard output.

import { pause } from "../harness/wait.mjs";
import { Client, converged } from "./harness/client.mjs";
import { keyOf } from "./harness/fixture.mjs";

/** The client leaves 30 ms between two requests of a kind: that is not what is measured. */
const BETWEEN_MS = 40;

const [endpoint, count] = process.argv.slice(2);
const [from, to] = ["from", "to"].map((name) => new Client({ endpoint, name }));
await Promise.all([from.loaded(), to.loaded()]);
await from.mutate.inc({ id: "latency", by: 1 });
const key = keyOf("counters", "latency");
await to.sees(key);
const { n: start } = to.row(key);
const times = [];
for (let n = start + 1; n <= start + Number(count); n += 1) {
  await converged([from, to]);
  await pause(BETWEEN_MS);
  const begun = performance.now();
  await from.mutate.inc({ id: "latency", by: 1 });
  await to.sees(key, { n });
  times.push(Math.round((performance.now() - begun) * 1e3));
}
console.log(JSON.stringify(times));
process.exit(0);
