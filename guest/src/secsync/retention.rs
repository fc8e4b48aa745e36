//! Dropping the contents of superseded snapshots (docs/protocols/secsync.md, sections 8 and 10).
//!
//! Invariant: what goes are texts and updates; the chain entries stay, so that proof chains from any ancestor go on working.
//! Invariant: an object is given up only after the commit that no longer names it.

use super::failure::Failure;
use super::settings::Retention;
use super::store::{Call, OBJECT_COLUMNS};
use crate::imports::{Transaction, Value};

/// The daily job.
pub const RETENTION_JOB: &str = "retention";

/// When a job runs first after a start: soon, but not while clients come back.
pub const FIRST_RUN_MS: u64 = 5_000;
/// An hour.
pub const HOUR_MS: u64 = 3_600_000;
/// A day.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// Snapshots whose contents one step drops: a snapshot may have thousands of updates, and a transaction is to be short.
const SNAPSHOTS_PER_STEP: u32 = 8;

/// Sees to it that the daily job runs if it has something to do. It runs first a little after each start.
pub fn start(call: &Call<'_>) {
    let pubsub = call.imports.pubsub;
    match call.settings.retention {
        Some(Retention { max_age_days: Some(_), .. }) => {
            pubsub.schedule(RETENTION_JOB, call.imports.now_ms.saturating_add(FIRST_RUN_MS), Vec::new());
        }
        _ => pubsub.cancel(RETENTION_JOB),
    }
}

/// What was dropped by a transaction that is not committed yet.
#[must_use]
#[derive(Debug, Default)]
pub struct Dropped {
    snapshots: u64,
    object_keys: Vec<String>,
}

impl Dropped {
    /// Gives up the objects. To be called when the transaction is committed.
    pub fn committed(self, call: &Call<'_>) {
        for key in self.object_keys {
            // What cannot be removed costs space and nothing else.
            let _ = call.imports.storage.delete_object(&key);
        }
    }
}

/// Drops what a new active snapshot (number `ordinal` of the chain) makes superfluous, in its transaction.
pub fn after_snapshot(call: &Call<'_>, transaction: &dyn Transaction, doc_id: &str, ordinal: i64) -> Result<Dropped, Failure> {
    let Some(kept) = call.settings.retention.and_then(|retention| retention.superseded_snapshots) else { return Ok(Dropped::default()) };
    let which = "doc_id = ? AND ordinal < ? AND superseded_at IS NOT NULL ORDER BY ordinal";
    drop_contents(call, transaction, which, &[doc_id.into(), (ordinal - i64::from(kept)).into()])
}

/// Drops the contents of the first few snapshots that a condition (with an order) selects.
fn drop_contents(call: &Call<'_>, transaction: &dyn Transaction, which: &str, parameters: &[Value]) -> Result<Dropped, Failure> {
    let selection = format!("IN (SELECT id FROM {{}}ss_snapshots WHERE {which} LIMIT {SNAPSHOTS_PER_STEP})");
    let mut object_keys = Vec::new();
    for (column, table, id) in OBJECT_COLUMNS {
        let template = format!("SELECT {column} FROM {{}}{table} WHERE {column} IS NOT NULL AND {id} {selection}");
        for mut row in call.rows(transaction, &template, parameters.iter().cloned())? {
            object_keys.push(row.text()?);
        }
    }
    let updates = format!("DELETE FROM {{}}ss_updates WHERE snapshot_id {selection}");
    let snapshots = format!(
        "UPDATE {{}}ss_snapshots SET body = NULL, object_key = NULL, server_data = NULL, server_data_object_key = NULL, \
         superseded_at = NULL WHERE id {selection}"
    );
    let statements = [updates, snapshots].iter().map(|template| call.statement(template, parameters.iter().cloned())).collect();
    let changes = transaction.execute_batch(statements)?;
    Ok(Dropped { snapshots: changes.last().map_or(0, |last| last.changed), object_keys })
}

/// The daily job is due: one step of it. Gives a cursor as long as there is more to do.
pub fn fire(call: &Call<'_>) -> Option<Vec<u8>> {
    let days = call.settings.retention.and_then(|retention| retention.max_age_days)?;
    let again_ms = match drop_old(call, days) {
        Ok(true) => return Some(vec![1]),
        Ok(false) => DAY_MS,
        Err(failure) => {
            call.log_failure(RETENTION_JOB, &failure);
            HOUR_MS
        }
    };
    call.imports.pubsub.schedule(RETENTION_JOB, call.imports.now_ms.saturating_add(again_ms), Vec::new());
    None
}

/// Drops contents of snapshots that were superseded more than so many days ago. True if there may be more.
fn drop_old(call: &Call<'_>, days: u32) -> Result<bool, Failure> {
    let before = call.imports.now_ms.saturating_sub(u64::from(days).saturating_mul(DAY_MS));
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let transaction = call.begin()?;
    let which = "superseded_at IS NOT NULL AND superseded_at < ? ORDER BY superseded_at, id";
    let dropped = drop_contents(call, transaction.as_ref(), which, &[before.into()])?;
    transaction.commit()?;
    let more = dropped.snapshots >= u64::from(SNAPSHOTS_PER_STEP);
    dropped.committed(call);
    Ok(more)
}
