// Mutators for tests: what they see goes into a row, so that both sides can be compared; and some that are up to no good.

import { keyOf, type Json, type JsonObject, type ScanOptions, type Transaction } from "../syncline/transaction";

type Rows = readonly (readonly [string, JsonObject])[];

export const mutators = () => ({
  async fill(tx: Transaction, { rows }: { rows: Rows }) {
    for (const [key, row] of rows) await tx.set(key, row);
  },

  /** The keys that a scan gives; the caller gets the browser's, the row has the server's. */
  async look(tx: Transaction, { id, options }: { id: string; options: ScanOptions }) {
    const seen = await tx.scan(options).keys().toArray();
    await tx.set(keyOf("seen", id), { id, seen });
    return seen;
  },

  /** What each way of reading tells of a key, before and after it is removed. */
  async remove(tx: Transaction, { id, key }: { id: string; key: string }) {
    const seen: Json[] = [await tx.has(key), (await tx.get(key)) !== undefined, await tx.del(key), await tx.has(key), await tx.del(key)];
    await tx.set(keyOf("seen", id), { id, seen });
    return seen;
  },

  /** A row in the place of another one: nothing of that stays. */
  async replace(tx: Transaction, { id }: { id: string }) {
    const key = keyOf("texts", id);
    await tx.set(key, { id, note: "first", rank: 7 });
    await tx.set(key, { id });
  },

  where: (tx: Transaction, { id }: { id: string }) =>
    tx.set(keyOf("seen", id), { id, seen: [tx.location, tx.clientID, tx.mutationID, tx.server === undefined] }),

  /** Rows of a query, which only the server can ask. */
  async count(tx: Transaction, { id }: { id: string }) {
    const rows = tx.server?.query({ from: "texts", where: { op: "=", left: { col: "note" }, right: { param: "note" } } }, { note: "x" });
    await tx.set(keyOf("seen", id), { id, seen: [rows?.length ?? null] });
  },

  nowhere: (tx: Transaction) => tx.set("nowhere/x", {}),
  otherKey: (tx: Transaction) => tx.set(keyOf("texts", "a"), { id: "b" }),
  wrongType: (tx: Transaction) => tx.set(keyOf("texts", "a"), { rank: "high" }),

  /** The failure of a write is an error like any other: whoever catches it goes on. */
  async survive(tx: Transaction) {
    try {
      await tx.set(keyOf("texts", "never"), { colour: "red" });
    } catch (error) {
      await tx.set(keyOf("seen", "survived"), { seen: [(error as Error).message] });
    }
  },

  async loop(tx: Transaction) {
    await tx.set(keyOf("texts", "fallen"), {});
    for (;;);
  },

  async eat(tx: Transaction) {
    await tx.set(keyOf("texts", "fallen"), {});
    for (const eaten: number[][] = []; ; ) eaten.push(new Array<number>(1 << 16).fill(1.5));
  },
});
