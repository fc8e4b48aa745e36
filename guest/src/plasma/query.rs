//! Queries of clients: what a caller may see of the tables, as one query says, now or as it was (`snapshotAsOf`).

use serde_json::{Map, Value as Json, json};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::language::{BindError, Bindings, Invalid, Sources, compile_query, parse_query};
use super::past::{self, PastTables};
use super::store::changes::{self, Head};
use crate::imports::{Imports, Level, Query, SqlError};
use crate::sql::Sql;

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryReply {
    /// The version that was read.
    pub version: u64,
    /// Rows in wire form, in the order of the query.
    pub rows: Vec<Map<String, Json>>,
}

/// Which state is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// That of a version.
    Version(u64),
    /// That of the newest version that was committed at or before a time, in milliseconds since 1970.
    Timestamp(u64),
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
    /// A query of this name does not only say which rows: 400 `invalid-request`.
    #[error("query {0} cannot be synced: only from and where may stand in it")]
    NotSynced(String),
    /// A version that is not there yet: 400 `invalid-request`.
    #[error("version {0} is not there yet")]
    Future(u64),
    /// What is asked for is no longer known: 410 `snapshot-compacted`. The least version that is.
    #[error("the log does not reach back so far")]
    Compacted(u64),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A query that was checked is what a database can take, unless there is too much of it.
pub fn too_much(imports: Imports<'_>, error: SqlError) -> QueryRefused {
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
    /// Runs a query with the read predicates of a caller, on one state of the database: the present one, or an older one.
    pub fn query(
        &self,
        imports: Imports<'_>,
        context: &Map<String, Json>,
        source: &Json,
        parameters: Option<&Map<String, Json>>,
        as_of: Option<AsOf>,
    ) -> Result<QueryReply, QueryRefused> {
        let query = parse_query(&self.schema, source)?;
        let sql = self.sql(imports)?;
        let mut compiled = compile_query(&self.schema, &query, sql.dialect(), &Sources::of_prefix(sql.prefix()), true);
        let bindings = Bindings { parameters, ..Bindings::of_context(context) };
        let mut statement = compiled.statement(&bindings)?;
        let view = imports.executor.snapshot(DATABASE).map_err(Failure::from)?;
        let head = changes::head(sql, view.as_ref())?;
        let version = match as_of {
            Some(as_of) => version_of(sql, view.as_ref(), head, as_of)?,
            None => head.version,
        };
        // Versions above an open range are not to be seen, though they are there.
        if version < head.last {
            match self.past(imports, sql, view.as_ref(), compiled.tables().iter(), version) {
                Ok(past) => {
                    compiled = past.compile(&query);
                    statement = compiled.statement_given(&bindings, &past.given())?;
                }
                // Nobody asked for the past: without images the present is what can be said.
                Err(QueryRefused::Compacted(_)) if as_of.is_none() => {}
                Err(refused) => return Err(refused),
            }
        }
        let found = view.query(statement, None).map_err(|error| too_much(imports, error))?;
        Ok(QueryReply { version, rows: compiled.rows(&found) })
    }

    /// Tables as they were at a version.
    pub(super) fn past<'a, 't>(
        &'a self,
        imports: Imports<'_>,
        sql: &'a Sql,
        view: &dyn Query,
        tables: impl Iterator<Item = &'t String>,
        version: u64,
    ) -> Result<PastTables<'a>, QueryRefused> {
        let since = past::images_since(sql, view)?;
        if since.is_none_or(|since| since > version) {
            let head = changes::head(sql, view)?;
            return Err(QueryRefused::Compacted(since.unwrap_or(head.version).max(head.min_version)));
        }
        let mut past = PastTables::new(self, sql);
        for table in tables.filter_map(|name| self.schema.table(name)) {
            let changed = changes::all_changed_since(sql, view, &table.name, version).map_err(|failure| match failure {
                Failure::Limit(what) => too_much(imports, SqlError::Limit(what)),
                other => other.into(),
            })?;
            if changed.iter().any(|row| row.missing) {
                return Err(Failure::Unexpected(format!("a before-image of {} is missing", table.name)).into());
            }
            past.add(table, &changed)?;
        }
        Ok(past)
    }
}

/// The version whose state is asked for.
fn version_of(sql: &Sql, view: &dyn Query, head: Head, as_of: AsOf) -> Result<u64, QueryRefused> {
    let version = match as_of {
        AsOf::Version(version) if version > head.version => return Err(QueryRefused::Future(version)),
        AsOf::Version(version) => version,
        AsOf::Timestamp(at_ms) => match changes::version_before(sql, view, head, at_ms.saturating_add(1))? {
            // Versions without rows have no time, and show what was there before them.
            version if changes::is_last_entry(sql, view, version)? => head.version,
            version => version,
        },
    };
    if version < head.min_version {
        return Err(QueryRefused::Compacted(head.min_version));
    }
    Ok(version)
}
