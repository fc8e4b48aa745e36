//! Rebuilds the references to blobs from the rows, and tells which blobs are missing.
//!
//! Rows are found by the change log, which has an entry of each; a batch of them is one short transaction.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{Engine, Failure, ObjectState};
use crate::imports::{Imports, Query, Transaction, Value};
use crate::plasma::engine::DATABASE;
use crate::plasma::language::{Bindings, Sources, SqlBuilder};
use crate::plasma::pull::{has_key, list_of, push_list};
use crate::plasma::schema::Table;
use crate::plasma::store::{self, changes, list, number};
use crate::plasma::table_sql::cells;
use crate::plasma::write::{Row, blob_hash, row_of};
use crate::sql::Sql;

/// Missing blobs that are named.
const MISSING_MAX: usize = 10_000;

/// What is to be reconciled (`ReconcileBlobRefsOptions`).
#[derive(Clone, Debug, PartialEq)]
pub struct ReconcileOptions {
    /// Only these tables; none: all.
    pub tables: Option<Vec<String>>,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Whether nothing is changed.
    pub dry_run: bool,
}

impl Default for ReconcileOptions {
    fn default() -> Self {
        Self { tables: None, batch_rows: 500, dry_run: false }
    }
}

/// What was found, in the shape that the admin API shows (`ReconcileResult`).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileResult {
    /// Always true.
    pub ok: bool,
    /// Rows of tables with files that were looked at.
    pub scanned_rows: u64,
    /// References that came.
    pub added: u64,
    /// References that went.
    pub removed: u64,
    /// Hashes that rows refer to and that must be uploaded (again); the first so many.
    pub missing_blobs: Vec<String>,
    /// Those of them whose objects are there, but damaged; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged_blobs: Vec<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// Why nothing was reconciled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReconcileRefused {
    /// 400 `invalid-request`.
    #[error("unknown table {0}")]
    UnknownTable(String),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A reference: hash, table, primary key as JSON, column.
type Reference = [String; 4];

/// Where a run stands between two batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReconcileCursor {
    /// Rows of the table with files of this number, after this key.
    Rows(usize, String),
    /// References after this one.
    References(Reference),
}

impl Default for ReconcileCursor {
    fn default() -> Self {
        Self::Rows(0, String::new())
    }
}

/// What one run works with.
struct Run<'a> {
    engine: &'a Engine,
    imports: Imports<'a>,
    sql: &'a Sql,
    options: &'a ReconcileOptions,
}

impl Engine {
    /// Rebuilds the references (`reconcileBlobRefs`).
    pub fn reconcile_blobs(&self, imports: Imports<'_>, options: &ReconcileOptions) -> Result<ReconcileResult, ReconcileRefused> {
        let unknown = options.tables.iter().flatten().find(|name| self.schema.table(name).is_none());
        if let Some(unknown) = unknown {
            return Err(ReconcileRefused::UnknownTable(unknown.clone()));
        }
        let run = Run { engine: self, imports, sql: self.sql(imports)?, options };
        let mut result = ReconcileResult { ok: true, dry_run: options.dry_run, ..ReconcileResult::default() };
        let mut cursor = Some(ReconcileCursor::default());
        while let Some(place) = cursor {
            cursor = run.step(place, &mut result)?;
        }
        run.missing(&mut result)?;
        Ok(result)
    }

    /// Rebuilds the references by one batch; gives where to go on, or none at the end.
    pub fn reconcile_step(&self, imports: Imports<'_>, cursor: ReconcileCursor) -> Result<Option<ReconcileCursor>, Failure> {
        let options = ReconcileOptions::default();
        let run = Run { engine: self, imports, sql: self.sql(imports)?, options: &options };
        run.step(cursor, &mut ReconcileResult::default())
    }
}

