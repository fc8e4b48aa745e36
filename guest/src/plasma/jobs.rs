//! Jobs: compaction of the change log, expiry of client groups, hooks in the background.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Call;
use super::blobs::{GcOptions, ReconcileCursor};
use super::compaction::{CompactUpTo, Compaction, CompactionCursor};
use super::failure::Failure;
use super::hooks::HOOK_JOB_PREFIX;
use super::realtime::{live, topics};
use super::sequencer::LEASE_MS;
use crate::imports::Level;

/// Compacts the change log.
pub const COMPACTION_JOB: &str = "compaction";
/// Goes on with a compaction that `/admin/compact` began.
pub const COMPACTION_REST_JOB: &str = "compaction-rest";
/// Beginning of the names of jobs that close ranges of versions whose lease is over.
const RANGES_JOB_PREFIX: &str = "ranges/";
/// Forgets idle client groups.
pub const EXPIRY_JOB: &str = "expiry";
/// Rebuilds references to blobs, deletes blobs that no row refers to, and what uploads left behind.
pub const BLOBS_JOB: &str = "blobs";

/// When jobs run first after a start: soon, but not while clients come back.
const FIRST_RUN_MS: u64 = 5_000;
/// How often idle client groups are looked for.
const EXPIRY_EVERY_MS: u64 = 3_600_000;
/// How often objects are looked for that uploads left behind, where the settings say nothing.
const SWEEP_EVERY_MS: u64 = 24 * 3_600_000;
/// After how long a job is tried again that the database failed.
const RETRY_MS: u64 = 30_000;

/// Where a job stands between two steps.
#[derive(Serialize, Deserialize)]
enum Cursor {
    /// Everything up to a version goes.
    Log(CompactionCursor),
    /// Old deletions go.
    Tombstones(CompactionCursor),
    /// Client groups after this one.
    Groups(String),
    /// References to blobs are rebuilt from here on.
    References(ReconcileCursor),
    /// Blobs without references go.
    Orphans,
    /// Objects after this one.
    Objects(Option<String>),
}

/// Puts down the jobs that the settings ask for.
pub fn start(call: &Call<'_>) {
    let (pubsub, now_ms) = (call.imports.pubsub, call.imports.now_ms);
    pubsub.schedule(EXPIRY_JOB, now_ms.saturating_add(FIRST_RUN_MS), Vec::new());
    match call.settings.change_log.compact_every_ms {
        Some(every_ms) => pubsub.schedule(COMPACTION_JOB, now_ms.saturating_add(every_ms.min(FIRST_RUN_MS)), Vec::new()),
        None => pubsub.cancel(COMPACTION_JOB),
    }
    match call.settings.blobs {
        Some(_) => pubsub.schedule(BLOBS_JOB, now_ms.saturating_add(FIRST_RUN_MS), Vec::new()),
        None => pubsub.cancel(BLOBS_JOB),
    }
}

/// Has the range that this call is about to hand out closed when its lease is over.
pub fn close_range_later(call: &Call<'_>) {
    let name = format!("{RANGES_JOB_PREFIX}{}", call.connection);
    call.imports.pubsub.schedule(&name, call.imports.now_ms.saturating_add(LEASE_MS), Vec::new());
}

fn ranges(call: &Call<'_>) -> Result<(), Failure> {
    if call.engine.close_expired_ranges(call.imports)? {
        tell_all(call)?;
    }
    Ok(())
}

/// Tells everybody of versions that can be seen from now on.
pub fn tell_all(call: &Call<'_>) -> Result<(), Failure> {
    let version = call.engine.version(call.imports)?;
    live::publish(call, version, None);
    topics::publish_pokes(call, version);
    Ok(())
}

/// Leaves the rest of a compaction to a job.
pub fn compact_later(call: &Call<'_>, cursor: &CompactionCursor) {
    let payload = serde_json::to_vec(cursor).unwrap_or_default();
    call.imports.pubsub.schedule(COMPACTION_REST_JOB, call.imports.now_ms, payload);
}

/// Runs a step of a job; gives where to go on, or none when it is done.
pub fn fire(call: &Call<'_>, name: &str, payload: &[u8], cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let cursor = cursor.and_then(|cursor| serde_json::from_slice(&cursor).ok());
    let next = match name {
        COMPACTION_JOB => compaction(call, cursor),
        COMPACTION_REST_JOB => rest(call, payload, cursor),
        EXPIRY_JOB => expiry(call, cursor),
        BLOBS_JOB => blobs(call, cursor),
        _ if name.starts_with(RANGES_JOB_PREFIX) => ranges(call).map(|()| None),
        _ if name.starts_with(HOOK_JOB_PREFIX) => {
            call.fire_hook(payload);
            Ok(None)
        }
        _ => Ok(None),
    };
    match next {
        Ok(Some(cursor)) => serde_json::to_vec(&cursor).ok(),
        Ok(None) => {
            again(call, name, None);
            None
        }
        Err(failure) => {
            let fields = json!({"job": name, "problem": failure.to_string()}).to_string();
            call.imports.effects.log(Level::Warn, "plasma: a job failed and is tried again", &fields);
            again(call, name, Some((RETRY_MS, payload)));
            None
        }
    }
}

