//! `/admin/…` (section 18): for whoever runs the server.

use serde_json::{Map, Value as Json, json};

use super::blob;
use super::body::Body;
use super::refusal::Refusal;
use super::{Answer, parse_id};
use crate::http::{header, json_response};
use crate::plasma::Call;
use crate::plasma::blobs::{GcOptions, ReconcileOptions, ReconcileRefused};
use crate::plasma::compaction::CompactUpTo;
use crate::plasma::failure::Failure;
use crate::plasma::hooks::WriteHooks;
use crate::plasma::jobs;
use crate::plasma::metrics;
use crate::plasma::migration::MigrationRefused;
use crate::plasma::realtime::topics;
use crate::plasma::schema::{Schema, has_zero_character};
use crate::plasma::sequencer::{RANGE_MAX, Reserved};
use crate::plasma::server_db::{Operation, Policy, WriteRefused};
use crate::registry::{BodyOut, Request, Response};

/// How long a request compacts before it leaves the rest to a job.
const COMPACT_MS_MAX: u128 = 3000;
/// Blobs that one request deletes.
const GC_BLOBS_MAX: u64 = 10_000;
/// Rows that are reconciled together.
const RECONCILE_BATCH_MAX: u64 = 1000;

/// Answers a request whose token was checked.
pub fn admin(call: &Call<'_>, name: &str, request: &Request) -> Answer {
    match name {
        "errors" => errors(call),
        "metrics" => Ok(metrics_text(call, call.engine.version(call.imports)?)),
        "schema" => Ok(schema(call)),
        "stats" => stats(call),
        "db" => db(call, &Body::read(call, request)?),
        "compact" => compact(call, &Body::read(call, request)?),
        "migrate" => migrate(call, &Body::read(call, request)?),
        "reserve" => reserve(call, &Body::read(call, request)?),
        "forget" => forget(call, &Body::read(call, request)?),
        "revoke" => revoke(call, &Body::read(call, request)?),
        "gc" => gc(call, &Body::read(call, request)?),
        "reconcile" => reconcile(call, &Body::read(call, request)?),
        _ => Err(Refusal::NotFound),
    }
}

fn json(body: &Json) -> Answer {
    Ok(json_response(200, body.to_string()))
}

fn errors(call: &Call<'_>) -> Answer {
    let errors = call.kept_errors().ok_or_else(|| Refusal::Unavailable("the errors could not be read".into()))?;
    json(&json!({ "errors": errors }))
}

fn metrics_text(call: &Call<'_>, version: u64) -> Response {
    let text = metrics::render(&call.imports.effects.measured(), version);
    let headers = vec![header("content-type", "text/plain; version=0.0.4"), header("cache-control", "no-store")];
    Response { status: 200, headers, body: BodyOut::Bytes(text.into_bytes()) }
}

fn schema(call: &Call<'_>) -> Response {
    let schema = call.engine.schema();
    let tables: Vec<_> = schema.tables().iter().map(|table| &table.name).collect();
    let body = json!({"schemaVersion": call.settings.schema_version, "schema": schema.source(), "tables": tables});
    json_response(200, body.to_string())
}

fn stats(call: &Call<'_>) -> Answer {
    let stats = call.engine.stats(call.imports)?;
    json(&serde_json::to_value(stats).map_err(|error| Refusal::Internal(error.to_string()))?)
}

/// A key of a body that has a type, or is absent or null.
fn optional<T: serde::de::DeserializeOwned>(body: &Body, key: &str, expected: &str) -> Result<Option<T>, Refusal> {
    let value = body.0.get(key).cloned().unwrap_or(Json::Null);
    serde_json::from_value(value).map_err(|_| Refusal::invalid(format!("{key} must be {expected}")))
}

/// A context that a caller of the mount could have: conditions compare it with what databases hold.
fn check_context(ctx: &Map<String, Json>) -> Result<(), Refusal> {
    if ctx.get("userId").is_some_and(|user| !(user.is_string() || user.is_number())) {
        return Err(Refusal::invalid("as.userId must be a string or a number"));
    }
    if ctx.iter().any(|(name, value)| name.contains('\0') || has_zero_character(value)) {
        return Err(Refusal::invalid("as must not hold U+0000"));
    }
    Ok(())
}

