//! Values as they come over the wire, checked against their columns and brought into one form.

use serde_json::{Map, Value as Json};

use super::{Column, Table};
use crate::plasma::envelope::EnvelopeLimits;

/// Why a value cannot be written. The texts are those that clients see.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// The value has another type.
    #[error("column {column} expects {expected}")]
    Type {
        /// Its column.
        column: String,
        /// The type that it should have.
        expected: &'static str,
    },
    /// The table has no such column.
    #[error("unknown column {0}")]
    UnknownColumn(String),
    /// Null, or nothing and no default.
    #[error("column {0} is not nullable")]
    Null(String),
    /// A string holds U+0000, which PostgreSQL cannot keep.
    #[error("column {0} must not contain U+0000")]
    ZeroCharacter(String),
    /// Not an envelope, or beyond its limits.
    #[error("invalid envelope in {column}: {reason}")]
    Envelope {
        /// Its column.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A primary key is no array of as many values as it has columns.
    #[error("the primary key of {table} has {columns} columns")]
    Key {
        /// Its table.
        table: String,
        /// How many.
        columns: usize,
    },
}

/// A value in normal form: what reading it back from either database gives.
pub fn normalize(column: &Column, value: &Json, limits: &EnvelopeLimits) -> Result<Json, ValueError> {
    todo!("{column:?} {value} {limits:?}")
}

/// The complete row that an insert writes: every column, defaults and nulls filled in, in normal form.
pub fn complete_row(table: &Table, values: &Map<String, Json>, limits: &EnvelopeLimits) -> Result<Map<String, Json>, ValueError> {
    todo!("{table:?} {values:?} {limits:?}")
}

/// The given columns in normal form.
pub fn normalize_set(table: &Table, values: &Map<String, Json>, limits: &EnvelopeLimits) -> Result<Map<String, Json>, ValueError> {
    todo!("{table:?} {values:?} {limits:?}")
}

/// A primary key in normal form.
pub fn normalize_key(table: &Table, key: &[Json]) -> Result<Vec<Json>, ValueError> {
    todo!("{table:?} {key:?}")
}
