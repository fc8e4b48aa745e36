// A transaction of Replicache's kind over the tables of a plasma mount.

import * as plasma from "syncline:app/plasma@0.1.0";
import { byCodePoint, keyOfRow, placeOf, rangesOf, wholeRow, type Range, type Schema } from "./schema";
import type { Json, JsonObject, ScanOptions, ScanResult, Server, Transaction, Values } from "./transaction";

/** Rows asked for at once. */
const PAGE_ROWS = 1000;

/** Why the services did not do what they were asked, as an error of JavaScript. */
export class Refused extends Error {
  constructor(
    /** As the app's failure has it. */
    readonly code: string,
    message: string,
    /** Whether the same may succeed later. */
    readonly retriable: boolean,
  ) {
    super(message);
    this.name = code === "" ? "Error" : code;
  }

  static by(error: plasma.PlasmaError): Refused {
    switch (error.tag) {
      case "authorization":
        return new Refused("PlasmaAuthorizationError", `${error.val.action} on ${error.val.table} is not allowed`, false);
      case "invalid":
        return new Refused("", error.val, false);
      case "unavailable":
        return new Refused("unavailable", error.val, true);
    }
  }
}

/** Calls a service; its failures come as values with a `payload`. */
function asked<Answer>(call: () => Answer): Answer {
  try {
    return call();
  } catch (error) {
    const payload = (error as { payload?: plasma.PlasmaError } | null)?.payload;
    throw payload === undefined ? error : Refused.by(payload);
  }
}

const server: Server = {
  query: (query, parameters = {}) => JSON.parse(asked(() => plasma.query(JSON.stringify(query), JSON.stringify(parameters)))) as Json[],
  write(context, operations) {
    asked(() => plasma.write(context === null ? undefined : JSON.stringify(context), JSON.stringify(operations)));
  },
};

/** A mutation's view of the tables. All that it does is part of the mutation. */
export class ServerTransaction implements Transaction {
  readonly location = "server";
  readonly server = server;

  constructor(
    private readonly schema: Schema,
    readonly clientID: string,
    readonly mutationID: number,
  ) {}

  async get(key: string): Promise<Json | undefined> {
    const { name, primaryKey } = placeOf(this.schema, key);
    const row = asked(() => plasma.get(name, JSON.stringify(primaryKey)));
    return row === undefined ? undefined : (JSON.parse(row) as Json);
  }

  async has(key: string): Promise<boolean> {
    return (await this.get(key)) !== undefined;
  }

  async set(key: string, value: JsonObject): Promise<void> {
    const place = placeOf(this.schema, key);
    const row = JSON.stringify(wholeRow(place, value));
    asked(() => plasma.upsert(place.name, row));
  }

  async del(key: string): Promise<boolean> {
    const { name, primaryKey } = placeOf(this.schema, key);
    const written = JSON.stringify(primaryKey);
    const existed = asked(() => plasma.get(name, written)) !== undefined;
    if (existed) asked(() => plasma.delete(name, written));
    return existed;
  }

  scan(options: ScanOptions = {}): ScanResult {
    if ("indexName" in options) throw new Error("indexes are the browser's own: query by columns on the server");
    const found = () => this.#entries(options);
    const values = () => valuesOf(() => found().map(([, row]) => row));
    return {
      values,
      keys: () => valuesOf(() => found().map(([key]) => key)),
      entries: () => valuesOf(found),
      toArray: () => values().toArray(),
      [Symbol.asyncIterator]: () => values()[Symbol.asyncIterator](),
    };
  }

  #entries({ prefix = "", start, limit = Infinity }: ScanOptions): (readonly [string, Json])[] {
    const isIn = (key: string) => {
      if (!key.startsWith(prefix)) return false;
      const order = start === undefined ? 1 : byCodePoint(key, start.key);
      return order > 0 || (order === 0 && start?.exclusive !== true);
    };
    // A limit of 0 is none to Replicache.
    const entries = rangesOf(this.schema, prefix).flatMap((range) => rowsOf(range).filter(([key]) => isIn(key)));
    return entries.sort(([left], [right]) => byCodePoint(left, right)).slice(0, limit > 0 ? limit : Infinity);
  }
}

/** All rows of a range, page by page. */
function rowsOf({ name, table, where }: Range): (readonly [string, Json])[] {
  const entries: (readonly [string, Json])[] = [];
  for (let after: JsonObject = {}; ; ) {
    const rows = server.query({ from: name, where, limit: PAGE_ROWS, ...after }) as JsonObject[];
    for (const row of rows) entries.push([keyOfRow(name, table, row), row]);
    const last = rows.at(-1);
    if (last === undefined || rows.length < PAGE_ROWS) return entries;
    after = { after: table.primaryKey.map((column) => last[column] ?? null) };
  }
}

/** What is found when it is asked for. */
function valuesOf<Value>(found: () => Value[]): Values<Value> {
  return {
    toArray: async () => found(),
    async *[Symbol.asyncIterator]() {
      yield* found();
    },
  };
}
