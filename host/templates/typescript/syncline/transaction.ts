// What mutators work on: the same in the browser, where Replicache's transactions fit it as they are, and on the server.

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

/** A JSON object; a property that is `undefined` counts as absent. */
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

/** Where a scan begins. */
export interface ScanStart {
  readonly key: string;
  /** Whether the row of that very key is left out. */
  readonly exclusive?: boolean;
}

/** Which rows a scan gives, in the order of their keys. */
export interface ScanOptions {
  /** Keys begin with it, such as `todos/`. */
  readonly prefix?: string;
  readonly start?: ScanStart;
  /** So many at most. */
  readonly limit?: number;
}

/** Values one after the other, or all of them. */
export interface Values<Value> extends AsyncIterable<Value> {
  toArray(): Promise<Value[]>;
}

/** What a scan found: rows, where nothing else is asked for. */
export interface ScanResult extends AsyncIterable<Json> {
  values(): Values<Json>;
  keys(): Values<string>;
  entries(): Values<readonly [string, Json]>;
  toArray(): Promise<Json[]>;
}

/** A transaction. Rows are JSON objects with all their columns; their keys are those of `keyOf`. */
export interface Transaction {
  readonly clientID: string;
  readonly mutationID: number;
  readonly location: "client" | "server";
  get(key: string): Promise<Json | undefined>;
  has(key: string): Promise<boolean>;
  /** Puts a row in the place of whatever is there. */
  set(key: string, value: JsonObject): Promise<void>;
  /** Removes a row, and says whether it was there. */
  del(key: string): Promise<boolean>;
  scan(options?: ScanOptions): ScanResult;
  /** What only the server has; absent in the browser. */
  readonly server?: Server;
}

/** What only the server can do. */
export interface Server {
  /** Rows of a query (an AST, as `/query` takes it), with values for its parameters. */
  query(query: JsonObject, parameters?: JsonObject): Json[];
  /** Several writes, all or none, that the rules of the tables are not asked about where `context` is null. */
  write(context: JsonObject | null, operations: readonly JsonObject[]): void;
}

const escaped = (part: string | number | boolean) => String(part).replaceAll("%", "%25").replaceAll("/", "%2F");

/** The key of a row: its table and its primary key. */
export function keyOf(table: string, ...primaryKey: (string | number | boolean)[]): string {
  return [table, ...primaryKey.map(escaped)].join("/");
}
