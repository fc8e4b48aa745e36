//! Values on their way to and from SQL.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::value::{real_json, write_stored_json};
use super::{Column, ColumnType, SAFE_INTEGER_MAX};
use crate::imports::{Dialect, Value};

/// A value in normal form as the parameter of a placeholder that carries [`cast`]. What is not in normal form is null.
pub fn to_sql(column: &Column, value: &Json) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    if column.is_json() {
        return Value::Text(stored_json(value));
    }
    type_to_sql(column.column_type, value)
}

/// JSON as text in the form that both databases hold.
fn stored_json(value: &Json) -> String {
    let mut text = String::new();
    write_stored_json(value, &mut text);
    text
}

/// [`to_sql`] for a column that is not encrypted.
pub(in crate::plasma) fn type_to_sql(column_type: ColumnType, value: &Json) -> Value {
    let found = match column_type {
        ColumnType::Text | ColumnType::Bigint => value.as_str().map(|text| Value::Text(text.to_owned())),
        ColumnType::Integer | ColumnType::Timestamp => value.as_i64().map(Value::Integer),
        ColumnType::Real => value.as_f64().map(Value::Real),
        ColumnType::Boolean => value.as_bool().map(|flag| Value::Integer(flag.into())),
        ColumnType::Bytes => value.as_str().and_then(|text| STANDARD.decode(text).ok()).map(Value::Blob),
        ColumnType::Json | ColumnType::File => (!value.is_null()).then(|| Value::Text(stored_json(value))),
    };
    found.unwrap_or(Value::Null)
}

/// What follows a placeholder in PostgreSQL (`$1::text::jsonb`); empty in SQLite.
pub fn cast(column: &Column, dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres if column.encrypted => "::text::jsonb",
        Dialect::Postgres => type_cast(column.column_type),
    }
}

/// [`cast`] for PostgreSQL and a column that is not encrypted.
pub(in crate::plasma) fn type_cast(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Text => "::text",
        ColumnType::Integer | ColumnType::Timestamp => "::bigint",
        ColumnType::Bigint => "::text::numeric",
        ColumnType::Real => "::double precision",
        ColumnType::Boolean => "::boolean",
        ColumnType::Json | ColumnType::File => "::text::jsonb",
        ColumnType::Bytes => "::bytea",
    }
}

/// How a column is selected, so that both dialects give the same cells: `expression` or `expression::text`.
pub fn select_cell(column: &Column, expression: &str, dialect: Dialect) -> String {
    if dialect == Dialect::Postgres && (column.is_json() || column.column_type == ColumnType::Bigint) {
        format!("{expression}::text")
    } else {
        expression.to_owned()
    }
}

/// A cell in wire form.
pub fn from_sql(column: &Column, cell: &Value) -> Json {
    match cell {
        Value::Null => Json::Null,
        Value::Text(text) if column.is_json() => serde_json::from_str(text).unwrap_or(Json::Null),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Integer(number) => match column.column_type {
            ColumnType::Boolean => Json::Bool(*number != 0),
            _ => Json::from(*number),
        },
        Value::Real(number) => real_json(*number),
        Value::Blob(bytes) => Json::String(STANDARD.encode(bytes)),
    }
}

/// Writes a cell in wire form straight into JSON text.
pub fn write_json(column: &Column, cell: &Value, out: &mut String) {
    match cell {
        Value::Null => out.push_str("null"),
        Value::Text(text) if column.is_json() => out.push_str(text),
        Value::Text(text) => write_string(text, out),
        Value::Integer(number) => match column.column_type {
            ColumnType::Boolean => out.push_str(if *number != 0 { "true" } else { "false" }),
            _ => write_number(number, out),
        },
        Value::Real(number) if number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX as f64 => write_number(&(*number as i64), out),
        Value::Real(number) => out.push_str(&real_json(*number).to_string()),
        Value::Blob(bytes) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
    }
}

fn write_number(number: &i64, out: &mut String) {
    // Writing into a string cannot fail.
    let _ = write!(out, "{number}");
}

/// Writes a string as JSON.
pub(super) fn write_string(text: &str, out: &mut String) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut written = 0;
    for (position, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[written..position]);
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
        written = position + 1;
    }
    out.push_str(&text[written..]);
    out.push('"');
}

/// A value in normal form as a member of a JSON array that is handed over as one parameter; see [`bulk_cell`].
pub fn bulk_value(column: &Column, value: &Json) -> Json {
    if value.is_null() {
        return Json::Null;
    }
    if column.is_json() {
        return Json::String(stored_json(value));
    }
    type_bulk_value(column.column_type, value)
}

/// [`bulk_value`] for a column that is held as something else than JSON.
pub(in crate::plasma) fn type_bulk_value(column_type: ColumnType, value: &Json) -> Json {
    match (column_type, value) {
        (ColumnType::Bytes, Json::String(text)) => {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            Json::String(crate::encoding::hex(&bytes))
        }
        _ => value.clone(),
    }
}

/// The SQL expression that turns a member of such an array into the column's value again. `position`: its place in
/// the array `array`, which is an SQL expression (`value` of `json_each`, of `json_array_elements`).
pub fn bulk_cell(column: &Column, array: &str, position: usize, dialect: Dialect) -> String {
    let member = match dialect {
        Dialect::Sqlite => format!("json_extract({array}, '$[{position}]')"),
        Dialect::Postgres => format!("({array} ->> {position})"),
    };
    if column.is_json() {
        return if dialect == Dialect::Postgres { format!("{member}::jsonb") } else { member };
    }
    member_to_type(column.column_type, &member, dialect)
}

/// The value of a member of a JSON array, which `member` gives as text in PostgreSQL and by its own type in SQLite.
pub(in crate::plasma) fn member_to_type(column_type: ColumnType, member: &str, dialect: Dialect) -> String {
    match (dialect, column_type) {
        (Dialect::Sqlite, ColumnType::Bytes) => format!("unhex({member})"),
        (Dialect::Sqlite, _) => member.to_owned(),
        (Dialect::Postgres, ColumnType::Bytes) => format!("decode({member}, 'hex')"),
        (Dialect::Postgres, ColumnType::Text) => member.to_owned(),
        (Dialect::Postgres, ColumnType::Integer | ColumnType::Timestamp) => format!("{member}::bigint"),
        (Dialect::Postgres, ColumnType::Bigint) => format!("{member}::numeric"),
        (Dialect::Postgres, ColumnType::Real) => format!("{member}::double precision"),
        (Dialect::Postgres, ColumnType::Boolean) => format!("{member}::boolean"),
        (Dialect::Postgres, ColumnType::Json | ColumnType::File) => format!("{member}::jsonb"),
    }
}
