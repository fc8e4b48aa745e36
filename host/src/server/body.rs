//! The body of an answer: whole, or made while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};

use super::limiter::AddressPermit;
use crate::runtime::{BrokenOff, Pieces};

/// See the module.
pub(crate) enum Body {
    Whole(Full<Bytes>),
    /// With the client's place among those of its address.
    Pieces {
        pieces: Pieces,
        /// In bytes, where it is known.
        length: Option<u64>,
        _place: Option<AddressPermit>,
    },
    /// As another server sends it, with the client's place among those of its address.
    Passed {
        incoming: Incoming,
        /// It ends here, whether the other server goes on or not.
        until: Option<BoxFuture<'static, ()>>,
        _place: Option<AddressPermit>,
    },
    /// So many bytes that are not sent, since the request was HEAD.
    Unsent(u64),
}

impl Default for Body {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context).map_err(|never| match never {}),
            Self::Pieces { pieces, .. } => pieces.poll_next(context).map_ok(Frame::data),
            Self::Passed { incoming, until, .. } => {
                if until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready()) {
                    *until = Some(Box::pin(std::future::ready(())));
                    return Poll::Ready(None);
                }
                Pin::new(incoming).poll_frame(context).map_err(|error| {
                    tracing::debug!(%error, "an answer was broken off upstream");
                    BrokenOff
                })
            }
            Self::Unsent(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Passed { incoming, .. } => incoming.is_end_stream(),
            Self::Pieces { .. } | Self::Unsent(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pieces { length: Some(length), .. } | Self::Unsent(length) => SizeHint::with_exact(*length),
            Self::Passed { incoming, .. } => incoming.size_hint(),
            Self::Pieces { length: None, .. } => SizeHint::default(),
        }
    }
}
