//! Objects of mounts: rows of the database, or a bucket; and files that are read as objects.

mod bucket;
mod folders;
pub(crate) mod rows;
mod signature;
mod transfer;

pub use folders::Folder;
pub use transfer::{Download, Upload};

use std::rc::Rc;

use bucket::BucketClient;

use sha2::{Digest as _, Sha256};

use crate::bindings::exports::syncline::host::storage::Error;
use crate::ports::Ports;
use crate::settings::Settings;
use crate::sql::{self, Database};

/// Bytes of a row, and of what a download gives at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Longest key.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// Where objects are kept.
pub enum Objects {
    /// In the database.
    Rows(Rc<Database>),
    /// In a bucket.
    Bucket(BucketClient),
}

impl Objects {
    /// As the settings say.
    pub fn new(ports: &Rc<Ports>, database: &Rc<Database>, settings: &Settings) -> Self {
        match &settings.bucket {
            None => Self::Rows(Rc::clone(database)),
            Some(bucket) => Self::Bucket(BucketClient::new(Rc::clone(ports), bucket.clone())),
        }
    }

    /// Removes pieces of uploads that were never finished.
    pub fn remove_abandoned(&self, now_ms: u64) -> Result<(), sql::Error> {
        match self {
            Self::Rows(database) => rows::remove_abandoned(database, now_ms),
            // A rule of the bucket does.
            Self::Bucket(_) => Ok(()),
        }
    }

    /// The bytes of all objects of a mount.
    pub fn object_bytes(&self, mount: &str) -> Result<u64, Error> {
        match self {
            Self::Rows(database) => rows::object_bytes(database, mount).map_err(storage_error),
            Self::Bucket(bucket) => bucket.object_bytes(mount),
        }
    }
}

/// An error of the database in the words of the storage.
pub fn storage_error(error: sql::Error) -> Error {
    match error {
        sql::Error::Limit(what) => Error::Limit(what),
        sql::Error::Aborted => Error::Unavailable("the database is busy".into()),
        sql::Error::Constraint((_, what)) | sql::Error::InvalidStatement(what) | sql::Error::Unavailable(what) => Error::Unavailable(what),
    }
}

/// The part of `size` bytes that a range means: where it begins, and its length.
pub(crate) fn clamp(size: u64, range: Option<(u64, u64)>) -> (u64, u64) {
    match range {
        None => (0, size),
        Some((start, length)) => {
            let start = start.min(size);
            (start, length.min(size - start))
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key that the stores take.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::Limit("size of a key".into()));
    }
    Ok(())
}

/// The SHA-256 of a content in lower-case hex.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}
