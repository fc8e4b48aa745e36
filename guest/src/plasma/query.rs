//! Queries of clients: what a caller may see of the tables, as one query says.

use serde_json::{Map, Value as Json, json};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::language::{BindError, Bindings, Invalid, Sources, compile_query, parse_query};
use super::store::changes;
use crate::imports::{Imports, Level, SqlError};

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
    /// The database does not take it, or does not finish it: 400 `invalid-request`. The same query would fail again.
    #[error("{0}")]
    TooMuch(&'static str),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A query that was checked is what a database can take, unless there is too much of it.
fn too_much(imports: Imports<'_>, error: SqlError) -> QueryRefused {
    let (refused, what) = match error {
        SqlError::InvalidStatement(what) => ("the query is too complex for the database", what),
        SqlError::Limit(what) => ("the query gives or takes more than the database allows: rows, bytes, or time", what),
        other => return Failure::from(other).into(),
    };
    let fields = json!({ "problem": what }).to_string();
    imports.effects.log(Level::Warn, "plasma: the database did not answer a query of a client", &fields);
    QueryRefused::TooMuch(refused)
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
        let found = view.query(statement, None).map_err(|error| too_much(imports, error))?;
        Ok(QueryReply { version, rows: compiled.rows(&found) })
    }
}
