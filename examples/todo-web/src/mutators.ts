// What users can do, in the browser and on the server.

import { keyOf, type Transaction } from "../syncline/transaction";

/** Who does it. */
export interface User {
  readonly userId: string;
}

export type Todo = { id: string; title: string; done: boolean; owner: string; createdAt: number };

/** What a row says of a file that was uploaded. */
export type FileValue = { hash: string; size: number; contentType: string; name: string };

export type Attachment = { todoId: string; id: string; file: FileValue };

const TITLE_LENGTH_MAX = 500;

function checkTitle(title: string) {
  if (title.trim() === "" || title.length > TITLE_LENGTH_MAX) throw new Error(`a title has 1 to ${TITLE_LENGTH_MAX} characters`);
}

async function change(tx: Transaction, id: string, set: Partial<Todo>) {
  const todo = (await tx.get(keyOf("todos", id))) as Todo | undefined;
  // Somebody else has removed it.
  if (todo !== undefined) await tx.set(keyOf("todos", id), { ...todo, ...set });
}

export const mutators = (user: User) => ({
  async createTodo(tx: Transaction, { id, title, createdAt }: { id: string; title: string; createdAt: number }) {
    checkTitle(title);
    await tx.set(keyOf("todos", id), { id, title, done: false, owner: user.userId, createdAt });
  },

  async setTitle(tx: Transaction, { id, title }: { id: string; title: string }) {
    checkTitle(title);
    await change(tx, id, { title });
  },

  setDone: (tx: Transaction, { id, done }: { id: string; done: boolean }) => change(tx, id, { done }),

  async removeTodo(tx: Transaction, { id }: { id: string }) {
    for (const key of await tx.scan({ prefix: `${keyOf("attachments", id)}/` }).keys().toArray()) await tx.del(key);
    await tx.del(keyOf("todos", id));
  },

  async attach(tx: Transaction, { todoId, id, file }: Attachment) {
    if (await tx.has(keyOf("todos", todoId))) await tx.set(keyOf("attachments", todoId, id), { todoId, id, file });
  },
});
