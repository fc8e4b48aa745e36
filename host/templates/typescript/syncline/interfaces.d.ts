// `wit/deps` as TypeScript sees it.

declare module "syncline:app/plasma@0.1.0" {
  export type PlasmaError =
    | { tag: "authorization"; val: { table: string; action: string } }
    | { tag: "invalid"; val: string }
    | { tag: "unavailable"; val: string };

  export function query(query: string, parameters: string): string;
  export function get(table: string, key: string): string | undefined;
  export function insert(table: string, row: string): void;
  export function upsert(table: string, row: string): void;
  export function update(table: string, key: string, set: string): void;
  function remove(table: string, key: string): void;
  export { remove as delete };
  export function write(asContext: string | undefined, operations: string): { version: bigint; changed: bigint };
}

declare module "syncline:app/app@0.1.0" {
  export interface Identity {
    userId?: string;
    roles: string[];
    claims: string;
  }

  export interface Caller {
    mount: string;
    connection?: bigint;
    identity: Identity;
    context: [string, string][];
  }

  export interface Reply {
    value?: string;
    context: [string, string | undefined][];
  }

  export interface AppFailure {
    code: string;
    message: string;
    retriable: boolean;
  }

  export type Verdict = { tag: "accept" } | { tag: "ignore" } | { tag: "reject"; val: AppFailure };

  export interface RouteRequest {
    method: string;
    path: string;
    query?: string;
    headers: [string, string][];
    body: Uint8Array;
  }

  export interface RouteResponse {
    status: number;
    headers: [string, string][];
    body: Uint8Array;
  }

  /** Each may be async. A failure is an error with the `AppFailure` as its `payload`. */
  export interface AppFunctions {
    describe(): string;
    authenticate(mount: string, credentials: string, request: string): Identity | Promise<Identity>;
    authorize(caller: Caller, action: string, objects: string[]): boolean[] | Promise<boolean[]>;
    mutate(caller: Caller, name: string, given: string): string | Promise<string>;
    validate(caller: Caller, operation: string): Verdict | Promise<Verdict>;
    call(caller: Caller, method: string, parameters: string): Reply | Promise<Reply>;
    event(caller: Caller, name: string, data: string): Reply | Promise<Reply>;
    route(caller: Caller, request: RouteRequest): RouteResponse | Promise<RouteResponse>;
  }
}
