//! Values as they come over the wire, checked against their columns and brought into one form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

use super::{Column, ColumnType, SAFE_INTEGER_MAX, Table};
use crate::plasma::envelope::{self, EnvelopeLimits};

/// Digits of a `bigint`; PostgreSQL's `numeric` has an end, and an index entry a smaller one.
const BIGINT_DIGITS_MAX: usize = 1000;

/// Levels of arrays and objects within a `json` value, and within the arguments of a mutation. It leaves room for what is put around
/// them: whatever reads JSON here takes 127 levels.
pub const JSON_DEPTH_MAX: usize = 100;

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
    /// Arrays and objects within one another, too many of them.
    #[error("column {0} takes no more than {JSON_DEPTH_MAX} levels of nesting")]
    Depth(String),
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
    if value.is_null() {
        return if column.nullable { Ok(Json::Null) } else { Err(ValueError::Null(column.name.clone())) };
    }
    if has_zero_character(value) {
        return Err(ValueError::ZeroCharacter(column.name.clone()));
    }
    if is_deeper_than(value, JSON_DEPTH_MAX) {
        return Err(ValueError::Depth(column.name.clone()));
    }
    if column.encrypted {
        let checked = envelope::check(value, limits);
        checked.map_err(|reason| ValueError::Envelope { column: column.name.clone(), reason })?;
        return Ok(normal_json(value));
    }
    let wrong = || ValueError::Type { column: column.name.clone(), expected: column.column_type.name() };
    normal_value(column.column_type, value).ok_or_else(wrong)
}

/// A value of a type (not null, no envelope) in normal form; none where it has another type.
pub(in crate::plasma) fn normal_value(column_type: ColumnType, value: &Json) -> Option<Json> {
    match column_type {
        ColumnType::Text => value.is_string().then(|| value.clone()),
        ColumnType::Integer | ColumnType::Timestamp => safe_integer(value).map(Json::from),
        ColumnType::Bigint => canonical_digits(value.as_str()?).map(Json::String),
        ColumnType::Real => value.as_f64().filter(|number| number.is_finite()).map(real_json),
        ColumnType::Boolean => value.is_boolean().then(|| value.clone()),
        ColumnType::Json => Some(normal_json(value)),
        ColumnType::Bytes => STANDARD.decode(value.as_str()?).ok().map(|_| value.clone()),
        ColumnType::File => is_file(value).then(|| normal_json(value)),
    }
}

/// Whether a string or a key somewhere in a value holds U+0000.
pub(in crate::plasma) fn has_zero_character(value: &Json) -> bool {
    match value {
        Json::String(text) => text.contains('\0'),
        Json::Array(members) => members.iter().any(has_zero_character),
        Json::Object(object) => object.iter().any(|(key, member)| key.contains('\0') || has_zero_character(member)),
        _ => false,
    }
}

/// Whether arrays and objects lie within one another more than so many levels deep; a scalar has none.
pub fn is_deeper_than(value: &Json, levels: usize) -> bool {
    let goes_on = |member: &Json| is_deeper_than(member, levels.saturating_sub(1));
    match value {
        Json::Array(members) => levels == 0 || members.iter().any(goes_on),
        Json::Object(object) => levels == 0 || object.values().any(goes_on),
        _ => false,
    }
}

fn safe_integer(value: &Json) -> Option<i64> {
    let number = match value.as_i64() {
        Some(number) => number,
        // `1.0` and `1e3` are whole numbers to JSON.
        None => value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX as f64)? as i64,
    };
    (-SAFE_INTEGER_MAX..=SAFE_INTEGER_MAX).contains(&number).then_some(number)
}

fn canonical_digits(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.trim_start_matches('0') {
        "" => Some("0".into()),
        digits => (digits.len() <= BIGINT_DIGITS_MAX).then(|| format!("{sign}{digits}")),
    }
}

