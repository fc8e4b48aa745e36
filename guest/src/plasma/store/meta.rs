//! Facts about the database as a whole.

use super::{rows, text};
use crate::imports::{Query, Statement};
use crate::plasma::failure::Failure;
use crate::sql::Sql;

/// The stored schema, as JSON.
pub const SCHEMA: &str = "schema";
/// The `schemaVersion` of the last start.
pub const SCHEMA_VERSION: &str = "schemaVersion";
/// The format of the system tables.
pub const FORMAT: &str = "format";
/// The version from which on before-images are kept; absent where they are not.
pub const IMAGES_SINCE: &str = "imagesSince";
/// How many ranges of versions were handed out.
pub const EPOCH: &str = "epoch";
/// Users whose credentials were revoked a moment ago, as JSON.
pub const REVOCATIONS: &str = "revocations";
/// What made the triggers of `changeLog.triggers`; absent where there are none.
pub const TRIGGERS: &str = "triggers";
/// The mutation of the app that is under way; there only inside its transaction.
pub const OPEN: &str = "open";

/// A fact.
pub fn get(sql: &Sql, view: &dyn Query, key: &str) -> Result<Option<String>, Failure> {
    let found = rows(sql, view, "SELECT value FROM {}_plasma_meta WHERE key = ?", [key.into()])?;
    found.into_iter().next().map(|mut row| text(row.remove(0))).transpose()
}

/// Sets a fact.
pub fn set(sql: &Sql, key: &str, value: &str) -> Statement {
    let template = "INSERT INTO {}_plasma_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    sql.statement(template, [key.into(), value.into()])
}

/// Removes a fact.
pub fn remove(sql: &Sql, key: &str) -> Statement {
    sql.statement("DELETE FROM {}_plasma_meta WHERE key = ?", [key.into()])
}
