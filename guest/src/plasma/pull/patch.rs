//! Patches, encoded as they are read: no tree of values in between.

use crate::plasma::engine::Dialect;
use crate::plasma::failure::Failure;
use crate::plasma::schema::{key_text, write_json};

use super::statements::TableReads;
use crate::imports::Value;

/// An operation of a patch.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The table.
    pub table: &'a str,
    /// The primary key, as JSON.
    pub key: &'a str,
    /// When the row changed last.
    pub version: u64,
    /// The row, as JSON; none: it is to be deleted.
    pub row: Option<&'a str>,
}

/// A patch under construction.
pub struct Patch {
    dialect: Dialect,
    text: String,
    /// Rows put.
    pub puts: u64,
    /// Rows deleted.
    pub dels: u64,
}

impl Patch {
    /// Empty.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, text: "[".into(), puts: 0, dels: 0 }
    }

    /// All that was there goes.
    pub fn clear(&mut self) {
        self.text.push_str(r#"{"op":"clear"},"#);
    }

    /// One row.
    pub fn push(&mut self, change: Change<'_>) -> Result<(), Failure> {
        self.text.push_str(if change.row.is_some() { r#"{"op":"put","# } else { r#"{"op":"del","# });
        match self.dialect {
            Dialect::Replicache => {
                self.text.push_str(r#""key":"#);
                push_key(&mut self.text, change.table, change.key)?;
                if let Some(row) = change.row {
                    self.text.push_str(r#","value":"#);
                    self.text.push_str(row);
                }
            }
            Dialect::Native => {
                // Names of tables need no escapes.
                for part in [r#""table":""#, change.table, r#"","pk":"#, change.key] {
                    self.text.push_str(part);
                }
                if let Some(row) = change.row {
                    self.text.push_str(r#","row":"#);
                    self.text.push_str(row);
                }
                self.text.push_str(r#","version":"#);
                self.text.push_str(&change.version.to_string());
            }
        }
        self.text.push_str("},");
        *(if change.row.is_some() { &mut self.puts } else { &mut self.dels }) += 1;
        Ok(())
    }

    /// The JSON array.
    pub fn finish(mut self) -> String {
        if self.text.ends_with(',') {
            self.text.pop();
        }
        self.text.push(']');
        self.text
    }
}

/// Writes the key of a row in a patch as a JSON string.
fn push_key(out: &mut String, table: &str, key: &str) -> Result<(), Failure> {
    // Most keys are one text without anything that must be escaped here or there.
    let plain = key.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]"));
    if let Some(text) = plain.filter(|text| !text.contains(['"', '\\', '/', '%'])) {
        for part in ["\"", table, "/", text, "\""] {
            out.push_str(part);
        }
        return Ok(());
    }
    let broken = |error: serde_json::Error| Failure::Unexpected(format!("a key of the log: {error}"));
    let parts: Vec<serde_json::Value> = serde_json::from_str(key).map_err(broken)?;
    out.push_str(&serde_json::to_string(&key_text(table, &parts)).map_err(broken)?);
    Ok(())
}

/// Writes the cells of a row as a JSON object.
pub fn push_row(out: &mut String, reads: &TableReads, cells: &[Value]) {
    out.push('{');
    for (position, (column, cell)) in reads.columns().zip(cells).enumerate() {
        if position > 0 {
            out.push(',');
        }
        // Names of columns need no escapes.
        for part in ["\"", &column.name, "\":"] {
            out.push_str(part);
        }
        write_json(column, cell, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_twice_and_only_where_they_must_be() {
        let text = |key: &str| {
            let mut out = String::new();
            push_key(&mut out, "t", key).unwrap();
            out
        };
        assert_eq!(text(r#"["a b"]"#), r#""t/a b""#);
        assert_eq!(text(r#"["a/b%",1,true]"#), r#""t/a%2Fb%25/1/true""#);
        assert_eq!(text(r#"["\"\n"]"#), r#""t/\"\n""#);
        assert_eq!(text(r#"["a","b"]"#), r#""t/a/b""#);
    }
}