/// A double on the wire: whole numbers as JavaScript writes them, and no negative zero.
pub(in crate::plasma) fn real_json(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() <= SAFE_INTEGER_MAX as f64 {
        Json::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Json::Null, Json::Number)
    }
}

/// JSON whose whole numbers are integers, so that both databases give back the same.
fn normal_json(value: &Json) -> Json {
    match value {
        Json::Number(number) if number.is_f64() => normal_number(number.as_f64().unwrap_or_default()),
        Json::Array(members) => Json::Array(members.iter().map(normal_json).collect()),
        Json::Object(object) => Json::Object(object.iter().map(|(key, member)| (key.clone(), normal_json(member))).collect()),
        other => other.clone(),
    }
}

fn normal_number(number: f64) -> Json {
    // The bounds are the next doubles beyond the largest integers, so the casts are exact.
    if number.fract() != 0.0 {
        Json::from(number)
    } else if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        Json::from(number as i64)
    } else if (0.0..18_446_744_073_709_551_616.0).contains(&number) {
        Json::from(number as u64)
    } else {
        Json::from(number)
    }
}

/// A number in JSON as text: positional, as PostgreSQL's `jsonb` writes it.
pub(in crate::plasma) fn number_text(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(double) => double.to_string(),
        None => number.to_string(),
    }
}

/// JSON text as it is stored: compact, with positional numbers.
pub(super) fn write_stored_json(value: &Json, out: &mut String) {
    match value {
        Json::Number(number) => out.push_str(&number_text(number)),
        Json::Array(members) => {
            out.push('[');
            for (position, member) in members.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_stored_json(member, out);
            }
            out.push(']');
        }
        Json::Object(object) => {
            out.push('{');
            for (position, (key, member)) in object.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                super::cell::write_string(key, out);
                out.push(':');
                write_stored_json(member, out);
            }
            out.push('}');
        }
        Json::String(text) => super::cell::write_string(text, out),
        Json::Null => out.push_str("null"),
        Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
    }
}

fn is_file(value: &Json) -> bool {
    let Some(object) = value.as_object() else { return false };
    let hash = object.get("hash").and_then(Json::as_str).unwrap_or_default();
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hash
        && object.iter().all(|(key, member)| match key.as_str() {
            "hash" => true,
            "size" => safe_integer(member).is_some_and(|size| size >= 0),
            "contentType" | "name" => member.is_string(),
            _ => false,
        })
}

/// The complete row that an insert writes: every column, defaults and nulls filled in, in normal form.
pub fn complete_row(table: &Table, values: &Map<String, Json>, limits: &EnvelopeLimits) -> Result<Map<String, Json>, ValueError> {
    let mut row = normalize_set(table, values, limits)?;
    for column in &table.columns {
        if row.contains_key(&column.name) {
            continue;
        }
        let value = match &column.default {
            Some(default) => default.clone(),
            None if column.nullable => Json::Null,
            None => return Err(ValueError::Null(column.name.clone())),
        };
        row.insert(column.name.clone(), value);
    }
    Ok(row)
}

/// The given columns in normal form.
pub fn normalize_set(table: &Table, values: &Map<String, Json>, limits: &EnvelopeLimits) -> Result<Map<String, Json>, ValueError> {
    let normal = values.iter().map(|(name, value)| {
        let column = table.column(name).ok_or_else(|| ValueError::UnknownColumn(name.clone()))?;
        Ok((name.clone(), normalize(column, value, limits)?))
    });
    normal.collect()
}

/// A primary key in normal form.
pub fn normalize_key(table: &Table, key: &[Json]) -> Result<Vec<Json>, ValueError> {
    if key.len() != table.primary_key.len() {
        return Err(ValueError::Key { table: table.name.clone(), columns: table.primary_key.len() });
    }
    let limits = EnvelopeLimits::default();
    table.key_columns().zip(key).map(|(column, value)| normalize(column, value, &limits)).collect()
}
