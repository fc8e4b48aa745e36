//! Which mounts are started, for which revision, and who does it.

use crate::bindings::exports::syncline::spin::adapter::Start;
use crate::sql::{Database, Dialect, Error, Value, bytes, cells, number, text, unsigned};

/// How long a step of a start may take before another request does it, in milliseconds.
const LEASE_MS: u64 = 30_000;

struct Row {
    revision: String,
    cursor: Option<Vec<u8>>,
    done: bool,
    leased_ms: u64,
}

const SELECT: &str = "SELECT revision, cursor, done, leased FROM {}starts WHERE mount = ?";

fn row(rows: Vec<Vec<Value>>) -> Result<Option<Row>, Error> {
    let read = |row| {
        let [revision, cursor, done, leased] = cells(row)?;
        let cursor = if cursor == Value::Null { None } else { Some(bytes(cursor)?) };
        Ok(Row { revision: text(revision)?, cursor, done: done == Value::Integer(1), leased_ms: unsigned(&leased)? })
    };
    rows.into_iter().next().map(read).transpose()
}

/// Takes the next step of a start, where there is one that nobody does.
pub fn claim(database: &Database, mount: &str, revision: &str, now_ms: u64) -> Result<Start, Error> {
    let known = row(database.run(SELECT, &[mount.into()])?.rows)?;
    if known.is_some_and(|row| row.done && row.revision == revision) {
        return Ok(Start::Done);
    }
    database.write(|link| {
        if database.dialect() == Dialect::Postgres {
            link.run(&database.own("LOCK TABLE {}starts IN EXCLUSIVE MODE"), &[])?;
        }
        let (cursor, same) = match row(link.run(&database.own(SELECT), &[mount.into()])?.rows)? {
            Some(row) if row.done && row.revision == revision => return Ok(Start::Done),
            // Whoever starts another revision is waited for too: only one does it at a time.
            Some(row) if !row.done && row.leased_ms > now_ms => return Ok(Start::Busy),
            Some(row) if !row.done && row.revision == revision => (row.cursor, true),
            _ => (None, false),
        };
        let lease = database.own(
            "INSERT INTO {}starts (mount, revision, cursor, done, leased) VALUES (?, ?, NULL, 0, ?) ON CONFLICT (mount) DO UPDATE \
             SET revision = excluded.revision, done = 0, leased = excluded.leased",
        );
        link.run(&lease, &[mount.into(), revision.into(), number(now_ms + LEASE_MS)])?;
        if !same {
            link.run(&database.own("UPDATE {}starts SET cursor = NULL WHERE mount = ?"), &[mount.into()])?;
        }
        Ok(Start::Step(cursor))
    })
}

/// A step was done.
pub fn stepped(database: &Database, mount: &str, revision: &str, cursor: Option<&[u8]>, now_ms: u64) -> Result<(), Error> {
    let done = i64::from(cursor.is_none());
    let parameters = [cursor.into(), done.into(), number(now_ms + LEASE_MS), mount.into(), revision.into()];
    database.run("UPDATE {}starts SET cursor = ?, done = ?, leased = ? WHERE mount = ? AND revision = ?", &parameters).map(drop)
}

/// A step failed: whoever comes next may try.
pub fn failed(database: &Database, mount: &str) -> Result<(), Error> {
    database.run("UPDATE {}starts SET leased = 0 WHERE mount = ? AND done = 0", &[mount.into()]).map(drop)
}
