//! Who shows itself on a topic, leased: what nobody renews goes away.

use crate::bindings::exports::syncline::host::pubsub::Member;
use crate::sql::{Database, Error, Run, Value, Write, bytes, cells, number};

/// How long presence lasts without being renewed, in milliseconds.
pub const LEASE_MS: u64 = 90_000;
/// Connections named in one statement.
const CONNECTIONS_MAX: usize = 500;

fn connection_cell(connection: u64) -> Value {
    Value::Integer(connection.cast_signed())
}

/// A connection shows itself.
pub fn show(mount: &str, topic: &str, connection: u64, presence: &[u8], now_ms: u64) -> Write {
    (
        "INSERT INTO {}presence (mount, topic, connection, presence, until) VALUES (?, ?, ?, ?, ?) ON CONFLICT (mount, topic, connection) \
         DO UPDATE SET presence = excluded.presence, until = excluded.until",
        vec![mount.into(), topic.as_bytes().into(), connection_cell(connection), presence.into(), number(now_ms + LEASE_MS)],
    )
}

/// It does not any more.
pub fn hide(mount: &str, topic: &str, connection: u64) -> Write {
    (
        "DELETE FROM {}presence WHERE mount = ? AND topic = ? AND connection = ?",
        vec![mount.into(), topic.as_bytes().into(), connection_cell(connection)],
    )
}

/// Whether a connection shows itself anywhere.
pub fn is_shown(database: &Database, mount: &str, connection: u64) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM {}presence WHERE mount = ? AND connection = ? LIMIT 1";
    Ok(!database.run(sql, &[mount.into(), connection_cell(connection)])?.rows.is_empty())
}

/// Who shows itself.
pub fn members(run: Run<'_>, mount: &str, topic: &str, now_ms: u64) -> Result<Vec<Member>, Error> {
    let sql = "SELECT connection, presence FROM {}presence WHERE mount = ? AND topic = ? AND until > ? ORDER BY connection";
    let rows = run(sql, &[mount.into(), topic.as_bytes().into(), number(now_ms)])?.rows;
    let member = |row| {
        let [connection, presence] = cells(row)?;
        let Value::Integer(connection) = connection else { return Err(Error::Unavailable("a connection is no number".into())) };
        Ok(Member { connection: connection.cast_unsigned(), presence: bytes(presence)? })
    };
    rows.into_iter().map(member).collect()
}

/// Somebody holds these connections: their presence goes on.
pub fn renew(database: &Database, mount: &str, connections: &[u64], now_ms: u64) -> Result<(), Error> {
    for some in connections.chunks(CONNECTIONS_MAX) {
        let mut parameters = vec![number(now_ms + LEASE_MS), mount.into()];
        parameters.extend(some.iter().copied().map(connection_cell));
        let sql = format!("UPDATE {{}}presence SET until = ? WHERE mount = ? AND connection IN ({})", vec!["?"; some.len()].join(", "));
        database.run(&sql, &parameters)?;
    }
    Ok(())
}

/// They have gone.
pub fn gone(database: &Database, mount: &str, connections: &[u64]) -> Result<(), Error> {
    for some in connections.chunks(CONNECTIONS_MAX) {
        let list = vec!["?"; some.len()].join(", ");
        let mut parameters = vec![mount.into()];
        parameters.extend(some.iter().copied().map(connection_cell));
        // Most connections show nothing: then nobody waits for the writer.
        let shown = format!("SELECT 1 FROM {{}}presence WHERE mount = ? AND connection IN ({list}) LIMIT 1");
        if !database.run(&shown, &parameters)?.rows.is_empty() {
            database.run(&format!("DELETE FROM {{}}presence WHERE mount = ? AND connection IN ({list})"), &parameters)?;
        }
    }
    Ok(())
}

/// Removes what nobody renewed.
pub fn remove_old(database: &Database, now_ms: u64) -> Result<(), Error> {
    database.run("DELETE FROM {}presence WHERE until <= ?", &[number(now_ms)]).map(drop)
}
