//! Queries of clients: what a caller may see of the tables, as one query says.

use serde_json::{Map, Value as Json};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::language::{BindError, Bindings, Invalid, Sources, compile_query, parse_query};
use super::store::changes;
use crate::imports::Imports;

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryReply {
    /// The version that was read.
    pub version: u64,
    /// Rows in wire form, in the order of the query.
    pub rows: Vec<Map<String, Json>>,
}

/// Why a query was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryRefused {
    /// It is malformed, or names what is not there: 400 `invalid-request`.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Its parameters do not fit: 400 `invalid-request`.
    #[error(transparent)]
    Unbound(#[from] BindError),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Engine {
    /// Runs a query with the read predicates of a caller, on one state of the database.
    pub fn query(
        &self,
        imports: Imports<'_>,
        context: &Map<String, Json>,
        source: &Json,
        parameters: Option<&Map<String, Json>>,
    ) -> Result<QueryReply, QueryRefused> {
        let query = parse_query(&self.schema, source)?;
        let sql = self.sql(imports)?;
        let compiled = compile_query(&self.schema, &query, sql.dialect(), &Sources::of_prefix(sql.prefix()), true);
        let statement = compiled.statement(&Bindings { parameters, ..Bindings::of_context(context) })?;
        let view = imports.executor.snapshot(DATABASE).map_err(Failure::from)?;
        let version = changes::head(sql, view.as_ref(), &self.options.region)?.version;
        let found = view.query(statement, None).map_err(Failure::from)?;
        Ok(QueryReply { version, rows: compiled.rows(&found) })
    }
}
