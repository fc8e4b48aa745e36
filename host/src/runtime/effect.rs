//! What a call lets out. Held at the output gate until the data that it rests on is durable.

use tokio::sync::oneshot;

use super::bindings::guest::syncline::host::pubsub::Publication;
use super::connection::{AfterRelease, Connection};
use super::outbox::Post;
use super::queue::{Frame, Released};
use std::sync::Arc;

/// One effect of a call.
pub(crate) enum Effect {
    /// To the subscribers of a topic.
    Publish(Publication),
    /// To one connection.
    Send { connection: u64, frame: Frame },
    /// What the call answered on its own connection.
    Outcome { connection: Arc<Connection>, call: u64, released: Released, after: AfterRelease },
    /// To a target outside; a commit that follows in the same call writes it down instead.
    Post(Post),
    /// Tells a waiting request or upgrade that its answer may leave. Dropped with the call, it tells that it may not.
    Permit(oneshot::Sender<()>),
    /// Something of the storage or the jobs, carried out in order beside the frames.
    Deferred(Deferred),
}

impl Effect {
    /// Whether it leaves with the transaction that it belongs to, though its call failed later.
    pub(crate) fn outlives_its_call(&self) -> bool {
        self.shares_fate() || matches!(self, Effect::Deferred(_))
    }

    /// Whether it is undone with the transaction or savepoint that it was made in.
    pub(crate) fn shares_fate(&self) -> bool {
        matches!(self, Effect::Publish(_) | Effect::Send { .. } | Effect::Post(_))
    }
}

/// An effect that needs IO.
#[derive(Debug)]
pub(crate) enum Deferred {
    SetKey { key: String, value: Vec<u8>, time_to_live_ms: Option<u64> },
    DeleteKey { key: String },
    DeleteObject { key: String },
    CancelJob { name: String },
    Post(Post),
}

impl Deferred {
    /// What it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Deferred::Post(post) => post.bytes(),
            Deferred::SetKey { key, value, .. } => key.len() + value.len(),
            Deferred::DeleteKey { key } | Deferred::DeleteObject { key } | Deferred::CancelJob { name: key } => key.len(),
        }
    }
}
