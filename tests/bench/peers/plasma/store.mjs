// Rows, clients and versions in one SQLite file: WAL, synchronous = FULL, one transaction per push.
//
// Every row keeps the version of its last change, and a deleted row stays as a tombstone: what a client has not seen is
// what has a higher version than its cookie.

import Database from "better-sqlite3";
import { mutators } from "./mutators.mjs";
import { MUTATIONS_PER_PUSH_MAX, tables } from "./tables.mjs";

/** An answer other than 200 with the result; what the transaction wrote is undone. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body.error);
    this.status = status;
    this.body = body;
  }
}

const CLIENT_STATE_NOT_FOUND = { error: "ClientStateNotFound" };
/** The smallest step of a cookie's order between two versions. */
const ORDER_STEP = 2 ** -20;

const escaped = (part) => String(part).replaceAll("%", "%25").replaceAll("/", "%2F");
const keyOf = (name, row) => [name, ...tables[name].key.map((column) => escaped(row[column]))].join("/");

export function openStore(file) {
  const database = new Database(file);
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = FULL");
  database.exec(`
    CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL, members_version INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS client_groups (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, ctx TEXT NOT NULL, reset_version INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS clients (id TEXT PRIMARY KEY, group_id TEXT NOT NULL, last_mutation_id INTEGER NOT NULL, version INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS clients_group ON clients (group_id, version);
  `);
  if (!database.prepare("SELECT 1 FROM meta").get()) database.exec("INSERT INTO meta VALUES (0, 0)");
  const sql = {
    meta: database.prepare("SELECT version, members_version AS membersVersion FROM meta"),
    setVersion: database.prepare("UPDATE meta SET version = ?"),
    setMembersVersion: database.prepare("UPDATE meta SET members_version = ?"),
    group: database.prepare("SELECT user_id AS userId, ctx, reset_version AS resetVersion FROM client_groups WHERE id = ?"),
    insertGroup: database.prepare("INSERT INTO client_groups VALUES (?, ?, ?, 0)"),
    setGroupContext: database.prepare("UPDATE client_groups SET ctx = ?, reset_version = ? WHERE id = ?"),
    deleteGroup: database.prepare("DELETE FROM client_groups WHERE id = ?"),
    deleteClients: database.prepare("DELETE FROM clients WHERE group_id = ?"),
    client: database.prepare("SELECT group_id AS groupId, last_mutation_id AS lastMutationId FROM clients WHERE id = ?"),
    setClient: database.prepare(`INSERT INTO clients VALUES (?, ?, ?, ?)
      ON CONFLICT (id) DO UPDATE SET last_mutation_id = excluded.last_mutation_id, version = excluded.version`),
    changedClients: database.prepare("SELECT id, last_mutation_id AS lastMutationId FROM clients WHERE group_id = ? AND version > ? AND version <= ?"),
  };
  const rows = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, rowStatements(database, name, table)]));
  const isMember = (team, userId) => rows.members.get([team, userId]) !== undefined;

  /** What a mutator gets: every write is checked and takes the version of its mutation. */
  function transactionOf(ctx, version) {
    const write = (name, before, after) => {
      const table = tables[name];
      for (const row of [before, after]) {
        if (row && !table.canWrite(row, ctx)) throw Object.assign(new Error(`${name} may not be written`), { name: "PlasmaAuthorizationError" });
      }
      for (const [column, type] of Object.entries(after ? table.columns : {})) {
        if (!type.fits(after[column])) throw new Error(`column ${column} does not fit`);
      }
      rows[name].put(after ?? before, version, after === undefined);
      if (name === "members") sql.setMembersVersion.run(version);
    };
    const pk = (name, row) => tables[name].key.map((column) => row[column]);
    return {
      get: (name, key) => rows[name].get(key),
      insert: (name, row) => {
        if (rows[name].get(pk(name, row))) throw new Error(`row exists: ${keyOf(name, row)}`);
        write(name, undefined, { ...tables[name].defaults, ...row });
      },
      upsert: (name, row) => {
        const before = rows[name].get(pk(name, row));
        write(name, before, { ...tables[name].defaults, ...before, ...row });
      },
      update: (name, key, set) => {
        const before = rows[name].get(key);
        if (!before) throw new Error(`row not found: ${[name, ...key].join("/")}`);
        write(name, before, { ...before, ...set });
      },
      delete: (name, key) => {
        const before = rows[name].get(key);
        if (before) write(name, before, undefined);
      },
    };
  }

  function ownGroup(clientGroupID, ctx) {
    const group = sql.group.get(clientGroupID);
    if (group && group.userId !== ctx.userId) throw new Refusal(403, { error: "forbidden", reason: "client-group-owner" });
    return group;
  }

  const mutate = database.transaction(({ name, args, timestamp }, ctx, version) => {
    if (!Object.hasOwn(mutators, name)) throw new Error(`unknown mutator: ${name}`);
    mutators[name](transactionOf(ctx, version), args ?? {}, ctx, { timestamp });
  });

  const push = database.transaction((ctx, { clientGroupID, mutations }) => {
    if (!ownGroup(clientGroupID, ctx)) sql.insertGroup.run(clientGroupID, ctx.userId, JSON.stringify(ctx));
    let { version } = sql.meta.get();
    const before = version;
    const [lastMutationIDChanges, results] = [{}, []];
    let remaining = 0;
    for (const mutation of mutations) {
      const { id, clientID } = mutation;
      const { groupId, lastMutationId } = sql.client.get(clientID) ?? { groupId: clientGroupID, lastMutationId: 0 };
      if (groupId !== clientGroupID) throw new Refusal(403, { error: "forbidden", reason: "client-belongs-to-another-group" });
      lastMutationIDChanges[clientID] = lastMutationId;
      if (id <= lastMutationId) {
        results.push({ clientID, id, status: "duplicate" });
        continue;
      }
      if (version - before === MUTATIONS_PER_PUSH_MAX) {
        remaining += 1;
        continue;
      }
      if (id > lastMutationId + 1) throw new Refusal(200, CLIENT_STATE_NOT_FOUND);
      version += 1;
      try {
        mutate(mutation, ctx, version);
        results.push({ clientID, id, status: "applied" });
      } catch ({ name, message }) {
        results.push({ clientID, id, status: "error", error: { name, message } });
      }
      sql.setClient.run(clientID, clientGroupID, id, version);
      lastMutationIDChanges[clientID] = id;
    }
    if (version > before) sql.setVersion.run(version);
    return { version, isNew: version > before, remaining, lastMutationIDChanges, results };
  });

  /** The rows changed after `from`, at most so many, never a part of a version; and up to which version they go. */
  function changedRows(from, current, limit) {
    const found = Object.entries(rows).flatMap(([name, { changed }]) => changed.all(from, limit + 1).map((cells) => ({ name, cells })));
    found.sort((left, right) => left.cells._version - right.cells._version);
    if (found.length <= limit) return { found, reached: current };
    const next = found[limit].cells._version;
    const whole = found.filter(({ cells }) => cells._version < next);
    if (whole.length > 0) return { found: whole, reached: next - 1 };
    const one = Object.entries(rows).flatMap(([name, { ofVersion }]) => ofVersion.all(next).map((cells) => ({ name, cells })));
    return { found: one, reached: next };
  }

  const pull = database.transaction((ctx, { clientGroupID, cookie }, limit) => {
    const group = ownGroup(clientGroupID, ctx);
    let { version, membersVersion } = sql.meta.get();
    let resetVersion = membersVersion;
    const { v = cookie ?? 0, s = v, order = v } = typeof cookie === "object" && cookie !== null ? cookie : {};
    if (!group) {
      if (cookie !== null) throw new Refusal(200, CLIENT_STATE_NOT_FOUND);
      sql.insertGroup.run(clientGroupID, ctx.userId, JSON.stringify(ctx));
    } else if (v > version || s > version) {
      throw new Refusal(200, CLIENT_STATE_NOT_FOUND);
    } else if (group.ctx !== JSON.stringify(ctx)) {
      version += 1;
      sql.setVersion.run(version);
      sql.setGroupContext.run(JSON.stringify(ctx), version, clientGroupID);
      resetVersion = version;
    } else {
      resetVersion = Math.max(resetVersion, group.resetVersion);
    }
    const reset = cookie !== null && Math.max(v, s) < resetVersion;
    const isFirst = reset || cookie === null;
    if (!isFirst && v === version) return { cookie, lastMutationIDChanges: {}, patch: [], hasMore: false, reset };

    const from = isFirst ? 0 : v;
    const { found, reached } = changedRows(from, version, limit);
    const patch = isFirst ? [{ op: "clear" }] : [];
    for (const { name, cells } of found) {
      const row = rows[name].load(cells);
      if (!cells._deleted && tables[name].canRead(row, ctx, { isMember })) patch.push({ op: "put", key: keyOf(name, row), value: row });
      else if (!isFirst) patch.push({ op: "del", key: keyOf(name, row) });
    }
    const lastMutationIDChanges = Object.fromEntries(
      sql.changedClients.all(clientGroupID, from, reached).map(({ id, lastMutationId }) => [id, lastMutationId]),
    );
    const hasMore = reached < version;
    const next = Math.max(reached, cookie === null ? 0 : order + ORDER_STEP);
    const plain = !hasMore && next === reached;
    return { cookie: plain ? reached : { order: next, v: reached, s: isFirst ? version : Math.max(s, hasMore ? 0 : version) }, lastMutationIDChanges, patch, hasMore, reset };
  });

  const open = database.prepare(`SELECT id, title FROM todos WHERE NOT _deleted AND done = ? AND substr(title, 1, length(?)) = ?
    AND (owner = ? OR shared = 1 OR ? = 'admin') ORDER BY id LIMIT ?`);
  /** The one query that is measured, in plain SQL. */
  const query = database.transaction((ctx, prefix, limit) => {
    const rows = open.all(0, prefix, prefix, ctx.userId, ctx.role ?? "", limit);
    return { ok: true, version: sql.meta.get().version, rows };
  });

  const forget = database.transaction((clientGroupID) => {
    sql.deleteGroup.run(clientGroupID);
    sql.deleteClients.run(clientGroupID);
  });

  // `immediate`: a pull may write too, and must not find that another wrote since it began.
  return { push: push.immediate, pull: pull.immediate, query, forget, version: () => sql.meta.get().version };
}