/// Puts the next run of a job down.
fn again(call: &Call<'_>, name: &str, retry: Option<(u64, &[u8])>) {
    let every_ms = match name {
        COMPACTION_JOB => call.settings.change_log.compact_every_ms,
        EXPIRY_JOB => Some(EXPIRY_EVERY_MS),
        BLOBS_JOB => call.settings.blobs.as_ref().map(|blobs| blobs.gc_every_ms.unwrap_or(SWEEP_EVERY_MS)),
        _ => None,
    };
    let (delay_ms, payload) = match (retry, every_ms) {
        (Some((retry_ms, payload)), every_ms) => (every_ms.map_or(retry_ms, |every_ms| every_ms.min(retry_ms)), payload.to_vec()),
        (None, Some(every_ms)) => (every_ms, Vec::new()),
        (None, None) => return,
    };
    call.imports.pubsub.schedule(name, call.imports.now_ms.saturating_add(delay_ms), payload);
}

/// First what is too old by versions, then deletions that are too old by time.
fn compaction(call: &Call<'_>, cursor: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
    let log = &call.settings.change_log;
    let tombstones = |step: Compaction| Ok(step.next.map(Cursor::Tombstones));
    let before_ms = log.tombstone_ttl_ms.map(|ttl_ms| call.imports.now_ms.saturating_sub(ttl_ms));
    let begin_tombstones = || match before_ms {
        Some(before_ms) => tombstones(call.engine.compact(call.imports, CompactUpTo::Before(before_ms), true)?),
        None => Ok(None),
    };
    let step = match cursor {
        Some(Cursor::Tombstones(cursor)) => return tombstones(call.engine.compact_on(call.imports, cursor)?),
        Some(Cursor::Log(cursor)) => call.engine.compact_on(call.imports, cursor)?,
        // Where only deletions are to go, nothing else does.
        _ if log.keep_versions.is_none() && before_ms.is_some() => return begin_tombstones(),
        _ => call.engine.compact(call.imports, CompactUpTo::Keep(log.keep_versions.unwrap_or(0)), false)?,
    };
    match step.next {
        Some(next) => Ok(Some(Cursor::Log(next))),
        None => begin_tombstones(),
    }
}

fn rest(call: &Call<'_>, payload: &[u8], cursor: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
    let begun = || serde_json::from_slice(payload).ok();
    let Some(cursor) = (match cursor {
        Some(Cursor::Log(cursor)) => Some(cursor),
        _ => begun(),
    }) else {
        return Ok(None);
    };
    Ok(call.engine.compact_on(call.imports, cursor)?.next.map(Cursor::Log))
}

/// Where the settings say so, references are rebuilt first, so that no lost one costs a blob, and blobs without any go; then objects
/// without a blob.
fn blobs(call: &Call<'_>, cursor: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
    let collects = call.settings.blobs.as_ref().is_some_and(|blobs| blobs.gc_every_ms.is_some());
    match cursor {
        Some(Cursor::References(cursor)) => {
            let next = call.engine.reconcile_step(call.imports, cursor)?;
            Ok(Some(next.map_or(Cursor::Orphans, Cursor::References)))
        }
        Some(Cursor::Orphans) => {
            let options = GcOptions::default();
            let collected = call.engine.collect_blobs(call.imports, &options)?;
            Ok(Some(if collected.hashes.len() >= options.blobs_max { Cursor::Orphans } else { Cursor::Objects(None) }))
        }
        None if collects => Ok(Some(Cursor::References(ReconcileCursor::default()))),
        other => {
            let after = if let Some(Cursor::Objects(after)) = other { after } else { None };
            let next = call.engine.sweep_objects(call.imports, after.as_deref())?;
            Ok(next.map(|next| Cursor::Objects(Some(next))))
        }
    }
}

fn expiry(call: &Call<'_>, cursor: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
    let after = match cursor {
        Some(Cursor::Groups(after)) => Some(after),
        _ => None,
    };
    Ok(call.engine.expire(call.imports, after)?.map(Cursor::Groups))
}
