//! Calls of the logic, and their answers.

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, Connection, Deliveries, Group, Header, Input, Outcome, Position, Publication, Published, RequestHead, Response, Subscription,
};

/// A batch of calls, at most [`crate::CALLS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Who asks: a random number of the gateway's process.
    pub gateway: u64,
    /// To be made one after the other.
    pub calls: Vec<SocketCall>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketCall {
    /// No other call has it, of this gateway or another. A call that is sent again keeps it.
    pub id: u128,
    /// The mount's name.
    pub mount: String,
    /// The gateway has passed on the mount's publications up to here.
    pub known: Position,
    /// It was sent before, and the answer did not come: perhaps it was made.
    pub retry: bool,
    /// Every request that carried it before has ended, for sure: it is not being made any more.
    pub ended: bool,
    /// What is called.
    pub invocation: Invocation,
}

/// What is called, as in the interface `socket` of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invocation {
    /// `upgrade`: [`Reply::Upgrade`].
    Upgrade {
        /// The id of what is to be a connection.
        connection: u64,
        /// Its request.
        head: RequestHead,
    },
    /// `receive`: [`Reply::Outcome`].
    Receive {
        /// Which.
        connection: Connection,
        /// What happened.
        inputs: Vec<Input>,
    },
    /// `task`: [`Reply::Task`].
    Task {
        /// Whose.
        connection: Connection,
        /// What it is about.
        work: Bytes,
    },
    /// `closed`: [`Reply::Done`].
    Closed {
        /// Which.
        connection: Connection,
        /// How.
        code: u16,
    },
    /// `deliver`: [`Reply::Deliveries`].
    Deliver {
        /// What was published.
        publication: Publication,
        /// Who is to get it.
        groups: Vec<Group>,
    },
    /// `refill`: [`Reply::Publications`].
    Refill {
        /// The topic.
        topic: String,
        /// The order key.
        key: String,
        /// After which sequence.
        after: u64,
    },
}

impl Invocation {
    /// Whether it may not be made twice, so that its answer is remembered.
    pub fn is_remembered(&self) -> bool {
        !matches!(self, Self::Deliver { .. } | Self::Refill { .. })
    }
}

/// How a call failed, as in `live.failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// It trapped.
    Trapped,
    /// It took longer than its deadline.
    TimedOut,
}

/// The answer to one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAnswer {
    /// The call's.
    pub id: u128,
    /// What the logic answered.
    pub reply: Reply,
    /// What it subscribed to, or not any more, in the order of its calls.
    pub changes: Vec<Change>,
    /// The mount's publications: to be passed on before anything of the reply is done.
    pub published: Published,
    /// Up to here the mount's publications came before what the call did, and later ones after it. None: it is not known.
    pub through: Option<Position>,
}

/// What the logic answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Invocation::Upgrade`].
    Upgrade(UpgradeResult),
    /// To [`Invocation::Receive`].
    Outcome(Outcome),
    /// To [`Invocation::Task`].
    Task(Bytes),
    /// To [`Invocation::Closed`].
    Done,
    /// To [`Invocation::Deliver`].
    Deliveries(Deliveries),
    /// To [`Invocation::Refill`].
    Publications(Vec<Publication>),
    /// It gave no answer, and is not to be sent again.
    Failed(CallFailure),
    /// The call was sent before and is still being made: it is to be sent again, soon.
    Busy,
}

/// Why a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallFailure {
    /// It failed otherwise, as often as the contract has it tried.
    Failed,
    /// It took longer than its deadline.
    TimedOut,
    /// What it wrote could not be made durable, or a database could not be reached.
    NotDurable,
    /// There is no such mount (any more).
    NoMount,
}

/// The answer to an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpgradeResult {
    /// The connection lives.
    Accept(Box<Accept>),
    /// It stays HTTP.
    Refuse(Response),
}

/// 101.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// One of those offered, or none.
    pub subprotocol: Option<String>,
    /// Besides those of the handshake.
    pub headers: Vec<Header>,
    /// First frames, and the attachment.
    pub start: Outcome,
}

/// What changed for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It listens, to what stands after the position.
    Subscribed {
        /// Who.
        connection: u64,
        /// How.
        subscription: Subscription,
        /// From where.
        position: Position,
    },
    /// It does not listen any more.
    Unsubscribed {
        /// Who.
        connection: u64,
        /// To what.
        topic: String,
    },
}
