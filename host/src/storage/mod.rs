//! `storage`: key-value facts and objects, one file per backend.
//!
//! [`KeyValue`] and [`Objects`] are embedding interfaces, chosen apart from each other. Keys reach a backend as
//! `(mount, key)`; two mounts never meet. Errors and shapes are those of the contract, `wit/deps/host/storage.wit`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backup::Pinned;

mod checked;
pub mod files;
pub(crate) mod folders;
mod freezer;
pub mod memory;
pub mod s3;
pub mod sqlite;

pub(crate) use checked::CheckedReader;

/// Objects listed at once where all are looked at.
const LIST_COUNT: u32 = 1_000;

/// Why the storage did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum StorageError {
    /// No such key.
    #[error("not found")]
    NotFound,
    /// Somebody else was faster, or the value is of another kind (a counter that holds text).
    #[error("conflict")]
    Conflict,
    /// Size of a key or value, or disk.
    #[error("a limit was reached: {0}")]
    Limit(String),
    /// Away, or broken.
    #[error("the storage is unavailable: {0}")]
    Unavailable(String),
}

/// Both halves of the storage.
#[derive(Clone)]
pub struct Storage {
    /// Key-value facts.
    pub keyvalue: Arc<dyn KeyValue>,
    /// Objects.
    pub objects: Arc<dyn Objects>,
}

/// Small shared facts. Values survive a restart (but in memory); expired ones are as if they were not there.
#[async_trait]
pub trait KeyValue: Send + Sync + 'static {
    /// The value of a key.
    async fn get(&self, mount: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError>;
    /// Sets a key; it expires after `time_to_live_ms`.
    async fn set(&self, mount: &str, key: &str, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), StorageError>;
    /// Removes a key; no error where there is none.
    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError>;
    /// Adds to a counter (0 where there is none) and gives the sum. A counter reads back as its decimal text. The time to live counts from its creation.
    async fn increment(&self, mount: &str, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, StorageError>;
    /// Sets the key if it holds `expected` (none: if it is absent); whether it did.
    async fn compare_and_set(&self, mount: &str, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError>;
    /// Keys with a prefix in order of their bytes, after one, at most `limit`.
    async fn keys(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError>;
    /// Pins a view of all facts for a backup.
    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        Err(StorageError::Unavailable("this backend is backed up by means of its own".into()))
    }
    /// Whether the backend works right now (asked by `/readyz`).
    async fn ready(&self) -> Result<(), StorageError>;
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Bytes.
    pub size: u64,
    /// As given when it was written.
    pub content_type: String,
    /// SHA-256 of the content in lower-case hex.
    pub sha256: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Changes with the content; without quotes.
    pub etag: String,
}

/// Bytes of a piece that a reader gives, and of a batch that a writer of files writes at once.
pub(crate) const PIECE_BYTES: usize = 128 << 10;

/// An object that is read piece by piece. What is read is one content, also if the object is replaced or removed meanwhile.
#[async_trait]
pub trait ObjectReader: Send {
    /// The next piece, not empty; none at the end. After an error nothing more can be had.
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError>;
}

/// An object that was opened.
pub struct OpenObject {
    /// What is known of it.
    pub info: ObjectInfo,
    /// Bytes that the reader gives.
    pub length: u64,
    /// Gives them.
    pub reader: Box<dyn ObjectReader>,
}

/// An object that is written piece by piece. Dropped before [`ObjectWriter::finish`] nothing is left of it.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Takes the next piece. An error may be that of an earlier one; after it the writer is of no use.
    async fn write(&mut self, piece: Bytes) -> Result<(), StorageError>;
    /// Puts the object under its key, in place of one that is there; durable when this returns. `sha256`: of all that was
    /// written, in lower-case hex.
    async fn finish(self: Box<Self>, sha256: &str) -> Result<ObjectInfo, StorageError>;
}

/// Objects: whole or not there.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// What is known of an object.
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError>;
    /// The bytes of an object, or `length` bytes from `start` (less at its end).
    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError>;
    /// Writes an object, replacing one under the same key; durable when this returns.
    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError>;
    /// Opens an object, or `length` bytes of it from `start` (less at its end), to be read piece by piece. Whoever reads all of it
    /// compares it with its hash.
    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError>;
    /// Begins an object that comes piece by piece, and is not there before it is finished.
    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError>;
    /// A URL that gives the object to whoever has it, for so many milliseconds; none where the store cannot sign.
    async fn presign_download(&self, _mount: &str, _key: &str, _valid_ms: u64) -> Result<Option<String>, StorageError> {
        Ok(None)
    }
    /// A URL that takes the object by PUT, as [`Objects::presign_download`] gives it. The store checks hash (lower-case hex)
    /// and size where it can.
    async fn presign_upload(
        &self,
        _mount: &str,
        _key: &str,
        _sha256: &str,
        _bytes_max: u64,
        _valid_ms: u64,
    ) -> Result<Option<String>, StorageError> {
        Ok(None)
    }
    /// Removes an object; no error where there is none.
    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError>;
    /// Objects with a prefix in order of the bytes of their keys, after one, at most `limit`.
    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError>;
    /// Pins a view of all objects for a backup.
    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        Err(StorageError::Unavailable("this backend is backed up by means of its own".into()))
    }
    /// The bytes of all objects of a mount, for its quota; asked once per start.
    async fn object_bytes(&self, mount: &str) -> Result<u64, StorageError> {
        let (mut bytes, mut after) = (0, None::<String>);
        loop {
            let page = self.list(mount, "", after.as_deref(), LIST_COUNT).await?;
            bytes += page.iter().map(|(_, info)| info.size).sum::<u64>();
            let full = page.len() >= LIST_COUNT as usize;
            match page.into_iter().next_back().filter(|_| full) {
                Some((key, _)) => after = Some(key),
                None => return Ok(bytes),
            }
        }
    }
    /// Whether the backend works right now (asked by `/readyz`).
    async fn ready(&self) -> Result<(), StorageError>;
}

/// Does what may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StorageError> + Send + 'static) -> Result<T, StorageError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(StorageError::Unavailable(error.to_string())))
}
