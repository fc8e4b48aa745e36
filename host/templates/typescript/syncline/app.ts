// Makes an app component of mutators that also run in the browser.

import type { AppFailure, AppFunctions, Caller } from "syncline:app/app@0.1.0";
import type { Schema } from "./schema";
import { Refused, ServerTransaction } from "./server_transaction";
import type { Json, JsonObject, Transaction } from "./transaction";

/** Mutators by name. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- each knows the type of its own arguments
export type Mutators = Record<string, (tx: Transaction, args: any) => Promise<unknown> | unknown>;

/** What an app is made of. Functions of an app that are given beside are its own, and are called too. */
export interface AppOptions<User> extends Partial<Omit<AppFunctions, "describe" | "mutate">> {
  /** `schema` of the mount's settings. */
  readonly schema: Schema;
  /** The mutators of a user: `ctx` of the mount's `auth`, or what `authenticate` gave. */
  readonly mutators: (user: User) => Mutators;
  /** Names of events that `event` wants. */
  readonly events?: readonly string[];
  /** Names of calls that `call` knows. */
  readonly calls?: readonly string[];
}

/** An error that the services take as the failure of a function. */
function failing(code: string, message: string, retriable = false): Error {
  const payload: AppFailure = { code, message, retriable };
  return Object.assign(new Error(message), { payload });
}

function failed(error: unknown): Error {
  if (error instanceof Refused) return failing(error.code, error.message, error.retriable);
  return failing("", error instanceof Error ? error.message : String(error));
}

const notThere = (): never => {
  throw failing("not-implemented", "");
};

/** What an app without functions of its own answers; the server does not call what `describe` does not name. */
const NONE: Omit<AppFunctions, "describe" | "mutate"> = {
  authenticate: notThere,
  authorize: (_caller, _action, objects) => objects.map(() => false),
  validate: () => ({ tag: "accept" }),
  call: notThere,
  event: notThere,
  route: () => ({ status: 404, headers: [], body: new Uint8Array() }),
};

/** What the mutation itself says of something. */
function about(caller: Caller, name: string): Json | undefined {
  const found = caller.context.find(([key]) => key === name);
  return found === undefined ? undefined : (JSON.parse(found[1]) as Json);
}

/** The app: `export const app = plasmaApp({…})`. */
export function plasmaApp<User extends object>(options: AppOptions<User>): AppFunctions {
  const { schema, mutators, events = [], calls = [], ...own } = options;
  const names = Object.keys(mutators({} as User));
  const described = JSON.stringify({ functions: ["mutate", ...Object.keys(own)], mutators: names, events, calls });
  return {
    ...NONE,
    ...own,
    describe: () => described,
    async mutate(caller, name, given) {
      const known = mutators(JSON.parse(caller.identity.claims) as JsonObject as User);
      const mutator = Object.hasOwn(known, name) ? known[name] : undefined;
      if (mutator === undefined) throw failing("unknown-mutator", name);
      const tx = new ServerTransaction(schema, String(about(caller, "clientID")), Number(about(caller, "mutationID")));
      try {
        await mutator(tx, JSON.parse(given));
      } catch (error) {
        throw failed(error);
      }
      return "null";
    },
  };
}
