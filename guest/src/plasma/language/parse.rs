//! Predicates from JSON.

use serde_json::Value as Json;

use super::Predicate;
use crate::plasma::schema::{Schema, Table};

/// What is wrong with a predicate or a query: 400 `invalid-request`, or a problem of the configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Invalid {
    /// The path of its key (`where.and[0].left`).
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

/// Which sources a predicate may name beside `val` and `ctx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `param`
    pub parameters: bool,
    /// `arg`
    pub arguments: bool,
    /// `item`
    pub items: bool,
}

/// Parses and checks a predicate on the rows of a table; without one it can name no column outside an `exists`.
pub fn parse_predicate(schema: &Schema, table: Option<&Table>, source: &Json, path: &str, allowed: Allowed) -> Result<Predicate, Invalid> {
    todo!("{schema:?} {table:?} {source} {path} {allowed:?}")
}
