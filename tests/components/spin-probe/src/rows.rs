//! Cells as JSON: `{"blob": [1, 2]}` stands for bytes.

use serde_json::{Value, json};

use crate::bindings::fermyon::spin::rdbms_types::{DbValue, ParameterValue, RowSet};
use crate::bindings::fermyon::spin::sqlite;

/// Bytes as text, or how many they are where that would be long.
pub fn short(bytes: &[u8]) -> Value {
    if bytes.len() > 1000 { bytes.len().into() } else { String::from_utf8_lossy(bytes).into() }
}

fn blob(value: &Value) -> Option<Vec<u8>> {
    let bytes = value["blob"].as_array()?;
    Some(bytes.iter().filter_map(|byte| byte.as_u64()?.try_into().ok()).collect())
}

/// Parameters for SQLite.
pub fn of_sqlite(parameters: &Value) -> Vec<sqlite::Value> {
    let of = |value: &Value| match value {
        Value::Null => sqlite::Value::Null,
        Value::String(text) => sqlite::Value::Text(text.clone()),
        Value::Number(number) if number.is_f64() => sqlite::Value::Real(number.as_f64().unwrap_or_default()),
        Value::Number(number) => sqlite::Value::Integer(number.as_i64().unwrap_or_default()),
        other => sqlite::Value::Blob(blob(other).unwrap_or_default()),
    };
    parameters.as_array().into_iter().flatten().map(of).collect()
}

/// A result of SQLite: its rows, with the names of the columns.
pub fn from_sqlite(result: &sqlite::QueryResult) -> Value {
    let cell = |value: &sqlite::Value| match value {
        sqlite::Value::Null => Value::Null,
        sqlite::Value::Integer(number) => json!(number),
        sqlite::Value::Real(number) => json!(number),
        sqlite::Value::Text(text) => json!(text),
        sqlite::Value::Blob(bytes) => json!({ "blob": bytes }),
    };
    let rows: Vec<Vec<Value>> = result.rows.iter().map(|row| row.values.iter().map(cell).collect()).collect();
    json!({"columns": result.columns, "rows": rows})
}

/// Parameters for PostgreSQL.
pub fn of_postgres(parameters: &Value) -> Vec<ParameterValue> {
    let of = |value: &Value| match value {
        Value::Null => ParameterValue::DbNull,
        Value::Bool(value) => ParameterValue::Boolean(*value),
        Value::String(text) => ParameterValue::Str(text.clone()),
        Value::Number(number) if number.is_f64() => ParameterValue::Floating64(number.as_f64().unwrap_or_default()),
        Value::Number(number) => ParameterValue::Int64(number.as_i64().unwrap_or_default()),
        other => ParameterValue::Binary(blob(other).unwrap_or_default()),
    };
    parameters.as_array().into_iter().flatten().map(of).collect()
}

/// A result of PostgreSQL.
pub fn from_postgres(set: &RowSet) -> Value {
    let cell = |value: &DbValue| match value {
        DbValue::DbNull => Value::Null,
        DbValue::Boolean(value) => json!(value),
        DbValue::Int16(number) => json!(number),
        DbValue::Int32(number) => json!(number),
        DbValue::Int64(number) => json!(number),
        DbValue::Floating64(number) => json!(number),
        DbValue::Str(text) => json!(text),
        DbValue::Binary(bytes) => json!({ "blob": bytes }),
        other => json!(format!("{other:?}")),
    };
    let columns: Vec<_> = set.columns.iter().map(|column| json!([column.name, format!("{:?}", column.data_type)])).collect();
    let rows: Vec<Vec<Value>> = set.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    json!({"columns": columns, "rows": rows})
}
