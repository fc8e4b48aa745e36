//! What goes through the queues of a connection: frames, publications, and what a call lets out.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// A WebSocket message, shared between all that get the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Frame {
    /// The payload, of either kind.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Frame::Text(bytes) | Frame::Binary(bytes) => bytes,
        }
    }

    /// Payload bytes.
    pub fn len(&self) -> usize {
        match self {
            Frame::Text(bytes) | Frame::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code; 1005 for a close frame without one.
    pub code: u16,
    /// The reason, up to 123 bytes.
    pub reason: String,
}

/// What may be left out or merged when a reader cannot keep up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never left out.
    MustDeliver,
    /// Left out first, oldest first.
    Droppable,
    /// Replaces one with the same topic and key that still waits.
    Latest(String),
}

/// Frames of a publication that the component is still encoding.
pub type Slot = Arc<OnceLock<Filled>>;

/// What the component made of a publication for one subscriber.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Frames, in order.
    pub frames: Vec<Frame>,
    /// Closes once they are sent.
    pub close: Option<Close>,
}

impl Filled {
    /// Payload bytes.
    pub fn len(&self) -> usize {
        self.frames.iter().map(Frame::len).sum()
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// What a subscriber is to get.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One frame.
    Frame(Frame),
    /// Whatever the slot is filled with.
    Slot(Slot),
    /// Nothing: the publication only closes.
    Nothing,
}

impl Payload {
    /// Bytes; of a slot, those that it is filled with.
    pub(super) fn len(&self) -> usize {
        match self {
            Payload::Frame(frame) => frame.len(),
            Payload::Slot(slot) => slot.get().map_or(0, Filled::len),
            Payload::Nothing => 0,
        }
    }
}

/// A publication on its way to this connection.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What is the same for all who get it.
    pub heading: Arc<Heading>,
    /// Its content.
    pub payload: Payload,
}

/// What is known of a publication beside its content. Shared: a copy for each reader would be most of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Its topic.
    pub topic: String,
    /// Order key and sequence.
    pub order: Option<(String, u64)>,
    /// Its class.
    pub class: Class,
    /// Closes the connection once the payload is sent.
    pub close: Option<Close>,
    /// Its place in the one row of all publications, where there is one: behind a gateway.
    pub position: Option<u64>,
}

/// The released part of a call's outcome.
#[derive(Clone, Debug, Default)]
pub struct Released {
    /// Frames, in order.
    pub send: Vec<Frame>,
    /// Cut-offs.
    pub seen: Vec<(String, u64)>,
    /// Close after the frames.
    pub close: Option<Close>,
    /// Ask for `drained` once most is taken.
    pub pace: bool,
    /// Publications wait until [`super::ConnectionQueue::end_quiet`].
    pub quiet: bool,
}
