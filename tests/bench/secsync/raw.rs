//! The rows of updates, written by nothing but SQLite.

use rusqlite::Connection;

use super::frames::UPDATE_BYTES;

fn document(number: u32) -> String {
    format!("raw-document-{number}")
}

/// Makes the tables, and so many documents.
pub fn prepare(connection: &Connection, documents: u32) -> anyhow::Result<()> {
    connection.execute_batch(
        "CREATE TABLE ss_documents (id TEXT PRIMARY KEY, seq BIGINT NOT NULL, update_count BIGINT NOT NULL);
         CREATE TABLE ss_updates (snapshot_id TEXT NOT NULL, seq BIGINT NOT NULL, pub_key TEXT NOT NULL, clock BIGINT NOT NULL,
             signature TEXT NOT NULL, body TEXT, object_key TEXT, PRIMARY KEY (snapshot_id, seq));
         CREATE UNIQUE INDEX ss_updates_clocks ON ss_updates (snapshot_id, pub_key, clock);",
    )?;
    for number in 0..documents {
        connection.execute("INSERT INTO ss_documents VALUES (?, 0, 0)", [document(number)])?;
    }
    Ok(())
}

/// Writes one update of each document.
pub fn write(connection: &Connection, documents: u32, seq: i64) -> anyhow::Result<()> {
    let (key, signature, body) = ("k".repeat(43), "s".repeat(86), "b".repeat(UPDATE_BYTES));
    let mut insert = connection.prepare_cached("INSERT INTO ss_updates VALUES (?, ?, ?, ?, ?, ?, NULL)")?;
    let mut count = connection.prepare_cached("UPDATE ss_documents SET seq = ?, update_count = update_count + 1 WHERE id = ?")?;
    for number in 0..documents {
        let document = document(number);
        insert.execute(rusqlite::params![document, seq, key, seq, signature, body])?;
        count.execute(rusqlite::params![seq, document])?;
    }
    Ok(())
}
