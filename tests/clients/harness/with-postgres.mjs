// Runs a command with a PostgreSQL server of its own in a temporary folder: node with-postgres.mjs COMMAND ARGUMENT…
//
// SYNCLINE_TEST_POSTGRES tells the command where it is. If that is set already, the server that it names is used.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const START_MS = 30_000;

/** A program of PostgreSQL. Debian keeps them apart by version, outside of the path. */
function programOf(name) {
  const versions = "/usr/lib/postgresql";
  const installed = existsSync(versions) ? readdirSync(versions).sort((left, right) => right - left) : [];
  const found = installed.map((version) => join(versions, version, "bin", name)).find((path) => existsSync(path));
  return found ?? name;
}

/** PostgreSQL refuses root. */
const asPostgres = process.geteuid() === 0 ? ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] : [];

function asUser(name, options) {
  const [program, ...rest] = [...asPostgres, programOf(name), ...options];
  return [program, rest];
}

async function freePort() {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  return port;
}

async function start() {
  const folder = mkdtempSync(join(tmpdir(), "syncline-postgres-"));
  if (asPostgres.length > 0) {
    const [uid, gid] = ["-u", "-g"].map((option) => Number(execFileSync("id", [option, "postgres"])));
    chownSync(folder, uid, gid);
  }
  chmodSync(folder, 0o700);
  const data = join(folder, "data");
  const port = await freePort();
  const quiet = { cwd: "/", stdio: ["ignore", "ignore", "inherit"] };
  execFileSync(...asUser("initdb", ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D", data]), quiet);
  // The machine does not crash in these tests, only the servers do.
  const settings = ["fsync=off", "shared_buffers=64MB", "max_connections=200"].flatMap((setting) => ["-c", setting]);
  const log = { cwd: "/", stdio: ["ignore", "ignore", "pipe"] };
  const server = spawn(...asUser("postgres", ["-D", data, "-p", String(port), "-h", "127.0.0.1", "-k", "", ...settings]), log);
  let said = "";
  server.stderr.on("data", (text) => (said = (said + text).slice(-4_000)));
  process.on("exit", () => {
    server.kill("SIGQUIT");
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const deadline = Date.now() + START_MS;
  for (;;) {
    if (server.exitCode !== null || Date.now() > deadline) throw new Error(`PostgreSQL does not start:\n${said}`);
    const asked = spawn(programOf("pg_isready"), ["-q", "-h", "127.0.0.1", "-p", String(port)]);
    const [code] = await once(asked, "exit");
    if (code === 0) return `postgres://postgres@127.0.0.1:${port}/postgres`;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const [program, ...options] = process.argv.slice(2);
const url = process.env.SYNCLINE_TEST_POSTGRES ?? (await start());
const child = spawn(program, options, { stdio: "inherit", env: { ...process.env, SYNCLINE_TEST_POSTGRES: url } });
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
const [code] = await once(child, "exit");
process.exit(code ?? 1);
