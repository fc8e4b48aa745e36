//! The rows of pushes of one mutation, written by nothing but the database.

use rusqlite::Connection;

use super::workers::TITLE;

/// The tables that a push writes: the user's, and those of section 14 of docs/protocols/plasma.md.
const TABLES: &str = "
    CREATE TABLE todos (id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, done INTEGER NOT NULL, rank INTEGER NOT NULL,
        shared INTEGER NOT NULL, meta TEXT);
    CREATE INDEX todos_owner_rank ON todos (owner, rank);
    CREATE TABLE _plasma_changes (version BIGINT NOT NULL, seq BIGINT NOT NULL, tbl TEXT NOT NULL, pk TEXT NOT NULL, op TEXT NOT NULL,
        before TEXT, region TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (version, seq));
    CREATE INDEX _plasma_changes_row ON _plasma_changes (tbl, pk, version);
    CREATE TABLE _plasma_mutations (version BIGINT NOT NULL, cg TEXT NOT NULL, c TEXT NOT NULL, mid BIGINT NOT NULL, PRIMARY KEY (cg, c, mid));
    CREATE INDEX _plasma_mutations_version ON _plasma_mutations (cg, version);
    CREATE TABLE _plasma_clients (c TEXT PRIMARY KEY, cg TEXT NOT NULL, lmid BIGINT NOT NULL, version BIGINT NOT NULL, seen_at BIGINT NOT NULL);
    CREATE TABLE _plasma_region_versions (region TEXT PRIMARY KEY, version BIGINT NOT NULL, min_version BIGINT NOT NULL);
    INSERT INTO _plasma_region_versions VALUES ('local', 0, 0);";

/// What a push of one mutation reads and writes, in order. The parameters: version, row, client, mutation.
const STATEMENTS: [&str; 7] = [
    "SELECT lmid FROM _plasma_clients WHERE c = {client}",
    "SELECT id FROM todos WHERE id = {row}",
    "INSERT INTO todos VALUES ({row}, 'alice', '{title}', {false}, 0, {true}, NULL)",
    "INSERT INTO _plasma_changes VALUES ({version}, 0, 'todos', {row}, 'put', NULL, 'local', 0)",
    "INSERT INTO _plasma_mutations VALUES ({version}, {client}, {client}, {mutation})",
    "UPDATE _plasma_clients SET lmid = {mutation}, version = {version} WHERE c = {client}",
    "UPDATE _plasma_region_versions SET version = {version} WHERE region = 'local'",
];

fn client(number: u32) -> String {
    format!("raw-client-{number}")
}

/// Makes the tables, and so many clients.
pub fn prepare(connection: &Connection, clients: u32) -> anyhow::Result<()> {
    connection.execute_batch(TABLES)?;
    for number in 0..clients {
        let client = client(number);
        connection.execute("INSERT INTO _plasma_clients VALUES (?, ?, 0, 0, 0)", [&client, &client])?;
    }
    Ok(())
}

/// Does what one push of each client does.
pub fn write(connection: &Connection, clients: u32, mutation: i64) -> anyhow::Result<()> {
    let values = [("version", "?1"), ("row", "?2"), ("client", "?3"), ("mutation", "?4"), ("false", "0"), ("true", "1")];
    let statements = STATEMENTS.map(|statement| with(statement, &values));
    for number in 0..clients {
        let client = client(number);
        let version = (mutation - 1) * i64::from(clients) + i64::from(number) + 1;
        let parameters = rusqlite::params![version, format!("{client}-{mutation}"), client, mutation];
        for text in &statements {
            let mut statement = connection.prepare_cached(text)?;
            for parameter in 1..=statement.parameter_count() {
                // A statement may use only some of them; those are bound by their numbers.
                statement.raw_bind_parameter(parameter, parameters[parameter - 1])?;
            }
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
    }
    Ok(())
}

fn with(statement: &str, values: &[(&str, &str)]) -> String {
    let filled = values.iter().fold(statement.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
    filled.replace("{title}", TITLE)
}

/// A script for `pgbench` that does the same in one transaction a push, and what makes its tables.
pub fn pgbench_script(clients: usize) -> (String, String) {
    let values = [
        ("version", ":version"),
        ("row", "('row-' || :client_id || '-' || :version)"),
        ("client", "('raw-client-' || :client_id)"),
        ("mutation", ":version"),
        ("false", "false"),
        ("true", "true"),
    ];
    let mut script =
        String::from("BEGIN;\nSELECT version + 1 AS version FROM _plasma_region_versions WHERE region = 'local' FOR UPDATE \\gset\n");
    for statement in STATEMENTS {
        script.push_str(&with(statement, &values));
        script.push_str(";\n");
    }
    script.push_str("COMMIT;\n");
    let mut tables = TABLES.replace("done INTEGER", "done BOOLEAN").replace("shared INTEGER", "shared BOOLEAN");
    for number in 0..clients {
        tables.push_str(&format!("INSERT INTO _plasma_clients VALUES ('raw-client-{number}', 'g', 0, 0, 0);"));
    }
    (script, tables)
}
