// The mutators of the fixture, as functions of a transaction.

export const mutators = {
  createTodo: (tx, args, ctx) => tx.insert("todos", { ...args, owner: ctx.userId }),
  putTodo: (tx, { id, title }, ctx) => tx.upsert("todos", { id, title, owner: ctx.userId }),
  setTitle: (tx, { id, title }) => tx.update("todos", [id], { title }),
  setDone: (tx, { id, done }) => tx.update("todos", [id], { done }),
  setShared: (tx, { id, shared }) => tx.update("todos", [id], { shared }),
  deleteTodo: (tx, { id }) => tx.delete("todos", [id]),
  createMany: (tx, { items }, ctx) => {
    for (const { id, title } of items) tx.insert("todos", { id, title, owner: ctx.userId });
  },
  addComment: (tx, { id, todoId, body }, _ctx, { timestamp }) => {
    if (!tx.get("todos", [todoId])) throw new Error("no such todo");
    tx.insert("comments", { id, todoId, body, at: Math.round(timestamp) });
  },
  inc: (tx, { id, by }) => {
    const row = tx.get("counters", [id]) ?? { id, n: 0 };
    if (typeof by !== "number") throw new Error("add expects numbers");
    tx.upsert("counters", { ...row, n: row.n + by });
  },
  writeThenFail: (tx, { id }) => {
    tx.insert("counters", { id, n: 99 });
    throw new Error("refused by rule");
  },
  saveNote: (tx, { id, body }, ctx) => tx.upsert("notes", { id, body, owner: ctx.userId }),
  join: (tx, { team, userId }) => {
    if (!tx.get("members", [team, userId])) tx.insert("members", { team, userId });
  },
  leave: (tx, { team, userId }) => tx.delete("members", [team, userId]),
  createBoard: (tx, { id, team, name }) => tx.upsert("boards", { id, team, name }),
  noop: () => {},
};
