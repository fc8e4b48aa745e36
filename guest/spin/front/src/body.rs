//! The body of a request: read into memory, or past the logic into an object; no slower than it must come.

use crate::bindings::syncline::spin::adapter::UploadFailure;
use crate::bindings::syncline::sync::http::{BodyFailure, BodyIn, Stored, Upload};
use crate::ports::{Adapter, Clock, Exchange, Unread};

/// How long nothing may come.
const STALL_MS: u64 = 60_000;
/// What must come at least, after that time, on average.
const BYTES_PER_SECOND_MIN: u64 = 1024;

/// A body on its way in.
pub(crate) struct Body<'a, X, C> {
    exchange: &'a mut X,
    clock: &'a C,
    began_ms: u64,
    bytes: u64,
}

impl<'a, X: Exchange, C: Clock> Body<'a, X, C> {
    pub(crate) fn new(exchange: &'a mut X, clock: &'a C) -> Self {
        let began_ms = clock.now_ms();
        Self { exchange, clock, began_ms, bytes: 0 }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Unread> {
        let allowed_ms = (self.bytes / BYTES_PER_SECOND_MIN).saturating_mul(1000).saturating_add(STALL_MS);
        let taken_ms = self.clock.now_ms().saturating_sub(self.began_ms);
        let patience_ms = allowed_ms.saturating_sub(taken_ms).min(STALL_MS);
        if patience_ms == 0 {
            return Err(Unread::TooSlow);
        }
        let piece = self.exchange.read(patience_ms).await?;
        self.bytes = self.bytes.saturating_add(piece.as_ref().map_or(0, Vec::len) as u64);
        Ok(piece)
    }

    /// Reads it into memory; it may have so many bytes, of which so many are announced.
    pub(crate) async fn read_inline(mut self, bytes_max: u64, announced_bytes: Option<u64>) -> Result<BodyIn, Unread> {
        if announced_bytes.is_some_and(|bytes| bytes > bytes_max) {
            return Ok(BodyIn::Failed(BodyFailure::TooLarge));
        }
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            if self.bytes > bytes_max {
                return Ok(BodyIn::Failed(BodyFailure::TooLarge));
            }
            body.extend_from_slice(&piece);
        }
        Ok(if body.is_empty() { BodyIn::Empty } else { BodyIn::Bytes(body) })
    }

    /// Reads it into an object.
    pub(crate) async fn read_object(
        mut self,
        adapter: &dyn Adapter,
        mount: &str,
        wanted: Upload,
        announced_bytes: Option<u64>,
    ) -> Result<BodyIn, Unread> {
        let Upload { key, content_type, sha256, max_bytes } = wanted;
        if announced_bytes.is_some_and(|bytes| bytes > max_bytes) {
            return Ok(BodyIn::Failed(BodyFailure::TooLarge));
        }
        let upload = adapter.upload(mount, &key, &content_type, sha256.as_deref(), max_bytes);
        while let Some(piece) = self.next().await? {
            if let Err(failure) = upload.write(&piece) {
                return Ok(BodyIn::Failed(body_failure(failure)));
            }
        }
        Ok(match upload.finish() {
            Ok(stored) => BodyIn::Stored(Stored { key, size: stored.size, sha256: stored.sha256, existed: stored.existed }),
            Err(failure) => BodyIn::Failed(body_failure(failure)),
        })
    }
}

fn body_failure(failure: UploadFailure) -> BodyFailure {
    match failure {
        UploadFailure::TooLarge => BodyFailure::TooLarge,
        UploadFailure::WrongHash => BodyFailure::WrongHash,
        UploadFailure::Unavailable => BodyFailure::Unavailable,
    }
}
