//! The bytes that may wait in the queues of all connections of a mount together. What waits is counted once, however many
//! queues it waits in, and until its memory is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::backlog::wait_for;
use super::queue::Frame;

/// How long the host may read from nobody before whoever holds most is closed, though the budget is not used up: it might
/// never be given back.
pub(crate) const TIGHT_PATIENCE: Duration = Duration::from_secs(2);
/// How long there is no such patience any more once it was in vain: whoever does this on purpose does it again.
pub(crate) const IMPATIENCE: Duration = Duration::from_secs(60);

/// The budget of a mount.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// It became tight.
    tight: Notify,
    /// It is not tight any more.
    roomy: Notify,
}

impl Default for Budget {
    fn default() -> Self {
        Self { limit: AtomicUsize::new(usize::MAX), used: AtomicUsize::new(0), tight: Notify::new(), roomy: Notify::new() }
    }
}

impl Budget {
    /// Sets the limit in bytes.
    pub(crate) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.roomy.notify_waiters();
    }

    /// Bytes that wait.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may wait.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether so much waits that nothing more should be read: three quarters, so that what was read before has room.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.tight_at()
    }

    fn tight_at(&self) -> usize {
        let limit = self.limit();
        limit - limit / 4
    }

    /// Counts bytes for as long as the charge lives.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge { budget: self.clone(), bytes: 0 };
        charge.resize(bytes);
        charge
    }

    /// Counts bytes until the last copy of them is gone.
    pub(crate) fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { _charge: self.charge(bytes.len()), bytes })
    }

    /// Counts the payload of a frame until its last copy is gone.
    pub(crate) fn hold_frame(self: &Arc<Self>, frame: Frame) -> Frame {
        match frame {
            Frame::Text(bytes) => Frame::Text(self.hold(bytes)),
            Frame::Binary(bytes) => Frame::Binary(self.hold(bytes)),
        }
    }

    /// Waits until it is tight.
    pub(crate) async fn tight(&self) {
        wait_for(&self.tight, || self.is_tight().then_some(())).await;
    }

    /// Waits until it is not tight.
    pub(crate) async fn roomy(&self) {
        wait_for(&self.roomy, || (!self.is_tight()).then_some(())).await;
    }
}

/// Bytes that are counted.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// There are more of them, or fewer.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let Budget { used, tight, roomy, .. } = &*self.budget;
        let tight_at = self.budget.tight_at();
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = used.fetch_add(more, Ordering::Relaxed);
            if before <= tight_at && before + more > tight_at {
                tight.notify_waiters();
            }
        } else if bytes < self.bytes {
            let fewer = self.bytes - bytes;
            let before = used.fetch_sub(fewer, Ordering::Relaxed);
            if before > tight_at && before - fewer <= tight_at {
                roomy.notify_waiters();
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.resize(0);
    }
}

struct Held {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_and_until_the_last_copy_is_gone() {
        let budget = Arc::new(Budget::default());
        let first = budget.hold(Bytes::from_static(b"12345678"));
        let copies: Vec<Bytes> = (0..100).map(|_| first.clone()).collect();
        let part = first.slice(2..4);
        assert_eq!((budget.used(), &first[..]), (8, &b"12345678"[..]));
        drop((first, copies));
        assert_eq!(budget.used(), 8, "a part keeps the whole");
        drop(part);
        assert_eq!(budget.used(), 0);
        let mut charge = budget.charge(10);
        charge.resize(3);
        assert_eq!(budget.used(), 3);
        charge.resize(30);
        assert_eq!(budget.used(), 30);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_hears_when_it_becomes_tight_and_when_there_is_room_again() {
        let budget = Arc::new(Budget::default());
        budget.set_limit(100);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.tight().await }
        });
        tokio::task::yield_now().await;
        let (first, second) = (budget.charge(75), budget.charge(1));
        waiting.await.unwrap();
        assert!(budget.is_tight());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.roomy().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        drop(first);
        budget.set_limit(usize::MAX);
        assert!(!budget.is_tight());
    }
}
