// The tables of the fixture, and who may see and change their rows.

const TEXT = { sql: "TEXT NOT NULL", store: (value) => value, load: (cell) => cell, fits: (value) => typeof value === "string" };
const INTEGER = { sql: "INTEGER NOT NULL", store: (value) => value, load: (cell) => cell, fits: Number.isSafeInteger };
const BOOLEAN = { sql: "INTEGER NOT NULL", store: Number, load: Boolean, fits: (value) => typeof value === "boolean" };
const JSON_TEXT = {
  sql: "TEXT",
  store: (value) => (value === null ? null : JSON.stringify(value)),
  load: (cell) => (cell === null ? null : JSON.parse(cell)),
  fits: () => true,
};
const ENVELOPE = {
  ...JSON_TEXT,
  fits: (value) => value !== null && ["alg", "keyId", "iv", "ct"].every((name) => typeof value[name] === "string") && value.ct.length <= 2048,
};

const everybody = () => true;
const ownerOnly = (row, ctx) => row.owner === ctx.userId;
const ownerOrShared = (row, ctx) => row.owner === ctx.userId || row.shared || ctx.role === "admin";

export const tables = {
  todos: {
    key: ["id"],
    columns: { id: TEXT, owner: TEXT, title: TEXT, done: BOOLEAN, rank: INTEGER, shared: BOOLEAN, meta: JSON_TEXT },
    defaults: { done: false, rank: 0, shared: true, meta: null },
    canRead: ownerOrShared,
    canWrite: ownerOrShared,
  },
  comments: { key: ["id"], columns: { id: TEXT, todoId: TEXT, body: TEXT, at: INTEGER }, canRead: everybody, canWrite: everybody },
  counters: { key: ["id"], columns: { id: TEXT, n: INTEGER }, defaults: { n: 0 }, canRead: everybody, canWrite: everybody },
  notes: { key: ["id"], columns: { id: TEXT, owner: TEXT, body: ENVELOPE }, canRead: ownerOnly, canWrite: ownerOnly },
  members: { key: ["team", "userId"], columns: { team: TEXT, userId: TEXT }, canRead: everybody, canWrite: everybody },
  boards: {
    key: ["id"],
    columns: { id: TEXT, team: TEXT, name: TEXT },
    canRead: (row, ctx, store) => store.isMember(row.team, ctx.userId),
    canWrite: everybody,
  },
};

export const tokens = {
  "tok-alice": { userId: "alice", role: "member" },
  "tok-bob": { userId: "bob", role: "member" },
  "tok-carol": { userId: "carol", role: "member" },
  "tok-root": { userId: "root", role: "admin" },
};

export const SCHEMA_VERSION = "7";
export const MUTATIONS_PER_PUSH_MAX = 200;
export const PAGE_ROWS_MAX = 1000;
export const BODY_BYTES_MAX = 1 << 20;
