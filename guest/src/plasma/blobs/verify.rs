//! What came into the store without passing the host: nobody has compared it with its hash yet.

use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{Blob, DEFAULT_CONTENT_TYPE};
use crate::encoding::hex;
use crate::imports::{ByteRange, Imports, ObjectInfo, StorageError};
use crate::plasma::engine::Engine;
use crate::plasma::failure::Failure;
use crate::plasma::mutators::expression::uuid;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 4 << 20;
/// How long a call looks at one object; a larger one is left to `/admin/reconcile`, which has the time.
const PATIENCE: Duration = Duration::from_secs(3);

/// 256 bits in hex, of the randomness that the host gave.
pub fn random_secret() -> String {
    // Digested, so that ids made from the same source say nothing about it.
    hex(&Sha256::digest(format!("{}{}", uuid(), uuid())))
}

impl Engine {
    /// Takes what a client put straight into the store, if it is what it should be; else it goes.
    pub(super) fn adopt(&self, imports: Imports<'_>, hash: &str) -> Result<Option<Blob>, Failure> {
        self.adopt_within(imports, hash, Some(PATIENCE))
    }

    /// The same with another patience; none: it takes as long as it takes.
    pub(super) fn adopt_within(&self, imports: Imports<'_>, hash: &str, patience: Option<Duration>) -> Result<Option<Blob>, Failure> {
        let key = self.direct_key(hash);
        let info = match imports.storage.head_object(&key) {
            Ok(info) => info,
            Err(StorageError::NotFound) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = match &info.sha256 {
            Some(sha256) => sha256.clone(),
            None => digest(imports, &key, &info, patience)?,
        };
        if found != hash {
            imports.storage.delete_object(&key)?;
            return Ok(None);
        }
        let content_type = if info.content_type.is_empty() { DEFAULT_CONTENT_TYPE.into() } else { info.content_type };
        let blob = Blob { hash: hash.to_owned(), size: info.size, content_type, object: key };
        self.keep_blob(imports, &blob)?;
        Ok(Some(blob))
    }
}

/// Whether the object of a blob holds its bytes. One that takes too long to be read counts as damaged: this is asked by whoever has the
/// right bytes at hand.
pub(super) fn is_whole(imports: Imports<'_>, blob: &Blob) -> bool {
    let info = imports.storage.head_object(&blob.object);
    let found = info.map_err(Failure::from).and_then(|info| digest(imports, &blob.object, &info, Some(PATIENCE)));
    found.is_ok_and(|found| found == blob.hash)
}

/// The hash of an object, read piece by piece.
fn digest(imports: Imports<'_>, key: &str, info: &ObjectInfo, patience: Option<Duration>) -> Result<String, Failure> {
    let (begun, mut digest, mut start) = (Instant::now(), Sha256::new(), 0);
    while start < info.size {
        if patience.is_some_and(|patience| begun.elapsed() > patience) {
            return Err(Failure::Unavailable(format!("object {key:?} is too large to be verified by a request: reconcile it")));
        }
        let piece = imports.storage.read_object(key, Some(ByteRange { start, length: CHUNK_BYTES }))?;
        if piece.is_empty() {
            return Err(Failure::Unavailable(format!("object {key:?} ended early")));
        }
        digest.update(&piece);
        start += piece.len() as u64;
    }
    Ok(hex(&digest.finalize()))
}
