//! A body that is made while it is sent: pieces on their way from whoever makes them to whoever sends them. One batch waits
//! at most; so what is made follows what the client takes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// The body ends before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body was broken off")]
pub struct BrokenOff;

/// What is handed over at once.
enum Batch {
    Bytes(Vec<Bytes>),
    End,
}

/// The end that makes pieces. Dropped without [`Maker::end`] it breaks the body off.
pub(crate) struct Maker {
    batches: mpsc::Sender<Batch>,
    cut: Arc<Notify>,
}

/// The end that sends them. Dropping it tells the maker that the client is gone.
pub(crate) struct Pieces {
    batches: mpsc::Receiver<Batch>,
    taken: VecDeque<Bytes>,
    ended: bool,
    /// The maker is gone: with the next look it is over.
    breaking: bool,
}

/// The right to hand over a batch.
pub(crate) struct Room<'a>(mpsc::Permit<'a, Batch>);

impl Room<'_> {
    pub(crate) fn fill(self, pieces: Vec<Bytes>) {
        self.0.send(Batch::Bytes(pieces));
    }
}

/// Both ends of a body. `cut` is told where the client does not take the end of it: whoever has its line cuts it.
pub(crate) fn pieces(cut: Arc<Notify>) -> (Maker, Pieces) {
    let (sender, receiver) = mpsc::channel(1);
    (Maker { batches: sender, cut }, Pieces { batches: receiver, taken: VecDeque::new(), ended: false, breaking: false })
}

impl Maker {
    /// Waits until a batch can be handed over; none where the client is gone.
    pub(crate) async fn room(&self) -> Option<Room<'_>> {
        self.batches.reserve().await.ok().map(Room)
    }

    /// Waits until the client is gone.
    pub(crate) async fn gone(&self) {
        self.batches.closed().await;
    }

    /// The body is whole. A client that does not take what is left within so long is cut off; none: it is the server's to
    /// lose its patience.
    pub(crate) async fn end(self, patience: Option<Duration>) {
        let taken = async {
            // An error means that the client is gone already.
            if self.batches.send(Batch::End).await.is_ok() {
                self.batches.closed().await;
            }
        };
        match patience {
            None => taken.await,
            Some(patience) => {
                if tokio::time::timeout(patience, taken).await.is_err() {
                    self.cut.notify_one();
                }
            }
        }
    }
}

impl Pieces {
    /// The next piece; none at the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            if let Some(piece) = self.taken.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.batches.poll_recv(context)) {
                Some(Batch::Bytes(pieces)) => self.taken.extend(pieces.into_iter().filter(|piece| !piece.is_empty())),
                Some(Batch::End) => self.ended = true,
                // Whoever sends writes out what it has before it learns of this.
                None if !std::mem::replace(&mut self.breaking, true) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
            }
        }
    }

    /// As [`Pieces::poll_next`].
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_ends_whole_or_broken_off_and_one_batch_waits() {
        let (maker, mut pieces) = pieces(Arc::default());
        maker.room().await.unwrap().fill(vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"b")]);
        assert!(tokio::time::timeout(Duration::ZERO, maker.room()).await.is_err(), "one batch waits");
        assert_eq!(pieces.next().await, Some(Ok(Bytes::from_static(b"a"))));
        maker.room().await.unwrap().fill(vec![Bytes::from_static(b"c")]);
        let ending = tokio::spawn(maker.end(None));
        for expected in [b"b", b"c"] {
            assert_eq!(pieces.next().await, Some(Ok(Bytes::from_static(expected))));
        }
        assert_eq!(pieces.next().await, None);
        drop(pieces);
        ending.await.unwrap();
        let (maker, mut pieces) = super::pieces(Arc::default());
        drop(maker);
        assert_eq!(pieces.next().await, Some(Err(BrokenOff)));
        assert_eq!(pieces.next().await, None);
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_the_end_is_cut_off() {
        let cut = Arc::new(Notify::new());
        let (maker, _pieces) = pieces(cut.clone());
        maker.room().await.unwrap().fill(vec![Bytes::from_static(b"a")]);
        maker.end(Some(Duration::ZERO)).await;
        cut.notified().await;
    }
}
