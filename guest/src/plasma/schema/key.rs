//! Primary keys as text.

use serde_json::Value as Json;

/// The key of a row in a patch: table and parts of the primary key, joined by `/`, with `%` and `/` escaped.
pub fn key_text(table: &str, key: &[Json]) -> String {
    let mut out = String::from(table);
    for part in key {
        out.push('/');
        match part {
            Json::String(text) => push_escaped(&mut out, text),
            other => out.push_str(&other.to_string()),
        }
    }
    out
}

fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '%' => out.push_str("%25"),
            '/' => out.push_str("%2F"),
            other => out.push(other),
        }
    }
}

/// The key of a row in the change log: a compact JSON array.
pub fn pk_json(key: &[Json]) -> String {
    let mut out = String::from("[");
    for (position, part) in key.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        out.push_str(&part.to_string());
    }
    out.push(']');
    out
}
