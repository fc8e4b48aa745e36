//! What was answered before, so that a request that comes twice is not made twice.

use crate::sql::{Database, Error, bytes, cells, number};

/// How long an answer is remembered, in milliseconds.
const KEPT_MS: u64 = 2 * 60 * 1000;

/// What was remembered under a key.
pub fn recall(database: &Database, key: &str, now_ms: u64) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT value FROM {}answers WHERE key = ? AND until > ?";
    let rows = database.run(sql, &[key.as_bytes().into(), number(now_ms)])?.rows;
    rows.into_iter().next().map(|row| cells(row).and_then(|[value]| bytes(value))).transpose()
}

/// Remembers for a while.
pub fn remember(database: &Database, key: &str, value: &[u8], now_ms: u64) -> Result<(), Error> {
    let sql = "INSERT INTO {}answers (key, value, until) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, \
               until = excluded.until";
    database.run(sql, &[key.as_bytes().into(), value.into(), number(now_ms + KEPT_MS)]).map(drop)
}

/// Removes what is over.
pub fn remove_old(database: &Database, now_ms: u64) -> Result<(), Error> {
    database.run("DELETE FROM {}answers WHERE until <= ?", &[number(now_ms)]).map(drop)
}
