// The browser's copy of the tables, and how it keeps up with the server.

import { Replicache, dropDatabase } from "replicache";
import { type User, mutators } from "./mutators";

/** Where the plasma mount is. */
export const BASE = "/sync";

export type Client = Replicache<ReturnType<typeof mutators>>;

/** A client of the server that this page came from. */
export function connect(user: User): Client {
  const client: Client = new Replicache({
    name: user.userId,
    schemaVersion: "1",
    pushURL: `${BASE}/push`,
    pullURL: `${BASE}/pull`,
    mutators: mutators(user),
  });
  const pull = () => void client.pull({ now: true });
  const pokes = new EventSource(`${BASE}/poke`);
  // After each connect, too: something may have been missed.
  pokes.addEventListener("hello", pull);
  pokes.addEventListener("poke", pull);
  addEventListener("online", () => {
    void client.push({ now: true });
    pull();
  });
  // The server does not know this copy any more: it begins anew.
  client.onClientStateNotFound = async () => {
    await client.close();
    await dropDatabase(client.idbName);
    location.reload();
  };
  return client;
}
