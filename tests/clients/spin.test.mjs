// Gateways in front of Spin: several of them, one that dies, and a Spin that ends under their sockets.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { converged } from "./harness/client.mjs";
import { Proxy } from "./harness/proxy.mjs";
import { audit } from "./harness/raw.mjs";
import { onlyOnSpin } from "./harness/spin.mjs";
import { story } from "./harness/story.mjs";
import { pause } from "./harness/wait.mjs";

const KEYS = 40;

/** A document with a snapshot and some updates of everybody (see README.md for why). */
async function warmUp(stage, clients) {
  clients[0].insert("-");
  await converged(clients);
  await Promise.all(clients.map((client) => client.type("w".repeat(12), stage.random, { patient: true })));
  await converged(clients);
}

const typeAll = (stage, clients, options) => Promise.all(clients.map((client) => client.type("t".repeat(KEYS), stage.random, options)));

describe("gateways", { concurrency: 4 }, () => {
  story("clients at two gateways write one document", async (stage) => {
    const other = await stage.server.gateway();
    const [ann, bob] = await stage.clients(["ann", "bob"]);
    const [cem, dora] = await stage.clients(["cem", "dora"], { port: other.port });
    const clients = [ann, bob, cem, dora];
    const taps = [stage.tap("tap here"), stage.tap("tap there", { port: other.port })];
    await Promise.all(taps.map((tap) => tap.document()));
    ann.insert("-");
    await converged(clients);
    await typeAll(stage, clients);
    assert.equal((await converged(clients)).length, 1 + KEYS * clients.length);
    for (const tap of taps) await tap.waitFor("everything", () => audit(tap.frames).position === ann.position());
    const order = (tap) => tap.frames.filter(({ type }) => type === "update").map(({ signature }) => signature);
    assert.deepEqual(order(taps[0]), order(taps[1]));
    for (const client of clients) assert.deepEqual([client.errors(), client.reconnectCount], [[], 0]);
  }, onlyOnSpin);

  story("clients of a gateway that is killed go on at another one, and no key is lost", async (stage) => {
    const [killed, kept] = [await stage.server.gateway(), await stage.server.gateway()];
    const balanced = { port: killed.port };
    const balancer = await Proxy.open(balanced);
    stage.cleanup(() => balancer.close());
    const clients = await stage.clients(["ann", "bob"], { port: balancer.port });
    const [cem] = await stage.clients(["cem"], { port: kept.port });
    await warmUp(stage, [...clients, cem]);
    const typing = typeAll(stage, [...clients, cem], { patient: true });
    await pause(stage.random(100, 400));
    balanced.port = kept.port;
    await killed.kill();
    await typing;
    assert.equal((await converged([...clients, cem])).length, 1 + 3 * 12 + 3 * KEYS);
    for (const client of clients) assert.ok(client.reconnectCount > 0);
    assert.equal(cem.reconnectCount, 0);
  }, onlyOnSpin);

  story("Spin ends under the sockets and comes back, and no key is lost", async (stage) => {
    const clients = await stage.clients(["ann", "bob"]);
    await warmUp(stage, clients);
    const tap = stage.tap("tap");
    await tap.document();
    const typing = typeAll(stage, clients, { patient: true });
    await pause(stage.random(100, 400));
    await stage.server.deployment.kill();
    await pause(stage.random(100, 400));
    await stage.server.startDeployment();
    await typing;
    assert.equal((await converged(clients)).length, 1 + 2 * 12 + 2 * KEYS);
    // Who was in the middle of a call connects again; who only listened does not notice.
    for (const client of clients) assert.ok(client.reconnectCount <= 1);
    await tap.waitFor("everything", () => audit(tap.frames).position === clients[0].position());
    assert.ok(!tap.closed);
  }, { ownServer: true, ...onlyOnSpin });
});
