//! Who may read a blob: whoever sees a row that refers to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use crate::imports::{Dialect, Imports, Value};
use crate::plasma::engine::{DATABASE, Engine};
use crate::plasma::failure::Failure;
use crate::plasma::language::{Bindings, Compiled, Frame, Sources, SqlBuilder};
use crate::plasma::pull::has_key;
use crate::plasma::schema::{Table, table_name};
use crate::plasma::store::{self, number};
use crate::sql::Sql;

/// Why a blob may not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReadRefused {
    /// 403 `forbidden`, `blob-not-readable`.
    #[error("no row that the caller sees refers to the blob")]
    NotReadable,
    /// 403 `blob-read-auth-cap-hit`.
    #[error("none of the newest references, and there are older ones")]
    CapHit,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What an instance keeps: by table, the statement that finds a row that refers to a blob and is visible.
#[derive(Default)]
pub struct BlobReads(RefCell<HashMap<String, Rc<Compiled>>>);

impl BlobReads {
    fn of(&self, sql: &Sql, table: &Table) -> Rc<Compiled> {
        self.0.borrow_mut().entry(table.name.clone()).or_insert_with(|| Rc::new(compile(sql, table))).clone()
    }
}

/// Of the newest references to a hash, so many: one whose row is in this table and visible.
fn compile(sql: &Sql, table: &Table) -> Compiled {
    let dialect = sql.dialect();
    let sources = Sources::of_prefix(sql.prefix());
    let mut builder = SqlBuilder::new(dialect, &sources);
    let key = if dialect == Dialect::Sqlite { "pk" } else { "CAST(pk AS json)" };
    let references = table_name(sql.prefix(), "_plasma_blob_refs");
    builder.push(&format!("SELECT 1 FROM (SELECT tbl, {key} AS value FROM {references} WHERE hash = ")).given(0, "::text");
    builder.push(" ORDER BY version DESC, tbl, pk, col LIMIT ").given(1, "::bigint");
    // The references come first: SQLite keeps the order of a cross join.
    builder.push(&format!(") AS e CROSS JOIN {} AS \"t0\" WHERE e.tbl = ", sources.relation(&table.name)));
    builder.fixed(table.name.as_str().into(), "::text");
    builder.push(&format!(" AND {} AND ", has_key(table, "\"t0\"", "e", dialect)));
    builder.predicate(&table.auth.read, Frame::alias("t0")).push(" LIMIT 1");
    builder.finish()
}

impl Engine {
    /// Whether a caller sees a row that refers to a blob. At most the newest `references_max` references are looked at; none: all.
    pub fn check_blob_read(
        &self,
        imports: Imports<'_>,
        context: &Map<String, Json>,
        hash: &str,
        references_max: Option<u64>,
    ) -> Result<(), ReadRefused> {
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE).map_err(Failure::from)?;
        let given = [hash.into(), number(references_max.unwrap_or(u64::MAX))];
        for table in self.schema.tables().iter().filter(|table| table.files().next().is_some()) {
            let statement = self.blob_reads.of(sql, table).statement(&Bindings::of_context(context), &given);
            let statement = statement.map_err(|error| Failure::Unexpected(error.to_string()))?;
            if !view.query(statement, Some(1)).map_err(Failure::from)?.rows.is_empty() {
                return Ok(());
            }
        }
        let Some(references_max) = references_max else { return Err(ReadRefused::NotReadable) };
        let template = "SELECT 1 FROM {}_plasma_blob_refs WHERE hash = ? LIMIT 1 OFFSET ?";
        let older: [Value; 2] = [hash.into(), number(references_max)];
        let has_older = !store::rows(sql, view.as_ref(), template, older)?.is_empty();
        Err(if has_older { ReadRefused::CapHit } else { ReadRefused::NotReadable })
    }
}
