//! Objects that come piece by piece: small ones are sent at once, others in parts, of which one is on its way while the next
//! is collected. A process that dies leaves parts behind that nobody sees; a lifecycle rule of the bucket removes them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore as _, PutPayload};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Bucket, attributes, etag, storage_error, within};
use crate::storage::memory::system_clock;
use crate::storage::{ObjectInfo, ObjectWriter, StorageError};

/// Stores want parts of at least 5 MiB, and some want equal ones.
const PART_BYTES: usize = 8 << 20;

/// Parts that were sent, or are on their way.
struct Parts {
    upload: Box<dyn MultipartUpload>,
    sending: Option<JoinHandle<object_store::Result<()>>>,
}

/// An object on its way into the bucket.
pub(super) struct S3Writer {
    bucket: Arc<Bucket>,
    location: Path,
    content_type: String,
    /// Of the next part.
    pieces: Vec<Bytes>,
    piece_bytes: usize,
    size: u64,
    /// None while it may be a small one.
    parts: Option<Parts>,
}

impl S3Writer {
    pub(super) fn new(bucket: Arc<Bucket>, location: Path, content_type: &str) -> Self {
        let content_type = content_type.to_owned();
        Self { bucket, location, content_type, pieces: Vec::new(), piece_bytes: 0, size: 0, parts: None }
    }

    /// Sends what was collected as a part.
    async fn send_part(&mut self) -> Result<(), StorageError> {
        if self.parts.is_none() {
            let begun = self.bucket.client.put_multipart_opts(&self.location, attributes(&self.content_type, None).into());
            self.parts = Some(Parts { upload: within(begun).await?, sending: None });
        }
        self.sent().await?;
        let payload = PutPayload::from_iter(std::mem::take(&mut self.pieces));
        self.piece_bytes = 0;
        if let Some(parts) = &mut self.parts {
            parts.sending = Some(tokio::spawn(parts.upload.put_part(payload)));
        }
        Ok(())
    }

    /// Waits for the part that is on its way.
    async fn sent(&mut self) -> Result<(), StorageError> {
        match self.parts.as_mut().and_then(|parts| parts.sending.take()) {
            Some(sending) => {
                let sent = sending.await.map_err(|error| StorageError::Unavailable(error.to_string()))?;
                sent.map_err(storage_error)
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ObjectWriter for S3Writer {
    async fn write(&mut self, mut piece: Bytes) -> Result<(), StorageError> {
        self.size += piece.len() as u64;
        while self.piece_bytes + piece.len() > PART_BYTES {
            self.pieces.push(piece.split_to(PART_BYTES - self.piece_bytes));
            self.send_part().await?;
        }
        self.piece_bytes += piece.len();
        self.pieces.push(piece);
        Ok(())
    }

    async fn finish(mut self: Box<Self>, sha256: &str) -> Result<ObjectInfo, StorageError> {
        let put = if self.parts.is_none() {
            let payload = PutPayload::from_iter(std::mem::take(&mut self.pieces));
            within(self.bucket.client.put_opts(&self.location, payload, attributes(&self.content_type, Some(sha256)).into())).await?
        } else {
            self.send_part().await?;
            self.sent().await?;
            let Some(parts) = &mut self.parts else {
                return Err(StorageError::Unavailable("the parts of an object are gone".to_owned()));
            };
            let put = within(parts.upload.complete()).await?;
            self.parts = None;
            put
        };
        Ok(ObjectInfo {
            size: self.size,
            content_type: std::mem::take(&mut self.content_type),
            sha256: Some(sha256.to_owned()),
            created_ms: system_clock()(),
            etag: etag(put.e_tag.as_deref()),
        })
    }
}

impl Drop for S3Writer {
    fn drop(&mut self) {
        if let (Some(mut parts), Ok(runtime)) = (self.parts.take(), Handle::try_current()) {
            runtime.spawn(async move {
                if let Some(sending) = parts.sending.take() {
                    sending.abort();
                }
                if let Err(error) = within(parts.upload.abort()).await {
                    tracing::warn!(%error, "parts of an object were left behind in the bucket");
                }
            });
        }
    }
}
