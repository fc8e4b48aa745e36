// A straightforward plasma server: node:http, better-sqlite3, one commit per push, pokes as server-sent events.
//
//   node main.mjs FILE [HOST:PORT]
//
// It does what the measured cases and most stories of the real client need: pushes and pulls of the Replicache dialect with the
// tables and mutators of the fixture, static tokens, pokes, `forget`. The rules are those of docs/protocols/plasma.md.

import { createServer } from "node:http";
import { Refusal, openStore } from "./store.mjs";
import { BODY_BYTES_MAX, MUTATIONS_PER_PUSH_MAX, PAGE_ROWS_MAX, SCHEMA_VERSION, tokens } from "./tables.mjs";

const [file, listen = "127.0.0.1:0"] = process.argv.slice(2);
const store = openStore(file);

const PING_INTERVAL_MS = 25_000;
/** Connections that wait for pokes. */
const streams = new Set();

function poke(data, streamsOf = streams) {
  const event = Buffer.from(`id: ${data.cookie}\nevent: poke\ndata: ${JSON.stringify(data)}\n\n`);
  for (const stream of streamsOf) stream.response.write(event);
}

function answer(response, status, body, headers = {}) {
  const text = JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", "content-length": Buffer.byteLength(text), ...headers });
  response.end(text);
}

async function bodyOf(request) {
  if (Number(request.headers["content-length"]) > BODY_BYTES_MAX) throw new Refusal(413, { error: "payload-too-large", limit: BODY_BYTES_MAX });
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {
    return JSON.parse(Buffer.concat(chunks));
  } catch {
    throw new Refusal(400, { error: "invalid-request", reason: "not JSON" });
  }
}

function callerOf(request, query) {
  const token = (request.headers.authorization ?? query.get("auth") ?? "").replace(/^Bearer /, "");
  const ctx = Object.hasOwn(tokens, token) && tokens[token];
  if (!ctx) throw new Refusal(401, { error: "unauthorized", reason: "no valid token" });
  return ctx;
}

function checkVersions(body, name) {
  if (body[`${name}Version`] !== 1) throw new Refusal(200, { error: "VersionNotSupported", versionType: name });
  if (body.schemaVersion !== SCHEMA_VERSION) throw new Refusal(200, { error: "VersionNotSupported", versionType: "schema" });
}

async function push(request, response, query) {
  const ctx = callerOf(request, query);
  const body = await bodyOf(request);
  checkVersions(body, "push");
  const { version, isNew, remaining, lastMutationIDChanges, results } = store.push(ctx, body);
  if (remaining > 0) {
    const applied = MUTATIONS_PER_PUSH_MAX;
    answer(response, 429, { error: "push-truncated", limit: applied, applied, remaining, lastMutationIDChanges }, { "retry-after": 0 });
  } else {
    answer(response, 200, { ok: true, lastMutationIDChanges, cookie: version, results });
  }
  if (isNew) poke({ cookie: version });
}

async function pull(request, response, query) {
  const ctx = callerOf(request, query);
  const limit = query.get("limit") ?? String(PAGE_ROWS_MAX);
  if (!/^[1-9][0-9]*$/.test(limit)) throw new Refusal(400, { error: "invalid-request", reason: "limit must be a positive integer" });
  const body = await bodyOf(request);
  checkVersions(body, "pull");
  const reply = store.pull(ctx, body, Math.min(Number(limit), PAGE_ROWS_MAX));
  answer(response, 200, reply);
  if (reply.hasMore) {
    const ofGroup = [...streams].filter(({ clientGroupID }) => clientGroupID === body.clientGroupID);
    poke({ cookie: reply.cookie.v, hasMore: true }, ofGroup);
  }
}

async function query(request, response, parameters) {
  const ctx = callerOf(request, parameters);
  const { query: asked } = await bodyOf(request);
  answer(response, 200, store.query(ctx, asked.where.and[1].right.val, asked.limit));
}

function pokes(request, response, query) {
  callerOf(request, query);
  const stream = { response, clientGroupID: query.get("clientGroupID") };
  streams.add(stream);
  response.on("close", () => streams.delete(stream));
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const cookie = store.version();
  response.write(`retry: 2000\nid: ${cookie}\nevent: hello\ndata: ${JSON.stringify({ cookie, pingIntervalMs: PING_INTERVAL_MS })}\n\n`);
  if (Number(request.headers["last-event-id"] ?? cookie) < cookie) poke({ cookie }, [stream]);
}

async function forget(request, response) {
  if (request.headers.authorization !== "Bearer admin-secret") throw new Refusal(401, { error: "unauthorized" });
  store.forget((await bodyOf(request)).clientGroupID);
  answer(response, 200, { ok: true });
}

const routes = {
  "POST /sync/push": push,
  "POST /sync/pull": pull,
  "POST /sync/query": query,
  "GET /sync/poke": pokes,
  "POST /sync/admin/forget": forget,
  "GET /readyz": (_request, response) => answer(response, 200, { ok: true }),
};

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://peer");
  try {
    const route = routes[`${request.method} ${pathname}`];
    if (!route) throw new Refusal(404, { error: "not-found" });
    await route(request, response, searchParams);
  } catch (error) {
    const { status = 500, body = { error: "internal" } } = error;
    if (status === 500) console.error(error);
    if (!response.headersSent) answer(response, status, body);
  }
});
setInterval(() => streams.forEach(({ response }) => response.write(": ping\n\n")), PING_INTERVAL_MS).unref();
process.on("SIGTERM", () => process.exit(0));
// Others take their turns for longer than Node would keep an idle connection.
server.keepAliveTimeout = 0;
const [host, port] = listen.split(":");
server.listen(Number(port), host, () => console.log(`listening on http://${host}:${server.address().port}`));
