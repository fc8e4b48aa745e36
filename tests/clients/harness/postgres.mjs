// Databases on the PostgreSQL server that SYNCLINE_TEST_POSTGRES names (tests/with-postgres starts one).

import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { promisify } from "node:util";

/** Whether the servers under test keep their rows there. */
export const isChosen = process.env.SYNCLINE_TEST_EXECUTOR === "postgres";

const given = process.env.SYNCLINE_TEST_POSTGRES;
if (isChosen && !given) throw new Error("SYNCLINE_TEST_POSTGRES names no server: run this by tests/with-postgres");

const sql = (statement) => promisify(execFile)("psql", [given, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", statement]);

const nameOf = (url) => new URL(url).pathname.slice(1);

async function create(clause) {
  const url = new URL(given);
  url.pathname = `/syncline_${randomUUID().replaceAll("-", "")}`;
  await sql(`CREATE DATABASE ${nameOf(url.href)} ${clause}`);
  return url.href;
}

/** A new empty database; its URL. */
export const createDatabase = () => create("");

/** A copy of a database that nobody is connected to; its URL. */
export const copyDatabase = (url) => create(`TEMPLATE ${nameOf(url)}`);

/** Gone, whoever is still connected. */
export const dropDatabase = (url) => sql(`DROP DATABASE ${nameOf(url)} WITH (FORCE)`);
