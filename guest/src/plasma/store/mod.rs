//! Statements over the system tables.

pub mod changes;
pub mod clients;
pub mod meta;
mod tables;

pub use tables::{FORMAT, create as create_tables, upgrade as upgrade_tables};

use super::failure::Failure;
use crate::imports::{Dialect, Query, Statement, Value};
use crate::sql::Sql;

/// The rows of a question.
pub fn rows(sql: &Sql, view: &dyn Query, template: &str, parameters: impl IntoIterator<Item = Value>) -> Result<Vec<Vec<Value>>, Failure> {
    checked(view.query(sql.statement(template, parameters), None)?)
}

/// The rows of an answer, which must be whole.
pub fn checked(found: crate::imports::RowSet) -> Result<Vec<Vec<Value>>, Failure> {
    if found.truncated {
        return Err(Failure::Unavailable("database limit: too many rows in one answer".into()));
    }
    Ok(found.rows)
}

/// The rows of a question in the order of which they are wanted, at most so many.
pub fn first_rows(view: &dyn Query, statement: Statement, rows_max: usize) -> Result<Vec<Vec<Value>>, Failure> {
    Ok(view.query(statement, Some(u32::try_from(rows_max).unwrap_or(u32::MAX)))?.rows)
}

/// What follows `FROM` for the members of a JSON array in the next parameter: rows `e` with `value` and, from 0 in SQLite and from 1
/// in PostgreSQL, `key`.
pub fn list(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "json_each(?) AS e",
        Dialect::Postgres => "json_array_elements(CAST(CAST(? AS text) AS json)) WITH ORDINALITY AS e(value, key)",
    }
}

/// A text member of such an array.
pub fn list_text(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "e.value",
        Dialect::Postgres => "(e.value #>> CAST(ARRAY[] AS text[]))",
    }
}

/// A cell that is a whole number.
pub fn integer(cell: &Value) -> Result<i64, Failure> {
    match cell {
        Value::Integer(number) => Ok(*number),
        other => Err(Failure::Unexpected(format!("a cell is no integer: {other:?}"))),
    }
}

/// A cell that is a version or a count.
pub fn unsigned(cell: &Value) -> Result<u64, Failure> {
    u64::try_from(integer(cell)?).map_err(|_| Failure::Unexpected("a cell is negative".into()))
}

/// A cell that is text.
pub fn text(cell: Value) -> Result<String, Failure> {
    match cell {
        Value::Text(text) => Ok(text),
        other => Err(Failure::Unexpected(format!("a cell is no text: {other:?}"))),
    }
}

/// A cell that is text or null.
pub fn optional_text(cell: Value) -> Result<Option<String>, Failure> {
    match cell {
        Value::Null => Ok(None),
        other => text(other).map(Some),
    }
}

/// A version, count or time as a parameter.
pub fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
