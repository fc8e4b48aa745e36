//! Compaction of the change log, in steps that hold the database for a short time.
//!
//! The beginning of the log is raised before anything is removed: whoever pulls between two steps with a cookie below it gets a
//! reset, though some of what it misses may still be there. What is to be removed is looked for in a view, which disturbs nobody;
//! a transaction then removes it by its keys.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::store::changes;
use super::store::{self, list, number};
use crate::imports::{Imports, Statement, Value};
use crate::sql::Sql;

/// Entries that one transaction removes: 10 ms or so.
const ENTRIES_PER_TRANSACTION: usize = 1000;
/// Transactions of one step: a call is to be short.
const TRANSACTIONS_PER_STEP: usize = 20;

/// Up to where the log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactUpTo {
    /// All but the newest so many versions (`keepVersions`).
    Keep(u64),
    /// This version, at most the current one (`upToVersion`).
    Version(u64),
    /// What was committed before this time, in milliseconds since 1970 (`tombstoneTtlMs`).
    Before(u64),
}

/// Where a compaction goes on. Plain data, for the cursor of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionCursor {
    up_to: u64,
    tombstones_only: bool,
    place: Place,
}

/// What is removed next, and after which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Entries of the log after (version, seq).
    Log(u64, u64),
    /// Remembered mutations after (client group, version).
    Mutations(String, u64),
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Entries removed by this step.
    pub removed: u64,
    /// Entries that the log has; none unless the compaction is done.
    pub kept: Option<u64>,
    /// Cookies below it get a reset.
    pub min_version: u64,
    /// Where to go on; none: done.
    pub next: Option<CompactionCursor>,
}

impl Engine {
    /// The first step.
    pub fn compact(&self, imports: Imports<'_>, up_to: CompactUpTo, tombstones_only: bool) -> Result<Compaction, Failure> {
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        let head = changes::head(sql, view.as_ref())?;
        let up_to = match up_to {
            CompactUpTo::Keep(versions) => head.version.saturating_sub(versions),
            CompactUpTo::Version(version) => version.min(head.version),
            CompactUpTo::Before(time_ms) => changes::version_before(sql, view.as_ref(), head, time_ms)?,
        };
        drop(view);
        if up_to > head.min_version {
            let transaction = self.begin(imports)?;
            transaction.execute(changes::raise_min_version(sql, &self.options.region, up_to))?;
            transaction.commit()?;
        }
        self.compact_on(imports, CompactionCursor { up_to, tombstones_only, place: Place::Log(0, 0) })
    }

    /// A later step.
    pub fn compact_on(&self, imports: Imports<'_>, cursor: CompactionCursor) -> Result<Compaction, Failure> {
        let mut removed = 0;
        let mut next = Some(cursor);
        for _ in 0..TRANSACTIONS_PER_STEP {
            let Some(cursor) = next.take() else { break };
            let (gone, place) = match &cursor.place {
                Place::Log(version, sequence) => self.compact_log(imports, &cursor, (*version, *sequence))?,
                Place::Mutations(group_id, version) => self.compact_mutations(imports, cursor.up_to, group_id, *version)?,
            };
            removed += gone;
            next = place.map(|place| CompactionCursor { place, ..cursor });
        }
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        let kept = match next {
            Some(_) => None,
            None => {
                let counted = store::rows(sql, view.as_ref(), "SELECT count(*) FROM {}_plasma_changes", [])?;
                Some(store::unsigned(counted.first().and_then(|row| row.first()).unwrap_or(&Value::Null))?)
            }
        };
        let min_version = changes::head(sql, view.as_ref())?.min_version;
        Ok(Compaction { removed, kept, min_version, next })
    }

