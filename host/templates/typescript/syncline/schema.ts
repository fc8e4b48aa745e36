// The schema of a mount as an app needs it, and where keys lead in it.

import { type Json, type JsonObject, keyOf } from "./transaction";

/** A column, as in the settings of the mount. */
export interface Column {
  readonly type: string;
  readonly nullable?: boolean;
  readonly default?: Json;
}

/** A table, as in the settings of the mount. */
export interface Table {
  readonly columns: Readonly<Record<string, Column>>;
  readonly primaryKey: readonly string[];
}

/** `schema` of the settings of the mount. */
export interface Schema {
  readonly tables: Readonly<Record<string, Table>>;
}

/** A row's place. */
export interface Place {
  readonly name: string;
  readonly table: Table;
  readonly primaryKey: readonly Json[];
}

/** Which rows a beginning of keys stands for. */
export interface Range {
  readonly name: string;
  readonly table: Table;
  /** A predicate, for a query; rows beside the range may pass it. */
  readonly where: JsonObject;
}

const unescaped = (part: string) => part.replaceAll("%2F", "/").replaceAll("%25", "%");

function part(column: Column | undefined, text: string): Json {
  switch (column?.type) {
    case "integer":
      return Number(text);
    case "boolean":
      return text === "true";
    default:
      return unescaped(text);
  }
}

function tableOf(schema: Schema, name: string): Table | undefined {
  return Object.hasOwn(schema.tables, name) ? schema.tables[name] : undefined;
}

/** Where a key leads. */
export function placeOf(schema: Schema, key: string): Place {
  const [name = "", ...parts] = key.split("/");
  const table = tableOf(schema, name);
  if (table === undefined) throw new Error(`${key}: there is no table ${name}`);
  if (parts.length !== table.primaryKey.length) {
    throw new Error(`${key}: the primary key of ${name} has ${table.primaryKey.length} part(s)`);
  }
  return { name, table, primaryKey: table.primaryKey.map((column, index) => part(table.columns[column], parts[index] ?? "")) };
}

/** A whole row: what is left out has its default, as where the row is new. */
export function wholeRow({ name, table, primaryKey }: Place, value: JsonObject): JsonObject {
  const row: Record<string, Json | undefined> = { ...value };
  for (const [column, { default: byDefault, nullable }] of Object.entries(table.columns)) {
    if (row[column] !== undefined) continue;
    if (byDefault !== undefined) row[column] = byDefault;
    else if (nullable) row[column] = null;
  }
  table.primaryKey.forEach((column, index) => {
    if (value[column] !== undefined && value[column] !== primaryKey[index]) {
      throw new Error(`${name}: ${column} is not what the key of the row says`);
    }
    row[column] = primaryKey[index];
  });
  return row;
}

/** The key of a row. */
export function keyOfRow(name: string, table: Table, row: JsonObject): string {
  return keyOf(name, ...table.primaryKey.map((column) => row[column] as string | number | boolean));
}

/** Which tables have keys that begin so, and which of their rows. */
export function rangesOf(schema: Schema, prefix: string): Range[] {
  const ranges: Range[] = [];
  for (const [name, table] of Object.entries(schema.tables)) {
    if (`${name}/`.startsWith(prefix)) ranges.push({ name, table, where: { and: [] } });
    else if (prefix.startsWith(`${name}/`)) {
      const parts = prefix.slice(name.length + 1).split("/");
      if (parts.length <= table.primaryKey.length) ranges.push({ name, table, where: { and: conditions(table, parts) } });
    }
  }
  return ranges;
}

/** All parts are whole but the last. */
function conditions(table: Table, parts: readonly string[]): JsonObject[] {
  const last = parts.length - 1;
  return parts.flatMap((text, index) => {
    const name = table.primaryKey[index] ?? "";
    const column = table.columns[name];
    if (index < last) return [{ op: "=", left: { col: name }, right: { val: part(column, text) } }];
    // An escape may be cut in two: then the database does not choose among its rows.
    const chosen = text !== "" && column?.type === "text" && !text.includes("%");
    return chosen ? [{ op: "startsWith", left: { col: name }, right: { val: text } }] : [];
  });
}

/** Orders keys by their code points, as the browser's store does. */
export function byCodePoint(left: string, right: string): number {
  const length = Math.min(left.length, right.length);
  let index = 0;
  while (index < length && left.charCodeAt(index) === right.charCodeAt(index)) index += 1;
  if (index === length) return left.length - right.length;
  return weight(left.charCodeAt(index)) - weight(right.charCodeAt(index));
}

/** Halves of a pair stand for code points above all others. */
const weight = (unit: number) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
