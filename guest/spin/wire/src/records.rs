//! The records of the contract that travel (`wit/handler.wit`, `wit/deps/host`): there stands what they mean.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Failure};

/// A place in a mount's row of publications. 0 is before all of them.
pub type Position = u64;

/// One HTTP header.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// As received or to be sent.
    pub value: Bytes,
}

/// Without its value, which may be a credential.
impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: …", self.name)
    }
}

/// The request of an upgrade.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// In upper case.
    pub method: String,
    /// The whole path as received.
    pub path: String,
    /// What follows the `?`. May hold credentials.
    pub query: Option<String>,
    /// All of them, in order.
    pub headers: Vec<Header>,
    /// Address of the client, without a port.
    pub remote_address: String,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// Without the query, which may hold credentials.
impl fmt::Debug for RequestHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} of {}", self.method, self.path, self.remote_address)
    }
}

/// One WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

/// How a socket is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// As in RFC 6455; 1005: none is sent.
    pub code: u16,
    /// At most 123 bytes.
    pub reason: String,
}

/// The place of a publication in a row of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which row.
    pub key: String,
    /// The sequence before.
    pub after: u64,
    /// Its own.
    pub sequence: u64,
}

/// What may happen to a publication on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// A reader that cannot keep up is closed.
    MustDeliver,
    /// May be left out.
    Droppable,
    /// Replaces one of the same topic and key.
    Latest(String),
}

/// What goes to the subscribers of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its topic.
    pub topic: String,
    /// The frame, or what the logic understands.
    pub message: Bytes,
    /// Its place, if it has one.
    pub order: Option<Order>,
    /// What may happen to it.
    pub class: Class,
    /// Not for this connection.
    pub except: Option<u64>,
    /// Closes who listens.
    pub close: Option<Close>,
}

/// What is done with a publication for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The message is a text frame.
    ForwardText,
    /// The message is a binary frame.
    ForwardBinary,
    /// `deliver` is called with the groups.
    Deliver,
    /// `deliver` is called with the pairs of group and cursor.
    DeliverByCursor,
}

/// How a connection listens to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// To which.
    pub topic: String,
    /// What is done with a publication.
    pub mode: Mode,
    /// Who gets the same.
    pub group: String,
    /// A number that the gateway keeps.
    pub cursor: Option<u64>,
    /// What others see of it. The front keeps it; a gateway has no use for it.
    pub presence: Option<Bytes>,
}

/// A connection as a call gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// As at its upgrade.
    pub id: u64,
    /// Opaque.
    pub attachment: Bytes,
    /// By topic.
    pub cursors: Vec<(String, u64)>,
    /// How this very call just failed.
    pub failure: Option<Failure>,
}

/// A task without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// What it got.
    pub work: Bytes,
    /// How it failed.
    pub failure: Failure,
}

/// Something that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A message of the client.
    Frame(Frame),
    /// The alarm.
    Wake,
    /// The client has taken most.
    Drained,
    /// The result of a task.
    TaskDone(Bytes),
    /// A task failed.
    TaskFailed(TaskFailure),
}

/// What becomes of the alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alarm {
    /// As it is.
    Keep,
    /// None.
    Stop,
    /// After so many milliseconds.
    AfterMs(u64),
}

/// What is to happen on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// For the client.
    pub send: Vec<Frame>,
    /// The new one.
    pub attachment: Option<Bytes>,
    /// Closes after `send`.
    pub close: Option<Close>,
    /// Cut-offs, by order key.
    pub seen: Vec<(String, u64)>,
    /// Cursors to set, by topic.
    pub cursors: Vec<(String, u64)>,
    /// What becomes of the alarm.
    pub alarm: Alarm,
    /// Ask for `drained`.
    pub pace: bool,
    /// To be called beside the frames.
    pub tasks: Vec<Bytes>,
    /// The first input that was not handled, and a delay in milliseconds.
    pub defer: Option<(u32, u64)>,
    /// Publications wait so long.
    pub quiet_ms: Option<u64>,
}

/// The answer to an upgrade that stays HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// As in HTTP.
    pub status: u16,
    /// In order.
    pub headers: Vec<Header>,
    /// What follows them.
    pub body: ResponseBody,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseBody {
    /// None.
    Empty,
    /// These.
    Bytes(Bytes),
}

/// A frame with places for the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// These bytes.
    Bytes(Bytes),
    /// In decimal digits.
    CursorDecimal,
    /// As unsigned LEB128.
    CursorVarint,
}

/// A frame for a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Else text.
    pub binary: bool,
    /// One after the other.
    pub parts: Vec<Part>,
    /// The cursor once it is sent.
    pub cursor_after: Option<u64>,
    /// The alarm goes off no later than so.
    pub alarm_after_ms: Option<u64>,
}

/// Subscribers that get the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// As in their subscriptions.
    pub name: String,
    /// Theirs, with `deliver-by-cursor`.
    pub cursor: Option<u64>,
}

/// What a group gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOutcome {
    /// Nothing.
    Skip,
    /// Indexes of `frames`.
    Send(Vec<u32>),
    /// The cursor moves.
    Advance(u64),
    /// No longer subscribed; closed too, where it says so.
    Leave(Option<(Frame, Close)>),
}

/// What a publication becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deliveries {
    /// Those that the outcomes name.
    pub frames: Vec<Template>,
    /// One per group, in the order given.
    pub outcomes: Vec<GroupOutcome>,
}
