// What users can do. This file runs in the browser, before the server has heard of anything, and on the server, which has
// the last word.

import { keyOf, type Transaction } from "../syncline/transaction";

/** Who does it: `ctx` of the mount's `auth`. */
export interface User {
  readonly userId: string;
}

export type Todo = { id: string; title: string; done: boolean; owner: string };

const todo = async (tx: Transaction, id: string) => (await tx.get(keyOf("todos", id))) as Todo | undefined;

export const mutators = (user: User) => ({
  async createTodo(tx: Transaction, { id, title }: { id: string; title: string }) {
    if (title.trim() === "") throw new Error("a todo needs a title");
    if (await tx.has(keyOf("todos", id))) throw new Error("there is such a todo already");
    await tx.set(keyOf("todos", id), { id, title, done: false, owner: user.userId });
  },

  async completeTodo(tx: Transaction, { id }: { id: string }) {
    const found = await todo(tx, id);
    if (found === undefined) throw new Error("there is no such todo");
    await tx.set(keyOf("todos", id), { ...found, done: true });
  },

  async removeCompleted(tx: Transaction) {
    for (const found of (await tx.scan({ prefix: "todos/" }).toArray()) as Todo[]) {
      if (found.done) await tx.del(keyOf("todos", found.id));
    }
  },
});
