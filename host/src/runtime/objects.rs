//! Bodies that are objects: they go past the component, piece by piece and in constant memory.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::bindings::guest::syncline::host::storage::ByteRange;
use super::http::{self, BodyFailure, Stored};
use super::mount::MountCore;
use super::object_cache::is_kept;
use super::pieces::{Maker, pieces};
use super::requests::AnswerBody;
use crate::executor::sqlite::folder::hex;
use crate::storage::memory::clamp_range;
use crate::storage::{CheckedReader, ObjectInfo, ObjectReader as _, ObjectWriter, PIECE_BYTES, StorageError};

/// A body that becomes an object. Dropped before [`Upload::finish`] nothing is left of it.
pub(crate) struct Upload {
    mount: Arc<MountCore>,
    wanted: http::Upload,
    writer: Box<dyn ObjectWriter>,
    digest: Sha256,
    bytes: u64,
}

impl MountCore {
    /// Begins to take a body in, of which `announced` bytes are announced.
    pub(crate) async fn begin_upload(self: &Arc<Self>, wanted: http::Upload, announced: u64) -> Result<Upload, BodyFailure> {
        if announced > wanted.max_bytes {
            return Err(BodyFailure::TooLarge);
        }
        let begin = async {
            self.admit_object(&wanted.key, announced).await?;
            self.storage.objects.create(&self.name, &wanted.key, &wanted.content_type).await
        };
        let writer = begin.await.map_err(|error| self.not_taken(&wanted.key, &error))?;
        Ok(Upload { mount: self.clone(), wanted, writer, digest: Sha256::new(), bytes: 0 })
    }

    /// Takes in a body that is there already.
    pub(super) async fn take_whole(self: &Arc<Self>, wanted: http::Upload, body: Bytes) -> http::BodyIn {
        let taken = async {
            let mut upload = self.begin_upload(wanted, body.len() as u64).await?;
            upload.write(body).await?;
            upload.finish().await
        };
        taken.await.map_or_else(http::BodyIn::Failed, http::BodyIn::Stored)
    }

    /// What is known of an object.
    pub(crate) async fn object_info(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        match self.cached_object(key) {
            Some((info, _)) => Ok(info),
            None => self.storage.objects.head(&self.name, key).await,
        }
    }

    /// An object that was sent before, where the plan lets it be kept.
    fn cached_object(&self, key: &str) -> Option<(ObjectInfo, Bytes)> {
        let bytes_max = self.plan().object_cache_bytes;
        let mut cache = self.object_cache.lock();
        // A reload may have taken memory away.
        cache.shrink(bytes_max);
        cache.get(key)
    }

    /// An object could not be read as it was written; what there is to do is for whoever runs the server.
    pub(super) fn object_failed(&self, key: &str, error: &StorageError) {
        self.metrics.object_failed(&self.name);
        tracing::error!(mount = self.name, key, %error, "an object could not be sent whole");
    }

    fn not_taken(&self, key: &str, error: &StorageError) -> BodyFailure {
        tracing::error!(mount = self.name, key, %error, "the storage did not take an object");
        BodyFailure::Unavailable
    }

    /// An object, or a piece of it, as the body of an answer. `is_head`: only its length is wanted.
    pub(crate) async fn object_body(
        self: &Arc<Self>,
        key: &str,
        range: Option<ByteRange>,
        is_head: bool,
        cut: &Arc<Notify>,
    ) -> Result<AnswerBody, StorageError> {
        let range = range.map(|ByteRange { start, length }| (start, length));
        if is_head {
            let size = self.object_info(key).await?.size;
            return Ok(AnswerBody::Unsent(clamp_range(size, range).1));
        }
        if let Some((info, content)) = self.cached_object(key) {
            let (start, length) = clamp_range(info.size, range);
            // Both are at most the length of what is in memory.
            return Ok(AnswerBody::Whole(content.slice(start as usize..(start + length) as usize)));
        }
        let changes = self.object_cache.lock().changes();
        let open = self.storage.objects.open(&self.name, key, range).await?;
        let cache_bytes_max = self.plan().object_cache_bytes;
        let is_kept = open.length == open.info.size && is_kept(cache_bytes_max, open.length);
        let (length, info) = (open.length, open.info.clone());
        let mut reader = CheckedReader::new(open);
        if is_kept || length <= PIECE_BYTES as u64 {
            let content = whole(&mut reader).await?;
            if is_kept {
                self.object_cache.lock().keep(cache_bytes_max, changes, key, info, content.clone());
            }
            return Ok(AnswerBody::Whole(self.budget.hold(content)));
        }
        let (maker, pieces) = pieces(cut.clone());
        self.runtime.spawn(send(self.clone(), key.to_owned(), maker, reader));
        Ok(AnswerBody::Pieces { pieces, length: Some(length) })
    }
}

impl Upload {
    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<(), BodyFailure> {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.bytes > self.wanted.max_bytes {
            return Err(BodyFailure::TooLarge);
        }
        self.digest.update(&piece);
        self.writer.write(piece).await.map_err(|error| self.mount.not_taken(&self.wanted.key, &error))
    }

    /// The body is whole: if it is what it should be, it is an object now.
    pub(crate) async fn finish(self) -> Result<Stored, BodyFailure> {
        let Self { mount, wanted: http::Upload { key, sha256: expected, .. }, writer, digest, bytes } = self;
        let sha256 = hex(&digest.finalize());
        if expected.is_some_and(|expected| expected != sha256) {
            return Err(BodyFailure::WrongHash);
        }
        let finished = async {
            let before = mount.admit_object(&key, bytes).await?;
            let info = writer.finish(&sha256).await?;
            mount.object_changed(&key, before.unwrap_or(0), info.size);
            Ok::<_, StorageError>(before.is_some())
        };
        match finished.await {
            Ok(existed) => Ok(Stored { key, size: bytes, sha256, existed }),
            Err(error) => Err(mount.not_taken(&key, &error)),
        }
    }
}

/// All that is left to be read.
async fn whole(reader: &mut CheckedReader) -> Result<Bytes, StorageError> {
    let mut content = reader.next().await?.unwrap_or_default();
    while let Some(piece) = reader.next().await? {
        content = [content, piece].concat().into();
    }
    Ok(content)
}

/// Sends an object as the client takes it. What is on its way counts as what waits; while too much does, nothing more is read.
async fn send(mount: Arc<MountCore>, key: String, maker: Maker, mut reader: CheckedReader) {
    loop {
        let Some(room) = maker.room().await else { return };
        tokio::select! {
            biased;
            () = mount.budget.roomy() => {}
            () = maker.gone() => return,
        }
        match reader.next().await {
            Ok(Some(piece)) => room.fill(vec![mount.budget.hold(piece)]),
            Ok(None) => break,
            // What was sent is cut off: the client must not take it for whole.
            Err(error) => return mount.object_failed(&key, &error),
        }
    }
    maker.end(None).await;
}
