//! Queries from JSON.

use serde_json::Value as Json;

use super::Invalid;
use crate::plasma::schema::Schema;

/// A query, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The table that it reads.
    pub from: String,
}

/// Parses and checks a query.
pub fn parse_query(schema: &Schema, source: &Json) -> Result<Query, Invalid> {
    todo!("{schema:?} {source}")
}
