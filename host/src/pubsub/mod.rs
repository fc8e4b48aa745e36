//! `pubsub`: carries publications between processes, one file per backend.
//!
//! Within a process the host fans out by itself ([`crate::runtime::topics`]), in commit order and before any backend
//! is asked. [`PubSub`] is an embedding interface: it only has to bring publications to the other processes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::runtime::OWN_NAME;
pub use crate::runtime::queue::{Class, Close};

pub mod memory;
pub mod postgres;

/// The place of a publication in a row of them (`wit/deps/host/pubsub.wit`, `order`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which row.
    pub key: String,
    /// The sequence before this one.
    pub after: u64,
    /// Grows by commit order under the key.
    pub sequence: u64,
}

/// What goes to the subscribers of a topic (`wit/deps/host/pubsub.wit`, `publication`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic, private to the mount.
    pub topic: String,
    /// The frame itself, or whatever the component understands.
    pub message: Bytes,
    /// Its place.
    pub order: Option<Order>,
    /// What may happen to it on the way.
    pub class: Class,
    /// Not delivered to this connection.
    pub except: Option<u64>,
    /// Closes every subscriber once the message has been sent.
    pub close: Option<Close>,
}

/// A publication that a backend sends to itself. To be received by a receiver that is attached for it, under a process
/// number of its own.
pub struct Probe {
    publication: Publication,
    back: Mutex<Option<oneshot::Sender<()>>>,
}

impl Probe {
    /// A probe that no other is taken for, and what tells that it is back.
    pub fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (back, arrived) = oneshot::channel();
        let topic = format!("probe-{:032x}", rand::random::<u128>());
        let message = Bytes::from_static(b"probe");
        let publication = Publication { topic, message, order: None, class: Class::MustDeliver, except: None, close: None };
        (Arc::new(Self { publication, back: Mutex::new(Some(back)) }), arrived)
    }

    /// The mount that it is published for; none has this name.
    pub fn mount(&self) -> &'static str {
        OWN_NAME
    }

    /// What is to be published.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }
}

impl Receiver for Probe {
    fn receive(&self, mount: &str, publication: Publication) {
        if mount == OWN_NAME
            && publication == self.publication
            && let Some(back) = self.back.lock().take()
        {
            // Whoever waited may have given up.
            let _ = back.send(());
        }
    }

    // Whoever waits for it gives up in time.
    fn missed(&self) {}
}

/// Sends a probe through a backend, and returns when it is back.
async fn probed(pubsub: &dyn PubSub) -> Result<(), PubSubError> {
    let (probe, back) = Probe::new();
    let (there, here) = (rand::random(), rand::random());
    pubsub.attach(there, probe.clone());
    let _leaves = Leaves { pubsub, process: there };
    pubsub.publish(here, probe.mount(), probe.publication());
    back.await.map_err(|_| PubSubError::Unavailable("a publication did not come back".into()))
}

/// Detaches a receiver when it is dropped, also where nobody waits for its end.
struct Leaves<'a> {
    pubsub: &'a dyn PubSub,
    process: u64,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.pubsub.detach(self.process);
    }
}

/// Why a backend does not work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PubSubError {
    /// Away, or broken.
    #[error("the pubsub backend is unavailable: {0}")]
    Unavailable(String),
}

/// A process that publications of others are brought to.
pub trait Receiver: Send + Sync {
    /// A publication of another process. Returns soon.
    fn receive(&self, mount: &str, publication: Publication);
    /// Publications of other processes may have been lost before now. Returns soon.
    fn missed(&self);
}

/// Carries publications between processes. Correctness never rests on it: what is lost is found again by reading. A
/// backend that may have lost some says so to all receivers ([`Receiver::missed`]), so that they look.
#[async_trait]
pub trait PubSub: Send + Sync + 'static {
    /// A process joins. `process` is its own number, random; publications of others reach `receiver`.
    fn attach(&self, process: u64, receiver: Arc<dyn Receiver>);
    /// A process leaves.
    fn detach(&self, process: u64);
    /// Takes a publication to the other processes, in the order of these calls. Never waits: a backend with a queue
    /// bounds it and reports in [`PubSub::ready`] when it overflows.
    fn publish(&self, process: u64, mount: &str, publication: &Publication);
    /// Whether the backend works right now (asked by `/readyz`): a publication of its own comes back on the way that
    /// others take, see [`Probe`], and no queue has overflowed. The host bounds the wait.
    async fn ready(&self) -> Result<(), PubSubError>;
    /// Whether other operating-system processes may publish here: then publications may come in another order than that in which
    /// they were published, and the host looks for what is missing.
    fn is_shared(&self) -> bool {
        true
    }
    /// The host stops: returns when everything that was published has left. The host bounds the wait.
    async fn flush(&self) {}
}
