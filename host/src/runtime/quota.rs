//! The quota of a mount: how many bytes its databases and objects may hold.
//!
//! What would add to them is refused once they hold that much: INSERTs and new objects. Reading, changing and deleting go on,
//! so that space can be made. It is looked at before a write, not after it: the last one admitted may go beyond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::MountCore;
use crate::executor::{Executor, ExecutorError};
use crate::storage::{ObjectInfo, Objects, StorageError};

const FULL: &str = "quota of the mount";

/// See the module.
pub(crate) struct Quota {
    mount: String,
    executor: Arc<dyn Executor>,
    bytes_max: u64,
    object_bytes: AtomicU64,
    full: AtomicBool,
}

impl Quota {
    /// Adds up what is there.
    pub(crate) async fn open(mount: &str, bytes_max: u64, executor: Arc<dyn Executor>, objects: &dyn Objects) -> Result<Self, String> {
        if executor.database_bytes(mount).is_none() {
            return Err("quota_bytes: this SQL backend cannot tell how much a mount holds".into());
        }
        let object_bytes = objects.object_bytes(mount).await.map_err(|error| format!("quota_bytes: {error}"))?;
        let (mount, object_bytes) = (mount.to_owned(), AtomicU64::new(object_bytes));
        Ok(Self { mount, executor, bytes_max, object_bytes, full: AtomicBool::new(false) })
    }

    /// Bytes that the mount may hold.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes that it holds.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.executor.database_bytes(&self.mount).unwrap_or(0).saturating_add(self.object_bytes.load(Ordering::Relaxed))
    }

    fn has_room_for(&self, more_bytes: u64) -> bool {
        let used_bytes = self.used_bytes();
        let room = used_bytes.saturating_add(more_bytes) < self.bytes_max;
        if self.full.swap(!room, Ordering::Relaxed) == room {
            if room {
                tracing::info!(mount = self.mount, "the mount is within its quota again");
            } else {
                tracing::warn!(mount = self.mount, used_bytes, quota_bytes = self.bytes_max, "the quota of the mount is used up");
            }
        }
        room
    }

    /// Whether a statement may run.
    pub(crate) fn admit_statement(&self, sql: &str) -> Result<(), ExecutorError> {
        if adds(sql) && !self.has_room_for(0) { Err(ExecutorError::Limit(FULL.into())) } else { Ok(()) }
    }

    /// Whether an object of so many bytes may take the place of one of `before` bytes (0: of none).
    pub(crate) fn admit_object(&self, before: u64, bytes: u64) -> Result<(), StorageError> {
        if bytes <= before && before > 0 || self.has_room_for(bytes.saturating_sub(before)) {
            Ok(())
        } else {
            Err(StorageError::Limit(FULL.into()))
        }
    }

    /// An object took the place of one of `before` bytes (0: of none; `after` 0: it is gone).
    pub(crate) fn object_changed(&self, before: u64, after: u64) {
        let change = |held: u64| Some(held.saturating_add(after).saturating_sub(before));
        // The closure always gives a value, so this cannot fail.
        let _ = self.object_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

impl MountCore {
    /// The quota; none: no limit.
    pub(crate) fn quota(&self) -> Option<Arc<Quota>> {
        self.revision().quota.clone()
    }

    /// Writes an object, within the quota where there is one (`has_quota`: the call is held to it).
    pub(crate) async fn write_object(
        &self,
        has_quota: bool,
        key: &str,
        content_type: &str,
        content: Bytes,
    ) -> Result<ObjectInfo, StorageError> {
        let objects = &self.storage.objects;
        let Some(quota) = self.quota() else {
            let written = objects.write(&self.name, key, content_type, content).await;
            self.object_cache.lock().changed(key);
            return written;
        };
        let before = self.object_bytes(key).await?.unwrap_or(0);
        if has_quota {
            quota.admit_object(before, u64::try_from(content.len()).unwrap_or(u64::MAX))?;
        }
        let written = objects.write(&self.name, key, content_type, content).await?;
        self.object_changed(key, before, written.size);
        Ok(written)
    }

    /// Whether an object of so many bytes may come; gives the bytes of the one whose place it takes, if there is one.
    pub(super) async fn admit_object(&self, key: &str, bytes: u64) -> Result<Option<u64>, StorageError> {
        let before = self.object_bytes(key).await?;
        if let Some(quota) = self.quota() {
            quota.admit_object(before.unwrap_or(0), bytes)?;
        }
        Ok(before)
    }

    /// An object took the place of one of `before` bytes (0: of none; `after` 0: it is gone).
    pub(super) fn object_changed(&self, key: &str, before: u64, after: u64) {
        self.object_cache.lock().changed(key);
        if let Some(quota) = self.quota() {
            quota.object_changed(before, after);
        }
    }

    /// Removes an object.
    pub(crate) async fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        // One whose size cannot be told, since it is damaged, goes like any other.
        let before = if self.quota().is_some() { self.object_bytes(key).await.ok().flatten().unwrap_or(0) } else { 0 };
        self.storage.objects.delete(&self.name, key).await?;
        self.object_changed(key, before, 0);
        Ok(())
    }

    /// The bytes of an object; none where there is none.
    async fn object_bytes(&self, key: &str) -> Result<Option<u64>, StorageError> {
        match self.storage.objects.head(&self.name, key).await {
            Ok(info) => Ok(Some(info.size)),
            Err(StorageError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a statement adds rows. A quota is no matter of security: what hides an INSERT evades it, no more.
fn adds(sql: &str) -> bool {
    let mut words = sql.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').filter(|word| !word.is_empty());
    let is_insert = |word: &str| word.eq_ignore_ascii_case("insert") || word.eq_ignore_ascii_case("replace");
    match words.next() {
        Some(first) if first.eq_ignore_ascii_case("with") => words.any(is_insert),
        Some(first) => is_insert(first) || first.eq_ignore_ascii_case("create"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_add_are_told_from_those_that_do_not() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            " replace into t values (1)",
            "WITH n AS (SELECT 1) INSERT INTO t SELECT * FROM n",
            "CREATE TABLE t (a)",
        ] {
            assert!(adds(sql), "{sql}");
        }
        for sql in [
            "SELECT 'insert'",
            "UPDATE t SET a = 'insert'",
            "DELETE FROM inserts",
            "WITH n AS (SELECT 1) DELETE FROM t",
            "DROP TABLE t",
            "",
        ] {
            assert!(!adds(sql), "{sql}");
        }
    }
}
