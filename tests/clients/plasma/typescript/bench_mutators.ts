// What the app in Rust of the tests has under the same name (tests/components/plasma-app).

import { keyOf, type Transaction } from "../syncline/transaction";

export const mutators = () => ({
  own: (tx: Transaction, { id, owner }: { id: string; owner: string }) =>
    tx.set(keyOf("todos", id), { id, owner, title: "t", shared: false }),
});