/** The statements of one table; made once. */
function rowStatements(database, name, { key, columns }) {
  const names = Object.keys(columns);
  const defined = names.map((column) => `${column} ${columns[column].sql}`).join(", ");
  database.exec(`
    CREATE TABLE IF NOT EXISTS ${name} (${defined}, _version INTEGER NOT NULL, _deleted INTEGER NOT NULL, PRIMARY KEY (${key.join(", ")}));
    CREATE INDEX IF NOT EXISTS ${name}_version ON ${name} (_version);
  `);
  const get = database.prepare(`SELECT * FROM ${name} WHERE ${key.map((column) => `${column} = ?`).join(" AND ")} AND NOT _deleted`);
  const put = database.prepare(`INSERT OR REPLACE INTO ${name} VALUES (${names.map(() => "?").join(", ")}, ?, ?)`);
  const load = (cells) => Object.fromEntries(names.map((column) => [column, columns[column].load(cells[column])]));
  return {
    load,
    get: (pk) => {
      const cells = get.get(pk);
      return cells && load(cells);
    },
    put: (row, version, deleted) => put.run(...names.map((column) => columns[column].store(row[column])), version, Number(deleted)),
    changed: database.prepare(`SELECT * FROM ${name} WHERE _version > ? ORDER BY _version LIMIT ?`),
    ofVersion: database.prepare(`SELECT * FROM ${name} WHERE _version = ?`),
  };
}
