//! Connections that are gone while what they sent is still being handled.
//!
//! A client that comes back reads what is there, and would take for somebody else's what its own dead connection brings
//! about afterwards. So an upgrade waits for those that leave its path.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::backlog::wait_for;

/// Connections that leave, by the path they were made at.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    by_path: Mutex<HashMap<String, HashSet<u64>>>,
    left: Notify,
}

/// A connection leaves for as long as this lives.
pub(crate) struct Leaves {
    leaving: Arc<Leaving>,
    path: String,
    connection: u64,
}

impl Leaving {
    /// A connection begins to leave.
    pub(crate) fn begin(self: &Arc<Self>, path: &str, connection: u64) -> Leaves {
        self.by_path.lock().entry(path.to_owned()).or_default().insert(connection);
        Leaves { leaving: self.clone(), path: path.to_owned(), connection }
    }

    /// Waits, for so long at most, until everybody has left who leaves a path now.
    pub(crate) async fn wait(&self, path: &str, patience: Duration) {
        let Some(leaving) = self.by_path.lock().get(path).cloned() else { return };
        let have_left = || self.by_path.lock().get(path).is_none_or(|others| others.is_disjoint(&leaving)).then_some(());
        // Whoever is still there then cannot keep others away.
        let _ = tokio::time::timeout(patience, wait_for(&self.left, have_left)).await;
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let mut by_path = self.leaving.by_path.lock();
        if let Some(others) = by_path.get_mut(&self.path) {
            others.remove(&self.connection);
            if others.is_empty() {
                by_path.remove(&self.path);
            }
        }
        drop(by_path);
        self.leaving.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_waits_for_those_that_leave_its_path_then_and_no_longer_than_it_may() {
        let leaving = Arc::new(Leaving::default());
        leaving.wait("/a", PATIENCE).now_or_never().expect("nobody leaves");
        let (first, second) = (leaving.begin("/a", 1), leaving.begin("/a", 2));
        leaving.wait("/b", PATIENCE).now_or_never().expect("nobody leaves there");
        let waiting = tokio::spawn({
            let leaving = leaving.clone();
            async move { leaving.wait("/a", PATIENCE).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "one is left");
        let third = leaving.begin("/a", 3);
        drop(second);
        let begun = tokio::time::Instant::now();
        waiting.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "who began to leave later is not waited for");
        leaving.wait("/a", PATIENCE).await;
        assert_eq!(begun.elapsed(), PATIENCE, "it does not wait without end");
        drop(third);
        assert!(leaving.by_path.lock().is_empty());
    }
}
