//! The body of a request: read into memory, or past the component into an object; no faster than the client may send and no
//! slower than it must.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::limiter::Flow;
use super::rate::Pace;
use crate::runtime::http::{BodyFailure, BodyIn, Upload};
use crate::runtime::{Charge, MountCore};
use crate::storage::PIECE_BYTES;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It came too slowly.
    #[error("the body came too slowly")]
    TooSlow,
    /// Its chunks are none, or the client went away, whom no answer reaches.
    #[error("the body was broken off")]
    Broken,
}

/// A body on its way in.
pub(crate) struct IncomingBody {
    body: Incoming,
    flow: Arc<Flow>,
    pace: Pace,
}

impl IncomingBody {
    pub(crate) fn new(body: Incoming, flow: &Arc<Flow>) -> Self {
        Self { body, pace: Pace::new(flow.now(), flow.stall_timeout()), flow: flow.clone() }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let flow = self.flow.clone();
        if !flow.wait().is_zero() {
            flow.room().await;
            self.pace.pause(flow.now());
        }
        let patience = self.pace.deadline().saturating_sub(flow.now());
        let Ok(frame) = tokio::time::timeout(patience, self.body.frame()).await else { return Err(Unread::TooSlow) };
        let data = match frame {
            None => return Ok(None),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return Err(Unread::Broken),
        };
        let count = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.pace.received(flow.now(), count);
        flow.take(0, count);
        Ok(Some(data))
    }

    /// Reads it into memory; it may have so many bytes.
    pub(super) async fn read_inline(mut self, bytes_max: u64, held: &mut Charge) -> Result<BodyIn, Unread> {
        if self.body.size_hint().lower() > bytes_max {
            return Ok(BodyIn::Failed(BodyFailure::TooLarge));
        }
        let mut bytes = Vec::new();
        while let Some(data) = self.next().await? {
            if u64::try_from(bytes.len() + data.len()).unwrap_or(u64::MAX) > bytes_max {
                return Ok(BodyIn::Failed(BodyFailure::TooLarge));
            }
            bytes.extend_from_slice(&data);
            held.resize(bytes.len());
        }
        Ok(if bytes.is_empty() { BodyIn::Empty } else { BodyIn::Bytes(bytes) })
    }

    /// Reads it into an object.
    pub(super) async fn read_object(mut self, mount: &Arc<MountCore>, wanted: Upload, held: &mut Charge) -> Result<BodyIn, Unread> {
        let mut upload = match mount.begin_upload(wanted, self.body.size_hint().lower()).await {
            Ok(upload) => upload,
            Err(failure) => return Ok(BodyIn::Failed(failure)),
        };
        self.pace.pause(self.flow.now());
        // One batch is written while the next one comes.
        held.resize(2 * PIECE_BYTES);
        while let Some(data) = self.next().await? {
            let before = self.flow.now();
            if let Err(failure) = upload.write(data).await {
                return Ok(BodyIn::Failed(failure));
            }
            self.pace.excuse(self.flow.now().saturating_sub(before));
        }
        Ok(upload.finish().await.map_or_else(BodyIn::Failed, BodyIn::Stored))
    }
}