fn db(call: &Call<'_>, body: &Body) -> Answer {
    let ctx: Option<Map<String, Json>> = optional(body, "as", "an object or null")?;
    if let Some(ctx) = &ctx {
        check_context(ctx)?;
    }
    let policy = ctx.map_or(Policy::Bypass, Policy::Enforce);
    let listed: Option<Vec<Json>> = optional(body, "ops", "an array")?;
    let listed = listed.ok_or_else(|| Refusal::invalid("ops must be an array"))?;
    let parse =
        |(index, source): (usize, &Json)| Operation::parse(source).map_err(|problem| Refusal::invalid(format!("ops[{index}]: {problem}")));
    let operations: Vec<Operation> = listed.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let begun = std::time::Instant::now();
    let written = call.engine.write(call.imports, &policy, &operations, &WriteHooks::of(call)).map_err(|refused| match refused {
        // Again it would take as long.
        WriteRefused::Failure(Failure::Limit(_))
            if begun.elapsed().as_millis() >= u128::from(call.settings.mutator_timeout_ms / 10 * 9) =>
        {
            Refusal::WriteFailed(format!(
                "{} operations took longer than a transaction may stay open: send fewer at once",
                operations.len()
            ))
        }
        WriteRefused::Authorization { table, action } => Refusal::WriteDenied { table, action: action.name() },
        WriteRefused::Invalid(reason) => Refusal::WriteFailed(reason),
        WriteRefused::Failure(failure) => failure.into(),
    })?;
    json(&json!({"ok": true, "version": written.version, "changed": written.changed}))
}

/// A key of a body that is from 1 to `max`, or is absent or null.
fn count(body: &Body, key: &str, max: u64) -> Result<Option<usize>, Refusal> {
    match optional::<u64>(body, key, "an integer")? {
        None => Ok(None),
        Some(count) if (1..=max).contains(&count) => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        Some(_) => Err(Refusal::invalid(format!("{key} must be from 1 to {max}"))),
    }
}

/// A word that is misspelt must not do more than was meant.
fn only_known(body: &Body, known: &[&str]) -> Result<(), Refusal> {
    match body.0.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(Refusal::invalid(format!("unknown key {unknown}"))),
        None => Ok(()),
    }
}

fn compact(call: &Call<'_>, body: &Body) -> Answer {
    only_known(body, &["keepVersions", "upToVersion", "tombstonesOnly"])?;
    let keep: Option<u64> = optional(body, "keepVersions", "a non-negative integer")?;
    let version: Option<u64> = optional(body, "upToVersion", "a non-negative integer")?;
    let tombstones_only = optional(body, "tombstonesOnly", "a boolean")?.unwrap_or(false);
    let up_to = match (keep, version) {
        (Some(_), Some(_)) => return Err(Refusal::invalid("only one of keepVersions and upToVersion may be given")),
        (None, Some(version)) => CompactUpTo::Version(version),
        (keep, None) => CompactUpTo::Keep(keep.unwrap_or(0)),
    };
    let begun = std::time::Instant::now();
    let mut step = call.engine.compact(call.imports, up_to, tombstones_only)?;
    let mut removed = step.removed;
    let mut done = true;
    while let Some(cursor) = step.next.take() {
        if begun.elapsed().as_millis() > COMPACT_MS_MAX {
            jobs::compact_later(call, &cursor);
            done = false;
            break;
        }
        step = call.engine.compact_on(call.imports, cursor)?;
        removed += step.removed;
    }
    json(&json!({"ok": true, "removed": removed, "kept": step.kept, "minVersion": step.min_version, "done": done}))
}

fn migrate(call: &Call<'_>, body: &Body) -> Answer {
    let source = body.0.get("schema").ok_or_else(|| Refusal::invalid("schema is missing"))?;
    let schema = Schema::parse(source, "schema").map_err(|problems| Refusal::InvalidRequest(problems.join("; ")))?;
    let dry_run = optional(body, "dryRun", "a boolean")?.unwrap_or(false);
    let allow_destructive = optional(body, "allowDestructive", "a boolean")?.unwrap_or(false);
    let done = call.engine.migrate(call.imports, &schema, dry_run, allow_destructive).map_err(|refused| match refused {
        MigrationRefused::Refused { reasons, diff } => Refusal::MigrationRefused(json!({"reasons": reasons, "diff": diff})),
        MigrationRefused::Failure(failure) => failure.into(),
    })?;
    let result = serde_json::to_value(&done).map_err(|error| Refusal::Internal(error.to_string()))?;
    if !dry_run {
        jobs::tell_all(call)?;
        call.migrated(&done);
    }
    json(&result)
}

