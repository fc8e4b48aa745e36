//! Key-value facts of mounts: rows, so that they can be listed, counted and expire.
//!
//! A value that is a whole number in decimal digits is kept as one, so that it is a counter too.

use crate::sql::{Database, Error, Run, Value, Write, bytes, cells, number};

const LIVE: &str = "(expires IS NULL OR expires > ?)";

/// A value as it is kept: bytes, or a number.
fn kept(value: &[u8]) -> (Value, Value) {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok().filter(|number| number.to_string() == text));
    match number {
        Some(number) => (Value::Null, number.into()),
        None => (value.into(), Value::Null),
    }
}

fn value(value: Value, counter: &Value) -> Result<Vec<u8>, Error> {
    match counter {
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        _ => bytes(value),
    }
}

fn expires(now_ms: u64, time_to_live_ms: Option<u64>) -> Value {
    time_to_live_ms.map_or(Value::Null, |length_ms| number(now_ms.saturating_add(length_ms)))
}

/// The value of a key.
pub fn get(run: Run<'_>, mount: &str, key: &str, now_ms: u64) -> Result<Option<Vec<u8>>, Error> {
    let sql = format!("SELECT value, counter FROM {{}}keyvalue WHERE mount = ? AND key = ? AND {LIVE}");
    let rows = run(&sql, &[mount.into(), key.as_bytes().into(), number(now_ms)])?.rows;
    rows.into_iter().next().map(|row| cells(row).and_then(|[bytes, counter]| value(bytes, &counter))).transpose()
}

/// Sets a key.
pub fn set(mount: &str, key: &str, value: &[u8], time_to_live_ms: Option<u64>, now_ms: u64) -> Write {
    let (value, counter) = kept(value);
    (
        "INSERT INTO {}keyvalue (mount, key, value, counter, expires) VALUES (?, ?, ?, ?, ?) ON CONFLICT (mount, key) DO UPDATE \
         SET value = excluded.value, counter = excluded.counter, expires = excluded.expires",
        vec![mount.into(), key.as_bytes().into(), value, counter, expires(now_ms, time_to_live_ms)],
    )
}

/// Removes a key.
pub fn delete(mount: &str, key: &str) -> Write {
    ("DELETE FROM {}keyvalue WHERE mount = ? AND key = ?", vec![mount.into(), key.as_bytes().into()])
}

/// Adds to a counter, and gives the sum as a row; no row where the key holds something else, or the sum is no number.
pub fn increment(mount: &str, key: &str, delta: i64, time_to_live_ms: Option<u64>, now_ms: u64) -> Write {
    // Sums that a whole number cannot hold are left out by what there was before.
    let (low, high) = if delta >= 0 { (i64::MIN, i64::MAX - delta) } else { (i64::MIN - delta, i64::MAX) };
    (
        "INSERT INTO {}keyvalue AS kept (mount, key, value, counter, expires) VALUES (?, ?, NULL, ?, ?) ON CONFLICT (mount, key) DO UPDATE SET \
         value = NULL, counter = CASE WHEN kept.expires <= ? THEN excluded.counter ELSE kept.counter + excluded.counter END, \
         expires = CASE WHEN kept.expires <= ? THEN excluded.expires ELSE kept.expires END \
         WHERE kept.expires <= ? OR (kept.counter IS NOT NULL AND kept.counter BETWEEN ? AND ?) RETURNING counter",
        vec![
            mount.into(),
            key.as_bytes().into(),
            delta.into(),
            expires(now_ms, time_to_live_ms),
            number(now_ms),
            number(now_ms),
            number(now_ms),
            low.into(),
            high.into(),
        ],
    )
}

/// Sets a key if it holds what is expected; then there is a row.
pub fn compare_and_set(mount: &str, key: &str, expected: Option<&[u8]>, value: &[u8], now_ms: u64) -> Write {
    let (value, counter) = kept(value);
    let Some(expected) = expected else {
        return (
            "INSERT INTO {}keyvalue AS kept (mount, key, value, counter, expires) VALUES (?, ?, ?, ?, NULL) ON CONFLICT (mount, key) \
             DO UPDATE SET value = excluded.value, counter = excluded.counter, expires = NULL WHERE kept.expires <= ? RETURNING 1",
            vec![mount.into(), key.as_bytes().into(), value, counter, number(now_ms)],
        );
    };
    let (expected, expected_counter) = kept(expected);
    (
        "UPDATE {}keyvalue SET value = ?, counter = ?, expires = NULL WHERE mount = ? AND key = ? AND (value = ? OR counter = ?) \
         AND (expires IS NULL OR expires > ?) RETURNING 1",
        vec![value, counter, mount.into(), key.as_bytes().into(), expected, expected_counter, number(now_ms)],
    )
}

/// Keys with a beginning, in order of their bytes, after one.
pub fn keys(run: Run<'_>, mount: &str, prefix: &str, after: Option<&str>, limit: u32, now_ms: u64) -> Result<Vec<String>, Error> {
    let (range, mut parameters) = range("key", mount, prefix, after);
    let sql = format!("SELECT key FROM {{}}keyvalue WHERE {range} AND {LIVE} ORDER BY key LIMIT {limit}");
    parameters.push(number(now_ms));
    let rows = run(&sql, &parameters)?.rows;
    rows.into_iter().map(|row| cells(row).and_then(|[key]| key_text(key))).collect()
}

/// A condition for keys with a beginning after one, and its parameters.
pub fn range(column: &str, mount: &str, prefix: &str, after: Option<&str>) -> (String, Vec<Value>) {
    let start = after.map_or(prefix, |after| after.max(prefix));
    let mut range = format!("mount = ? AND {column} >= ?");
    let mut parameters: Vec<Value> = vec![mount.into(), start.as_bytes().into()];
    if let Some(after) = after {
        range.push_str(&format!(" AND {column} > ?"));
        parameters.push(after.as_bytes().into());
    }
    if let Some(end) = end_of_prefix(prefix.as_bytes()) {
        range.push_str(&format!(" AND {column} < ?"));
        parameters.push(end.into());
    }
    (range, parameters)
}

/// The first bytes that do not begin so; none where all that come later do.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_owned();
    end[last] += 1;
    Some(end)
}

/// A key as text.
pub fn key_text(key: Value) -> Result<String, Error> {
    String::from_utf8(bytes(key)?).map_err(|_| Error::Unavailable("a key is no text".into()))
}

/// Removes what is over.
pub fn remove_old(database: &Database, now_ms: u64) -> Result<(), Error> {
    database.run("DELETE FROM {}keyvalue WHERE expires <= ?", &[number(now_ms)]).map(drop)
}
