//! Where blocking work runs: on the runtime's threads for blocking calls, or wherever an embedding program (the
//! simulator) wants it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::executor::DatabaseName;

/// Work that blocks.
pub type Work = Box<dyn FnOnce() + Send>;

/// Brings a group to its end, COMMIT and sync included; what it gives then tells those who rest on the group, and lets
/// the next one begin.
pub type Flush = Box<dyn FnOnce() -> Work + Send>;

/// Takes blocking work from a [`super::SqliteExecutor`]. Work that is dropped instead of done fails whoever waits for it.
pub trait Worker: Send + Sync + 'static {
    /// Opening and closing files, in any order.
    fn run(&self, work: Work);

    /// The end of a group. A database asks for one at a time, and takes no transaction until it is over.
    fn flush(&self, database: &DatabaseName, flush: Flush);
}

/// The runtime, with the worker that takes its blocking work where there is one.
#[derive(Clone)]
pub(super) struct Threads {
    pub(super) runtime: Handle,
    pub(super) worker: Option<Arc<dyn Worker>>,
}

/// The work was not done: the host is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the work was dropped")]
pub(super) struct Dropped;

/// The result of work that runs elsewhere. Dropping it does not stop the work.
pub(super) enum Pending<T> {
    Thread(JoinHandle<T>),
    Worker(oneshot::Receiver<T>),
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Dropped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Thread(handle) => Pin::new(handle).poll(context).map_err(|_| Dropped),
            Self::Worker(receiver) => Pin::new(receiver).poll(context).map_err(|_| Dropped),
        }
    }
}

impl Threads {
    /// Starts blocking work.
    pub(super) fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
        match &self.worker {
            None => Pending::Thread(self.runtime.spawn_blocking(work)),
            Some(worker) => {
                let (sender, receiver) = oneshot::channel();
                // Whoever waited may have gone.
                worker.run(Box::new(move || drop(sender.send(work()))));
                Pending::Worker(receiver)
            }
        }
    }

    /// Starts the end of a group.
    pub(super) fn flush<W: FnOnce() + Send + 'static>(&self, database: &DatabaseName, flush: impl FnOnce() -> W + Send + 'static) {
        match &self.worker {
            None => drop(self.runtime.spawn_blocking(move || flush()())),
            Some(worker) => worker.flush(database, Box::new(move || Box::new(flush()))),
        }
    }

    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }
}
