//! The tables of the adapter and their versions.

use crate::sql::{Database, Dialect, Error, Link, Value, unsigned};

/// The newest version that this adapter knows.
const VERSION: u64 = 1;

/// The lock under which tables are made in PostgreSQL.
const LOCK: i64 = 0x7379_6e63_7370_696e;

/// Statements that lead from one version to the next, in order; `BYTES`, `POSITION`: as the dialect calls them.
const MIGRATIONS: [&[&str]; 1] = [&[
    "CREATE TABLE {}topics (position POSITION, mount TEXT NOT NULL, hash BIGINT NOT NULL, at BIGINT NOT NULL, content BYTES NOT NULL)",
    "CREATE INDEX syncline_spin_topics_order ON {}topics (mount, position)",
    "CREATE TABLE {}removed (mount TEXT PRIMARY KEY, position BIGINT NOT NULL)",
    "CREATE TABLE {}jobs (mount TEXT NOT NULL, name BYTES NOT NULL, due BIGINT NOT NULL, payload BYTES NOT NULL, cursor BYTES, \
     id BIGINT NOT NULL, PRIMARY KEY (mount, name))",
    "CREATE INDEX syncline_spin_jobs_due ON {}jobs (due)",
    "CREATE TABLE {}outbox (id TEXT PRIMARY KEY, mount TEXT NOT NULL, url TEXT NOT NULL, headers BYTES NOT NULL, body BYTES NOT NULL, \
     created BIGINT NOT NULL, due BIGINT NOT NULL, attempts BIGINT NOT NULL)",
    "CREATE INDEX syncline_spin_outbox_due ON {}outbox (due)",
    "CREATE TABLE {}documents (mount TEXT NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, body BYTES, etag TEXT, modified TEXT, \
     tried BIGINT NOT NULL, failed BIGINT NOT NULL, revision BIGINT NOT NULL, PRIMARY KEY (mount, name))",
    "CREATE TABLE {}starts (mount TEXT PRIMARY KEY, revision TEXT NOT NULL, cursor BYTES, done BIGINT NOT NULL, leased BIGINT NOT NULL)",
    "CREATE TABLE {}keyvalue (mount TEXT NOT NULL, key BYTES NOT NULL, value BYTES, counter BIGINT, expires BIGINT, PRIMARY KEY (mount, key))",
    "CREATE INDEX syncline_spin_keyvalue_expires ON {}keyvalue (expires)",
    "CREATE TABLE {}objects (mount TEXT NOT NULL, key BYTES NOT NULL, id BIGINT NOT NULL, size BIGINT NOT NULL, type TEXT NOT NULL, \
     sha256 TEXT NOT NULL, created BIGINT NOT NULL, PRIMARY KEY (mount, key))",
    "CREATE TABLE {}pieces (id BIGINT NOT NULL, number BIGINT NOT NULL, content BYTES NOT NULL, PRIMARY KEY (id, number))",
    "CREATE TABLE {}uploads (id BIGINT PRIMARY KEY, started BIGINT NOT NULL)",
    "CREATE TABLE {}presence (mount TEXT NOT NULL, topic BYTES NOT NULL, connection BIGINT NOT NULL, presence BYTES NOT NULL, \
     until BIGINT NOT NULL, PRIMARY KEY (mount, topic, connection))",
    "CREATE INDEX syncline_spin_presence_connection ON {}presence (mount, connection)",
    "CREATE TABLE {}places (name BYTES NOT NULL, holder BYTES NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (name, holder))",
    "CREATE TABLE {}answers (key BYTES PRIMARY KEY, value BYTES NOT NULL, until BIGINT NOT NULL)",
]];

/// Makes the tables, or brings them to the newest version. Cheap where nothing is to be done.
pub fn prepare(database: &Database) -> Result<(), Error> {
    if version(database)? == Some(VERSION) {
        return Ok(());
    }
    if database.dialect() == Dialect::Sqlite {
        keep_a_log(database)?;
    }
    database.write(|link| migrate(database, link))
}

/// The version that is there; none where there are no tables.
fn version(database: &Database) -> Result<Option<u64>, Error> {
    match database.run("SELECT number FROM {}version", &[]) {
        Ok(answer) => answer.rows.first().and_then(|row| row.first()).map(unsigned).transpose(),
        Err(Error::InvalidStatement(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Readers and the writer do not wait for each other then. It stays with the file; a server that is asked over the network has a
/// way of its own.
fn keep_a_log(database: &Database) -> Result<(), Error> {
    match database.run("PRAGMA journal_mode = WAL", &[]) {
        Ok(_) | Err(Error::InvalidStatement(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn migrate(database: &Database, link: &dyn Link) -> Result<(), Error> {
    if database.dialect() == Dialect::Postgres {
        link.run("SELECT CAST(pg_advisory_xact_lock($1) AS text)", &[LOCK.into()])?;
        link.run("CREATE SCHEMA IF NOT EXISTS syncline_spin", &[])?;
    }
    link.run(&database.own("CREATE TABLE IF NOT EXISTS {}version (number BIGINT NOT NULL)"), &[])?;
    let found = link.run(&database.own("SELECT number FROM {}version"), &[])?.rows;
    let found = found.first().and_then(|row| row.first()).map_or(Ok(0), unsigned)?;
    if found > VERSION {
        return Err(Error::Unavailable(format!("the tables syncline_spin_* are of version {found}, and this adapter knows {VERSION}")));
    }
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for statement in MIGRATIONS.iter().skip(done).copied().flatten() {
        link.run(&in_dialect(database, statement), &[])?;
    }
    link.run(&database.own("DELETE FROM {}version"), &[])?;
    link.run(&database.own("INSERT INTO {}version (number) VALUES (?)"), &[Value::Integer(VERSION.cast_signed())])?;
    Ok(())
}

fn in_dialect(database: &Database, statement: &str) -> String {
    let (bytes, position) = match database.dialect() {
        Dialect::Sqlite => ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        Dialect::Postgres => ("BYTEA", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    };
    database.own(&statement.replace("BYTES", bytes).replace("POSITION", position))
}
