// Requests without a client: somebody else's program, or whoever runs the server.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { ADMIN_TOKEN, SCHEMA_VERSION } from "./fixture.mjs";

/** Sends and gives `{status, headers, body}`. */
export async function request(url, { method = "POST", token, body, headers = {} } = {}) {
  const sent = { method, headers: { ...headers, ...(token && { authorization: `Bearer ${token}` }) } };
  if (body !== undefined) sent.body = JSON.stringify(body);
  const response = await fetch(url, sent);
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
}

/** A program that pushes with ids of its own, whole batches at a time. */
export class Pusher {
  #endpoint;
  #token;
  #id = 0;
  clientGroupID = `group-${randomUUID()}`;
  clientID = `client-${randomUUID()}`;

  constructor(endpoint, token = "tok-alice") {
    this.#endpoint = endpoint;
    this.#token = token;
  }

  /** Mutations `[name, args]`; the answer. */
  async send(...mutations) {
    const numbered = mutations.map(([name, args], index) => ({ id: this.#id + index + 1, clientID: this.clientID, name, args, timestamp: Date.now() }));
    const body = { pushVersion: 1, schemaVersion: SCHEMA_VERSION, profileID: "p", clientGroupID: this.clientGroupID, mutations: numbered };
    const answer = await request(`${this.#endpoint}/push`, { token: this.#token, body });
    if (answer.status === 200) this.#id += mutations.length;
    return answer;
  }

  /** The same, and every mutation must be applied. */
  async push(...mutations) {
    const { status, body } = await this.send(...mutations);
    assert.equal(status, 200, JSON.stringify(body));
    for (const result of body.results) assert.equal(result.status, "applied", JSON.stringify(result));
    return body;
  }
}

/** Every row that a token sees, by pulling page after page as a new client. */
export async function everything(endpoint, token = "tok-root") {
  const clientGroupID = `group-${randomUUID()}`;
  const rows = new Map();
  for (let cookie = null, hasMore = true; hasMore; ) {
    const asked = { pullVersion: 1, schemaVersion: SCHEMA_VERSION, profileID: "p", clientGroupID, cookie };
    const { status, body } = await request(`${endpoint}/pull`, { token, body: asked });
    assert.equal(status, 200, JSON.stringify(body));
    for (const { op, key, value } of body.patch) op === "put" ? rows.set(key, value) : rows.delete(key);
    ({ cookie, hasMore } = body);
  }
  return rows;
}

/** What only the administrator may do. */
export async function admin(endpoint, name, body) {
  const answer = await request(`${endpoint}/admin/${name}`, { method: body === undefined ? "GET" : "POST", token: ADMIN_TOKEN, body });
  assert.equal(answer.status, 200, `${name}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}
