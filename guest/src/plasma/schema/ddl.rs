//! The statements that create tables and indexes.

use super::{Index, Schema, Table};
use crate::imports::Dialect;

/// An identifier in SQL.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name in SQL, quoted.
pub fn table_name(prefix: &str, table: &str) -> String {
    quoted(&format!("{prefix}{table}"))
}

/// The name of an index in SQL, unquoted: unique over all tables and at most 63 bytes long.
pub fn index_name(prefix: &str, table: &str, index: &str) -> String {
    todo!("{prefix} {table} {index}")
}

/// Creates what is missing of all tables and indexes; idempotent.
pub fn create_schema(schema: &Schema, dialect: Dialect, prefix: &str) -> Vec<String> {
    todo!("{schema:?} {dialect:?} {prefix}")
}

/// Creates one table.
pub(super) fn create_table(table: &Table, dialect: Dialect, name: &str) -> String {
    todo!("{table:?} {dialect:?} {name}")
}

/// Creates one index.
pub(super) fn create_index(table: &Table, index: &Index, dialect: Dialect, prefix: &str) -> String {
    todo!("{table:?} {index:?} {dialect:?} {prefix}")
}
