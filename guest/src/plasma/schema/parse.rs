//! From JSON to tables, with every problem named.

use serde_json::Value as Json;

use super::Table;

/// The tables of a schema, in the order of their names.
pub fn tables(source: &Json, path: &str) -> Result<Vec<Table>, Vec<String>> {
    todo!("{source} {path}")
}
