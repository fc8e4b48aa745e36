//! Removing objects that no row names (docs/protocols/secsync.md, section 8): a crash between the writing of an object
//! and the commit that would have named it leaves one.
//!
//! Invariant: a young object is left alone. The call that wrote it may not have committed yet; no call takes as long as
//! the grace, and a key is never used by a second call.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::retention::{DAY_MS, FIRST_RUN_MS, HOUR_MS};
use super::store::{Call, DATABASE, OBJECT_COLUMNS, OBJECT_PREFIX};
use crate::imports::{Level, Query};

/// The daily job.
pub const SWEEP_JOB: &str = "sweep";

/// How old an object must be.
const GRACE_MS: u64 = HOUR_MS;
/// Objects that one step looks at: a call is to be short.
const OBJECTS_PER_STEP: u32 = 200;

/// Sees to it that the job runs a little after each start.
pub fn start(call: &Call<'_>) {
    call.imports.pubsub.schedule(SWEEP_JOB, call.imports.now_ms.saturating_add(FIRST_RUN_MS), Vec::new());
}

/// The job is due: one step of it, after the key in the cursor. Gives a cursor as long as there is more to look at.
pub fn fire(call: &Call<'_>, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let after = cursor.map(|key| String::from_utf8_lossy(&key).into_owned());
    let again_ms = match step(call, after.as_deref()) {
        Ok(Some(last)) => return Some(last.into_bytes()),
        Ok(None) => DAY_MS,
        Err(failure) => {
            call.log_failure(SWEEP_JOB, &failure);
            HOUR_MS
        }
    };
    call.imports.pubsub.schedule(SWEEP_JOB, call.imports.now_ms.saturating_add(again_ms), Vec::new());
    None
}

/// Gives the last key looked at if there may be more behind it.
fn step(call: &Call<'_>, after: Option<&str>) -> Result<Option<String>, Failure> {
    let listed = call.imports.storage.list_objects(OBJECT_PREFIX, after, OBJECTS_PER_STEP)?;
    let before_ms = call.imports.now_ms.saturating_sub(GRACE_MS);
    let old = listed.iter().filter(|(_, info)| info.created < before_ms).map(|(key, _)| key.clone());
    // The view is opened after the listing: it sees every row that an old object may have.
    let orphans = without_row(call, old.collect())?;
    for key in &orphans {
        // An error leaves it to the next run.
        let _ = call.imports.storage.delete_object(key);
    }
    if !orphans.is_empty() {
        let fields = serde_json::json!({"count": orphans.len()}).to_string();
        call.imports.effects.log(Level::Info, "secsync: objects that nothing refers to are removed", &fields);
    }
    let full = listed.len() >= OBJECTS_PER_STEP as usize;
    Ok(listed.into_iter().next_back().map(|(key, _)| key).filter(|_| full))
}

/// Those of some keys that no row names.
fn without_row(call: &Call<'_>, mut keys: BTreeSet<String>) -> Result<BTreeSet<String>, Failure> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let view = call.imports.executor.snapshot(DATABASE)?;
    let view: &dyn Query = view.as_ref();
    for (column, table, _) in OBJECT_COLUMNS {
        let places = vec!["?"; keys.len()].join(", ");
        let template = format!("SELECT {column} FROM {{}}{table} WHERE {column} IN ({places})");
        let parameters: Vec<_> = keys.iter().map(|key| key.as_str().into()).collect();
        for mut row in call.rows(view, &template, parameters)? {
            keys.remove(&row.text()?);
        }
        if keys.is_empty() {
            break;
        }
    }
    Ok(keys)
}
