//! What the run time stands on here: no databases, and nobody to publish to. What a mount keeps is kept upstream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use syncline_spin_wire as wire;

use super::upstream::Upstream;
use crate::executor::{Database, DatabaseInfo, DatabaseName, Dialect, Executor, ExecutorError, GroupObserver, Snapshot, Transaction};
use crate::pubsub::{PubSub, PubSubError, Publication, Receiver};
use crate::runtime::Backends;
use crate::storage::Storage;
use crate::storage::memory::{MemoryKeyValue, MemoryObjects};

/// What was heard of the deployment so long ago says nothing of the present.
const OLD: Duration = Duration::from_secs(10);
/// Time for an answer when it is asked for that only.
const PATIENCE: Duration = Duration::from_secs(1);

/// The backends of a gateway.
pub(super) fn backends(upstream: Arc<Upstream>) -> Backends {
    Backends {
        executor: Arc::new(NoDatabases),
        storage: Storage { objects: Arc::new(MemoryObjects::new()), keyvalue: Arc::new(MemoryKeyValue::new()) },
        pubsub: Arc::new(Deployment(upstream)),
    }
}

struct NoDatabases;

fn none_here() -> ExecutorError {
    ExecutorError::Unavailable("a gateway has no databases".into())
}

#[async_trait]
impl Executor for NoDatabases {
    async fn open(&self, _name: &DatabaseName, _observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError> {
        Ok(Arc::new(Self))
    }

    async fn ready(&self) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn close(&self) {}
}

#[async_trait]
impl Database for NoDatabases {
    fn info(&self) -> DatabaseInfo {
        DatabaseInfo { dialect: Dialect::Sqlite, table_prefix: String::new() }
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError> {
        Err(none_here())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError> {
        Err(none_here())
    }
}

/// The deployment, as that which brings publications. They come with their positions, past [`Receiver`]: see `feed.rs`.
struct Deployment(Arc<Upstream>);

#[async_trait]
impl PubSub for Deployment {
    fn attach(&self, _process: u64, _receiver: Arc<dyn Receiver>) {}

    fn detach(&self, _process: u64) {}

    fn publish(&self, _process: u64, _mount: &str, _publication: &Publication) {}

    async fn ready(&self) -> Result<(), PubSubError> {
        if self.0.problem().is_none() && self.0.is_older_than(OLD) {
            let asked = self.0.ask::<_, wire::Deployment>(wire::MOUNTS, &wire::Hello { gateway: 0 }, PATIENCE).await;
            self.0.reached(asked.as_ref().map(|_| ()));
        }
        self.0.problem().map_or(Ok(()), |problem| Err(PubSubError::Unavailable(format!("the deployment: {problem}"))))
    }

    /// They come in one row, in order and without gaps.
    fn is_shared(&self) -> bool {
        false
    }
}