    /// One transaction's worth of the log; entries removed, and where to go on.
    fn compact_log(&self, imports: Imports<'_>, cursor: &CompactionCursor, after: (u64, u64)) -> Result<(u64, Option<Place>), Failure> {
        let sql = self.sql(imports)?;
        let useless = if cursor.tombstones_only { "op = 'del'" } else { "(newest = 0 OR op = 'del')" };
        let wanted = if cursor.tombstones_only { useless.to_owned() } else { format!("({useless} OR before IS NOT NULL)") };
        let template = format!(
            "SELECT version, seq FROM {{}}_plasma_changes WHERE (version, seq) > (?, ?) AND version <= ? AND {wanted} \
             ORDER BY version, seq LIMIT ?"
        );
        let limit = number(ENTRIES_PER_TRANSACTION as u64);
        let view = imports.executor.snapshot(DATABASE)?;
        let found = store::rows(sql, view.as_ref(), &template, [number(after.0), number(after.1), number(cursor.up_to), limit])?;
        drop(view);
        let Some(last) = found.last() else {
            let next = Place::Mutations(String::new(), 0);
            return Ok((0, Some(next).filter(|_| !cursor.tombstones_only)));
        };
        let place = Place::Log(store::unsigned(&last[0])?, store::unsigned(&last[1])?);
        let keys = pairs(&found)?;
        let these =
            format!("(version, seq) IN (SELECT CAST(e.value ->> 0 AS BIGINT), CAST(e.value ->> 1 AS BIGINT) FROM {})", list(sql.dialect()));
        let mut statements = vec![on_keys(sql, &format!("DELETE FROM {{}}_plasma_changes WHERE {useless} AND {these}"), &keys)];
        if !cursor.tombstones_only {
            statements.push(on_keys(sql, &format!("UPDATE {{}}_plasma_changes SET before = NULL WHERE {these}"), &keys));
        }
        let transaction = self.begin(imports)?;
        let done = transaction.execute_batch(statements)?;
        transaction.commit()?;
        Ok((done.first().map_or(0, |one| one.changed), Some(place)))
    }

    /// One transaction's worth of remembered mutations: all but the newest of each client, and those of forgotten clients.
    fn compact_mutations(&self, imports: Imports<'_>, up_to: u64, group_id: &str, version: u64) -> Result<(u64, Option<Place>), Failure> {
        let sql = self.sql(imports)?;
        let template = "SELECT m.cg, m.version, m.c, m.mid FROM {}_plasma_mutations AS m WHERE (m.cg, m.version) > (?, ?) \
                        AND m.version <= ? AND NOT EXISTS (SELECT 1 FROM {}_plasma_clients AS k WHERE k.c = m.c AND k.cg = m.cg \
                        AND k.lmid <= m.mid) ORDER BY m.cg, m.version LIMIT ?";
        let limit = number(ENTRIES_PER_TRANSACTION as u64);
        let view = imports.executor.snapshot(DATABASE)?;
        let found = store::rows(sql, view.as_ref(), template, [group_id.into(), number(version), number(up_to), limit])?;
        drop(view);
        let Some(last) = found.last() else { return Ok((0, None)) };
        let place = Place::Mutations(store::text(last[0].clone())?, store::unsigned(&last[1])?);
        let key = |row: &Vec<Value>| Ok(json!([store::text(row[0].clone())?, store::text(row[2].clone())?, store::unsigned(&row[3])?]));
        let keys = found.iter().map(key).collect::<Result<Json, Failure>>()?;
        let template = format!(
            "DELETE FROM {{}}_plasma_mutations WHERE (cg, c, mid) IN (SELECT e.value ->> 0, e.value ->> 1, \
             CAST(e.value ->> 2 AS BIGINT) FROM {})",
            list(sql.dialect())
        );
        let transaction = self.begin(imports)?;
        transaction.execute(on_keys(sql, &template, &keys))?;
        transaction.commit()?;
        Ok((0, Some(place)))
    }
}

fn on_keys(sql: &Sql, template: &str, keys: &Json) -> Statement {
    sql.statement(template, [keys.to_string().into()])
}

fn pairs(rows: &[Vec<Value>]) -> Result<Json, Failure> {
    rows.iter().map(|row| Ok(json!([store::unsigned(&row[0])?, store::unsigned(&row[1])?]))).collect()
}
