// What the stories need to know of the configuration in tests/conformance: tokens, keys of rows, and the mutators as the
// client runs them, before the server has said anything.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { conformance } from "../../harness/server.mjs";

export const fixture = JSON.parse(readFileSync(join(conformance, "plasma.fixture.json")));

export const ADMIN_TOKEN = fixture.adminToken;
export const SCHEMA_VERSION = fixture.schemaVersion;
export const MUTATIONS_PER_PUSH_MAX = fixture.maxMutationsPerPush;

export const userOf = (token) => fixture.auth.tokens[token.replace(/^Bearer /, "")]?.userId;

const escaped = (part) => String(part).replaceAll("%", "%25").replaceAll("/", "%2F");

/** The key of a row, as the client knows it. */
export const keyOf = (table, ...primaryKey) => [table, ...primaryKey.map(escaped)].join("/");

const todo = (owner, values) => ({ done: false, rank: 0, shared: true, meta: null, ...values, owner });

async function change(tx, key, set) {
  const before = await tx.get(key);
  if (before === undefined) throw new Error(`row not found: ${key}`);
  await tx.set(key, { ...before, ...set });
}

async function insert(tx, key, row) {
  if (await tx.has(key)) throw new Error(`row exists: ${key}`);
  await tx.set(key, row);
}

/** The mutators of a user. */
export const mutatorsOf = (user) => ({
  createTodo: (tx, values) => insert(tx, keyOf("todos", values.id), todo(user, values)),
  putTodo: async (tx, { id, title }) => tx.set(keyOf("todos", id), todo(user, { ...(await tx.get(keyOf("todos", id))), id, title })),
  setTitle: (tx, { id, title }) => change(tx, keyOf("todos", id), { title }),
  setDone: (tx, { id, done }) => change(tx, keyOf("todos", id), { done }),
  setShared: (tx, { id, shared }) => change(tx, keyOf("todos", id), { shared }),
  deleteTodo: (tx, { id }) => tx.del(keyOf("todos", id)),
  createMany: async (tx, { items }) => {
    for (const { id, title } of items) await insert(tx, keyOf("todos", id), todo(user, { id, title }));
  },
  addComment: (tx, { id, todoId, body }) => insert(tx, keyOf("comments", id), { id, todoId, body, at: 0 }),
  inc: async (tx, { id, by }) => tx.set(keyOf("counters", id), { id, n: ((await tx.get(keyOf("counters", id)))?.n ?? 0) + by }),
  // Here the client is more hopeful than the server.
  writeThenFail: (tx, { id }) => tx.set(keyOf("counters", id), { id, n: 99 }),
  saveNote: (tx, { id, body }) => tx.set(keyOf("notes", id), { id, owner: user, body }),
  join: (tx, { team, userId }) => tx.set(keyOf("members", team, userId), { team, userId }),
  leave: (tx, { team, userId }) => tx.del(keyOf("members", team, userId)),
  createBoard: (tx, { id, team, name }) => tx.set(keyOf("boards", id), { id, team, name }),
  noop: () => {},
});
