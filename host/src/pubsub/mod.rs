//! `pubsub`: carries publications between processes, one file per backend.
//!
//! Within a process the host fans out by itself ([`crate::runtime::topics`]), in commit order and before any backend
//! is asked. [`PubSub`] is an embedding interface: it only has to bring publications to the other processes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::runtime::queue::{Class, Close};

pub mod memory;

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
}

/// Carries publications between processes. Correctness never rests on it: what is lost is found again by reading.
#[async_trait]
pub trait PubSub: Send + Sync + 'static {
    /// A process joins. `process` is its own number, random; publications of others reach `receiver`.
    fn attach(&self, process: u64, receiver: Arc<dyn Receiver>);
    /// A process leaves.
    fn detach(&self, process: u64);
    /// Takes a publication to the other processes, in the order of these calls. Never waits: a backend with a queue
    /// bounds it and reports in [`PubSub::ready`] when it overflows.
    fn publish(&self, process: u64, mount: &str, publication: &Publication);
    /// Whether the backend works right now (asked by `/readyz`).
    async fn ready(&self) -> Result<(), PubSubError>;
}
