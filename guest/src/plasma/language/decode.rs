//! Queries as SQL, and their results as rows.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{BindError, Bindings, Compiled, Query, Sources};
use crate::imports::{Dialect, RowSet, Statement};
use crate::plasma::schema::Schema;

/// A query that can be run.
#[derive(Clone, Debug)]
pub struct CompiledQuery {
    compiled: Compiled,
}

/// Compiles a query. `read_auth`: whether the read predicates of all tables it touches are part of it.
pub fn compile_query(schema: &Schema, query: &Query, dialect: Dialect, sources: &Sources, read_auth: bool) -> CompiledQuery {
    todo!("{schema:?} {query:?} {dialect:?} {sources:?} {read_auth}")
}

impl CompiledQuery {
    /// The statement with its values.
    pub fn statement(&self, bindings: &Bindings<'_>) -> Result<Statement, BindError> {
        self.compiled.statement(bindings, &[])
    }

    /// What it gave, in wire form.
    pub fn rows(&self, found: &RowSet) -> Vec<Map<String, Json>> {
        todo!("{found:?}")
    }

    /// Every table whose rows the result depends on, those of read predicates included.
    pub fn tables(&self) -> &BTreeSet<String> {
        todo!()
    }
}
