//! Work that was released but is not done yet. Where there is too much of it, new calls wait: so whoever causes it is
//! slowed down, and no queue grows without end.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Pieces of work that may wait before calls do.
const PIECES_MAX: usize = 10_000;
/// Their bytes.
const BYTES_MAX: usize = 64 << 20;

/// How much waits.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pieces: AtomicUsize,
    bytes: AtomicUsize,
    shrunk: Notify,
}

impl Backlog {
    /// A piece of work waits from now on.
    pub(crate) fn add(&self, bytes: usize) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A piece of work is done.
    pub(crate) fn remove(&self, bytes: usize) {
        self.pieces.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.has_room() {
            self.shrunk.notify_waiters();
        }
    }

    /// Pieces that wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.pieces.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Waits until there is room for more.
    pub(crate) async fn room(&self) {
        wait_for(&self.shrunk, || self.has_room().then_some(())).await;
    }

    fn has_room(&self) -> bool {
        self.pieces.load(Ordering::Relaxed) < PIECES_MAX && self.bytes.load(Ordering::Relaxed) < BYTES_MAX
    }
}

/// Waits until a look gives something; `changed` says when to look again.
pub(crate) async fn wait_for<T>(changed: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        // Registered before the look, so that what happens in between is not missed.
        notified.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        notified.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn whoever_adds_too_much_waits_until_some_of_it_is_done() {
        let backlog = Arc::new(Backlog::default());
        backlog.room().await;
        backlog.add(BYTES_MAX);
        let waiting = tokio::spawn({
            let backlog = backlog.clone();
            async move { backlog.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        backlog.remove(BYTES_MAX);
        waiting.await.unwrap();
    }
}
