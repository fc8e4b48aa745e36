//! Blobs that no row refers to, and objects that no blob names.

use serde::Serialize;
use serde_json::json;

use super::{Blob, Engine, Failure};
use crate::imports::{Imports, Query, Value};
use crate::plasma::engine::DATABASE;
use crate::plasma::store::{self, list, list_text, number};
use crate::sql::Sql;

/// Blobs that one transaction removes.
const BLOBS_PER_TRANSACTION: usize = 200;
/// Objects that are looked at together.
const OBJECTS_PER_STEP: u32 = 500;
/// What is younger may belong to an upload that is under way.
pub const SWEEP_GRACE_MS: u64 = 3_600_000;

/// What is to be collected (`GcOrphanedBlobsOptions`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// How old a blob must be, milliseconds.
    pub grace_ms: u64,
    /// How many are deleted at most.
    pub blobs_max: usize,
    /// Whether nothing is deleted.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { grace_ms: 24 * 3_600_000, blobs_max: 1000, dry_run: false }
    }
}

/// What was collected, or would be, in the shape that the admin API shows (`GcResult`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcResult {
    /// Always true.
    pub ok: bool,
    /// Blobs that there were.
    pub scanned: u64,
    /// Those that went, or would go.
    pub deleted: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Those that stay.
    pub kept: u64,
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// Of those that went.
    pub hashes: Vec<String>,
}

/// Blobs of some hashes, or of all, that no row refers to.
fn orphans(sql: &Sql, view: &dyn Query, before_ms: u64, of: Option<&[Blob]>, blobs_max: usize) -> Result<Vec<Blob>, Failure> {
    let limited = match of {
        Some(_) => format!("AND b.hash IN (SELECT {} FROM {})", list_text(sql.dialect()), list(sql.dialect())),
        None => String::new(),
    };
    let template = format!(
        "SELECT b.hash, b.size, b.content_type, b.object FROM {{}}_plasma_blobs AS b WHERE b.created_at <= ? AND NOT EXISTS \
         (SELECT 1 FROM {{}}_plasma_blob_refs AS r WHERE r.hash = b.hash) {limited} ORDER BY b.hash LIMIT ?"
    );
    let hashes = of.map(|of| Value::Text(json!(of.iter().map(|blob| &blob.hash).collect::<Vec<_>>()).to_string()));
    let parameters = [Some(number(before_ms)), hashes, Some(number(blobs_max as u64))];
    let blob = |row: Vec<Value>| {
        let [hash, size, content_type, object] = <[Value; 4]>::try_from(row).map_err(|_| Failure::Unexpected("four columns".into()))?;
        let (hash, content_type, object) = (store::text(hash)?, store::text(content_type)?, store::text(object)?);
        Ok(Blob { hash, size: store::unsigned(&size)?, content_type, object })
    };
    store::rows(sql, view, &template, parameters.into_iter().flatten())?.into_iter().map(blob).collect()
}

impl Engine {
    /// Deletes blobs that are old enough and that no row refers to (`gcOrphanedBlobs`).
    pub fn collect_blobs(&self, imports: Imports<'_>, options: &GcOptions) -> Result<GcResult, Failure> {
        let sql = self.sql(imports)?;
        let before_ms = imports.now_ms.saturating_sub(options.grace_ms);
        let view = imports.executor.snapshot(DATABASE)?;
        let counted = store::rows(sql, view.as_ref(), "SELECT count(*) FROM {}_plasma_blobs", [])?;
        let scanned = store::unsigned(counted.first().and_then(|row| row.first()).unwrap_or(&Value::Null))?;
        let found = orphans(sql, view.as_ref(), before_ms, None, options.blobs_max)?;
        drop(view);
        let mut gone = Vec::new();
        for chunk in found.chunks(BLOBS_PER_TRANSACTION) {
            if options.dry_run {
                gone.extend_from_slice(chunk);
                continue;
            }
            let transaction = self.begin(imports)?;
            // A row may refer to one of them by now.
            let still = orphans(sql, transaction.as_ref(), before_ms, Some(chunk), chunk.len())?;
            let hashes = json!(still.iter().map(|blob| &blob.hash).collect::<Vec<_>>()).to_string();
            let these = format!("SELECT {} FROM {}", list_text(sql.dialect()), list(sql.dialect()));
            transaction.execute(sql.statement(&format!("DELETE FROM {{}}_plasma_blobs WHERE hash IN ({these})"), [hashes.into()]))?;
            transaction.commit()?;
            for blob in &still {
                imports.storage.delete_object(&blob.object)?;
            }
            gone.extend(still);
        }
        let deleted = gone.len() as u64;
        Ok(GcResult {
            ok: true,
            scanned,
            deleted,
            bytes_freed: gone.iter().map(|blob| blob.size).sum(),
            kept: scanned.saturating_sub(deleted),
            dry_run: options.dry_run,
            hashes: gone.into_iter().map(|blob| blob.hash).collect(),
        })
    }

    /// Deletes objects that no blob names, as uploads leave them that were cut off between object and row. Gives the key to go on
    /// after; none: done.
    pub fn sweep_objects(&self, imports: Imports<'_>, after: Option<&str>) -> Result<Option<String>, Failure> {
        let sql = self.sql(imports)?;
        let prefix = &self.options.blob_prefix;
        let objects = imports.storage.list_objects(prefix, after, OBJECTS_PER_STEP)?;
        let next = objects.last().map(|(key, _)| key.clone()).filter(|_| objects.len() >= OBJECTS_PER_STEP as usize);
        let old = objects.into_iter().filter(|(_, info)| info.created.saturating_add(SWEEP_GRACE_MS) <= imports.now_ms);
        // Of an object straight from a client the key is the hash alone, and it waits for its first reader.
        let uploads: Vec<String> = old.map(|(key, _)| key).filter(|key| hash_of(prefix, key).is_some()).collect();
        if uploads.is_empty() {
            return Ok(next);
        }
        let hashes = json!(uploads.iter().filter_map(|key| hash_of(prefix, key)).collect::<Vec<_>>()).to_string();
        let template = format!(
            "SELECT object FROM {{}}_plasma_blobs WHERE hash IN (SELECT {} FROM {})",
            list_text(sql.dialect()),
            list(sql.dialect())
        );
        let view = imports.executor.snapshot(DATABASE)?;
        let named = store::rows(sql, view.as_ref(), &template, [hashes.into()])?;
        let named: std::collections::HashSet<String> =
            named.into_iter().filter_map(|mut row| row.pop()).map(store::text).collect::<Result<_, _>>()?;
        for key in uploads.iter().filter(|key| !named.contains(*key)) {
            imports.storage.delete_object(key)?;
        }
        Ok(next)
    }
}

/// The hash in the key of an upload.
fn hash_of<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.split_once('/').map(|(hash, _)| hash)
}
