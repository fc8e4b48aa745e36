//! Values on their way to and from SQL.

use serde_json::Value as Json;

use super::Column;
use crate::imports::{Dialect, Value};

/// A value in normal form as the parameter of a placeholder that carries [`cast`].
pub fn to_sql(column: &Column, value: &Json) -> Value {
    todo!("{column:?} {value}")
}

/// What follows a placeholder (`?::text::jsonb`); empty in SQLite.
pub fn cast(column: &Column, dialect: Dialect) -> &'static str {
    todo!("{column:?} {dialect:?}")
}

/// How a column is selected, so that both dialects give the same cells: `expression` or `expression::text`.
pub fn select_cell(column: &Column, expression: &str, dialect: Dialect) -> String {
    todo!("{column:?} {expression} {dialect:?}")
}

/// A cell in wire form.
pub fn from_sql(column: &Column, cell: &Value) -> Json {
    todo!("{column:?} {cell:?}")
}

/// Writes a cell in wire form straight into JSON text.
pub fn write_json(column: &Column, cell: &Value, out: &mut String) {
    todo!("{column:?} {cell:?} {out}")
}

/// A value in normal form as a member of a JSON array that is handed over as one parameter; see [`bulk_cell`].
pub fn bulk_value(column: &Column, value: &Json) -> Json {
    todo!("{column:?} {value}")
}

/// The SQL expression that turns a member of such an array into the column's value again. `position`: its place in
/// the array `array`, which is an SQL expression (`value` of `json_each`, of `json_array_elements`).
pub fn bulk_cell(column: &Column, array: &str, position: usize, dialect: Dialect) -> String {
    todo!("{column:?} {array} {position} {dialect:?}")
}