impl Run<'_> {
    fn is_wanted(&self, table: &str) -> bool {
        self.options.tables.as_ref().is_none_or(|tables| tables.iter().any(|name| name == table))
    }

    /// One batch; gives where to go on, or none at the end.
    fn step(&self, cursor: ReconcileCursor, result: &mut ReconcileResult) -> Result<Option<ReconcileCursor>, Failure> {
        match cursor {
            ReconcileCursor::Rows(position, after) => {
                let tables = self.engine.schema.tables().iter();
                let mut tables = tables.filter(|table| table.files().next().is_some() && self.is_wanted(&table.name));
                let Some(table) = tables.nth(position) else { return Ok(Some(ReconcileCursor::References(Reference::default()))) };
                let last = self.add(table, &after, result)?;
                Ok(Some(last.map_or(ReconcileCursor::Rows(position + 1, String::new()), |last| ReconcileCursor::Rows(position, last))))
            }
            ReconcileCursor::References(after) => Ok(self.remove(&after, result)?.map(ReconcileCursor::References)),
        }
    }

    /// Adds the missing references of one batch of rows; gives the key to go on after.
    fn add(&self, table: &Table, after: &str, result: &mut ReconcileResult) -> Result<Option<String>, Failure> {
        let transaction = self.engine.begin(self.imports)?;
        let template =
            "SELECT pk, version FROM {}_plasma_changes WHERE newest = 1 AND tbl = ? AND op = 'put' AND pk > ? ORDER BY pk LIMIT ?";
        let limit = number(self.options.batch_rows as u64);
        let found = store::rows(self.sql, transaction.as_ref(), template, [table.name.as_str().into(), after.into(), limit])?;
        let versions: Vec<(String, u64)> =
            found.into_iter().map(|row| Ok((store::text(row[0].clone())?, store::unsigned(&row[1])?))).collect::<Result<_, Failure>>()?;
        let Some((last, _)) = versions.last() else { return Ok(None) };
        let keys: Vec<&str> = versions.iter().map(|(key, _)| key.as_str()).collect();
        let rows = self.rows(transaction.as_ref(), table, &keys)?;
        result.scanned_rows += rows.len() as u64;
        let mut wanted = Vec::new();
        for (position, (key, version)) in versions.iter().enumerate() {
            for column in table.files() {
                if let Some(hash) = rows.get(&position).and_then(|row| blob_hash(column, row.get(&column.name)?)) {
                    wanted.push(json!([hash, key, column.name, version]));
                }
            }
        }
        if !wanted.is_empty() {
            result.added += self.add_references(transaction.as_ref(), &table.name, &Json::Array(wanted))?;
        }
        if !self.options.dry_run {
            transaction.commit()?;
        }
        Ok(Some(last.clone()))
    }

    /// Adds references of a table, of which most are there: `[hash, key, column, version]`. Gives how many were missing.
    fn add_references(&self, transaction: &dyn Transaction, table: &str, wanted: &Json) -> Result<u64, Failure> {
        let list = list(self.sql.dialect());
        let is_new = "NOT EXISTS (SELECT 1 FROM {}_plasma_blob_refs AS r WHERE r.hash = e.value ->> 0 AND r.tbl = CAST(? AS TEXT) \
                      AND r.pk = e.value ->> 1 AND r.col = e.value ->> 2)";
        let template = format!(
            "INSERT INTO {{}}_plasma_blob_refs (hash, tbl, pk, col, version) SELECT e.value ->> 0, CAST(? AS TEXT), e.value ->> 1, \
             e.value ->> 2, CAST(e.value ->> 3 AS BIGINT) FROM {list} WHERE {is_new}"
        );
        let statement = self.sql.statement(&template, [table.into(), wanted.to_string().into(), table.into()]);
        // A dry run is rolled back.
        Ok(transaction.execute(statement)?.changed)
    }

    /// Removes those references of one batch that no row has; gives the one to go on after.
    fn remove(&self, after: &Reference, result: &mut ReconcileResult) -> Result<Option<Reference>, Failure> {
        let transaction = self.engine.begin(self.imports)?;
        let template = "SELECT hash, tbl, pk, col FROM {}_plasma_blob_refs WHERE (hash, tbl, pk, col) > (?, ?, ?, ?) \
                        ORDER BY hash, tbl, pk, col LIMIT ?";
        let place = after.iter().map(|part| Value::Text(part.clone())).chain([number(self.options.batch_rows as u64)]);
        let reference = |row: Vec<Value>| -> Result<Reference, Failure> {
            let texts: Vec<String> = row.into_iter().map(store::text).collect::<Result<_, _>>()?;
            Reference::try_from(texts).map_err(|_| Failure::Unexpected("four columns".into()))
        };
        let found = store::rows(self.sql, transaction.as_ref(), template, place)?;
        let found: Vec<Reference> = found.into_iter().map(reference).collect::<Result<_, _>>()?;
        let Some(last) = found.last().cloned() else { return Ok(None) };
        let mut by_table: HashMap<&str, Vec<&Reference>> = HashMap::new();
        for reference in found.iter().filter(|[_, table, ..]| self.is_wanted(table)) {
            by_table.entry(&reference[1]).or_default().push(reference);
        }
        let mut stale = Vec::new();
        for (table, references) in by_table {
            let Some(table) = self.engine.schema.table(table) else {
                stale.extend(references);
                continue;
            };
            let keys: Vec<&str> = references.iter().map(|[_, _, key, _]| key.as_str()).collect();
            let rows = self.rows(transaction.as_ref(), table, &keys)?;
            let refers = |position: usize, [hash, _, _, column]: &Reference| {
                let column = table.column(column)?;
                blob_hash(column, rows.get(&position)?.get(&column.name)?).filter(|own| own == hash)
            };
            stale.extend(
                references.iter().enumerate().filter(|(position, reference)| refers(*position, reference).is_none()).map(|(_, one)| *one),
            );
        }
        result.removed += stale.len() as u64;
        if !stale.is_empty() && !self.options.dry_run {
            let template = format!(
                "DELETE FROM {{}}_plasma_blob_refs WHERE (hash, tbl, pk, col) IN (SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, \
                 e.value ->> 3 FROM {})",
                list(self.sql.dialect())
            );
            transaction.execute(self.sql.statement(&template, [json!(stale).to_string().into()]))?;
            transaction.commit()?;
        }
        Ok(Some(last))
    }

    /// The rows of keys, by their position, whoever may see them.
    fn rows(&self, view: &dyn Query, table: &Table, keys: &[&str]) -> Result<HashMap<usize, Row>, Failure> {
        let dialect = self.sql.dialect();
        let sources = Sources::of_prefix(self.sql.prefix());
        let mut builder = SqlBuilder::new(dialect, &sources);
        builder.push(&format!("SELECT e.key, {} FROM ", cells(table, "\"t0\".", dialect)));
        push_list(&mut builder, dialect, 0, "e");
        builder.push(&format!(" CROSS JOIN {} AS \"t0\" WHERE {}", sources.relation(&table.name), has_key(table, "\"t0\"", "e", dialect)));
        let statement = builder.finish().statement(&Bindings::of_context(&Row::new()), &[list_of(keys.iter().copied()).into()]);
        let statement = statement.map_err(|error| Failure::Unexpected(error.to_string()))?;
        let found = store::checked(view.query(statement, None)?)?;
        let row = |cells: &Vec<Value>| Ok((changes::position(self.sql, &cells[0])?, row_of(table, &cells[1..])));
        found.iter().map(row).collect()
    }

    /// Names the blobs that rows refer to and that are not there.
    fn missing(&self, result: &mut ReconcileResult) -> Result<(), Failure> {
        let template = "SELECT hash FROM {}_plasma_blob_refs WHERE hash > ? AND tbl = coalesce(CAST(? AS TEXT), tbl) \
                        GROUP BY hash ORDER BY hash LIMIT ?";
        let tables: Vec<Option<String>> = match &self.options.tables {
            Some(tables) => tables.iter().cloned().map(Some).collect(),
            None => vec![None],
        };
        for table in tables {
            let mut after = String::new();
            loop {
                let view = self.imports.executor.snapshot(DATABASE)?;
                let place: [Value; 3] = [after.as_str().into(), table.clone().into(), number(self.options.batch_rows as u64)];
                let found = store::rows(self.sql, view.as_ref(), template, place)?;
                drop(view);
                let hashes: Vec<String> = found.into_iter().flatten().map(store::text).collect::<Result<_, _>>()?;
                let Some(last) = hashes.last() else { break };
                after.clone_from(last);
                for hash in hashes {
                    if result.missing_blobs.len() == MISSING_MAX {
                        break;
                    }
                    match self.object_state(&hash)? {
                        ObjectState::Whole => continue,
                        ObjectState::Damaged => result.damaged_blobs.push(hash.clone()),
                        ObjectState::Missing => {}
                    }
                    result.missing_blobs.push(hash);
                }
            }
        }
        for hashes in [&mut result.missing_blobs, &mut result.damaged_blobs] {
            hashes.sort();
            hashes.dedup();
        }
        Ok(())
    }

    /// Whether a blob is there. What a client put straight into the store is verified here, however long it takes.
    fn object_state(&self, hash: &str) -> Result<ObjectState, Failure> {
        let view = self.imports.executor.snapshot(DATABASE)?;
        let row = super::row_of(self.sql, view.as_ref(), hash)?;
        drop(view);
        let state = row.map_or(Ok(ObjectState::Missing), |blob| super::object_state(self.imports, &blob))?;
        if state == ObjectState::Whole {
            return Ok(state);
        }
        let is_adopted = match self.options.dry_run {
            true => super::has_object(self.imports, &self.engine.direct_key(hash)),
            false => self.engine.adopt_within(self.imports, hash, None).map(|adopted| adopted.is_some()),
        };
        match is_adopted {
            Ok(true) => Ok(ObjectState::Whole),
            Ok(false) => Ok(state),
            // It is the damaged one.
            Err(Failure::Unavailable(_)) if state == ObjectState::Damaged => Ok(state),
            Err(failure) => Err(failure),
        }
    }
}