fn gc(call: &Call<'_>, body: &Body) -> Answer {
    blob::settings(call)?;
    only_known(body, &["graceMs", "limit", "dryRun"])?;
    let defaults = GcOptions::default();
    let options = GcOptions {
        grace_ms: optional(body, "graceMs", "a non-negative integer")?.unwrap_or(defaults.grace_ms),
        blobs_max: count(body, "limit", GC_BLOBS_MAX)?.unwrap_or(defaults.blobs_max),
        dry_run: optional(body, "dryRun", "a boolean")?.unwrap_or(false),
    };
    let collected = call.engine.collect_blobs(call.imports, &options)?;
    if !options.dry_run {
        let mut after = None;
        while let Some(next) = call.engine.sweep_objects(call.imports, after.as_deref())? {
            after = Some(next);
        }
    }
    json(&serde_json::to_value(collected).map_err(|error| Refusal::Internal(error.to_string()))?)
}

fn reconcile(call: &Call<'_>, body: &Body) -> Answer {
    blob::settings(call)?;
    only_known(body, &["tables", "batchSize", "dryRun"])?;
    let defaults = ReconcileOptions::default();
    let options = ReconcileOptions {
        tables: optional(body, "tables", "a list of names")?,
        batch_rows: count(body, "batchSize", RECONCILE_BATCH_MAX)?.unwrap_or(defaults.batch_rows),
        dry_run: optional(body, "dryRun", "a boolean")?.unwrap_or(false),
    };
    let reconciled = call.engine.reconcile_blobs(call.imports, &options).map_err(|refused| match refused {
        ReconcileRefused::UnknownTable(_) => Refusal::invalid(refused.to_string()),
        ReconcileRefused::Failure(failure) => failure.into(),
    })?;
    json(&serde_json::to_value(reconciled).map_err(|error| Refusal::Internal(error.to_string()))?)
}

/// Hands out a range of versions, or closes one.
fn reserve(call: &Call<'_>, body: &Body) -> Answer {
    only_known(body, &["region", "count", "close"])?;
    let sequencer = &call.settings.sequencer;
    if let Some(range) = body.0.get("close") {
        let number = |key: &str| range.get(key).and_then(Json::as_u64).ok_or_else(|| Refusal::invalid("close must have first and epoch"));
        let closed = call.engine.close_range(call.imports, number("first")?, number("epoch")?)?;
        if closed {
            jobs::tell_all(call)?;
        }
        return json(&json!({"ok": true, "closed": closed}));
    }
    let region: Option<String> = optional(body, "region", "a string")?;
    let region = region.unwrap_or_else(|| sequencer.region.clone());
    if region.is_empty() || region.chars().count() > 256 || region.contains('\0') {
        return Err(Refusal::invalid("region must be a string of 1 to 256 characters"));
    }
    let count = optional::<u64>(body, "count", "an integer")?.unwrap_or(sequencer.reserve);
    if !(1..=RANGE_MAX).contains(&count) {
        return Err(Refusal::invalid(format!("count must be an integer from 1 to {RANGE_MAX}")));
    }
    if sequencer.reserves {
        // Before it is there, so that none is without.
        jobs::close_range_later(call);
    }
    let reserved = call.engine.reserve(call.imports, &region, count, sequencer.reserves)?;
    let Reserved { region, first, last, epoch } = reserved;
    json(&json!({"ok": true, "region": region, "first": first, "last": last, "epoch": epoch}))
}

fn forget(call: &Call<'_>, body: &Body) -> Answer {
    let client_group_id = parse_id("clientGroupID", body.0.get("clientGroupID"))?;
    let known = call.engine.forget(call.imports, &client_group_id)?;
    if known {
        // Whoever is connected as this group learns of it when it pulls.
        topics::poke_group(call, &client_group_id, call.engine.version(call.imports)?);
    }
    json(&json!({"ok": true, "forgotten": known}))
}

fn revoke(call: &Call<'_>, body: &Body) -> Answer {
    let user_id = parse_id("userId", body.0.get("userId"))?;
    call.engine.revoke(call.imports, &user_id, call.connection)?;
    topics::revoke(call, &user_id);
    json(&json!({"ok": true}))
}
