//! What a gateway and a Syncline under Spin say to each other.
//!
//! The gateway holds the WebSockets, the other side ("the front") calls the logic. All are POSTs of the gateway below
//! [`PREFIX`] with `Authorization: Bearer` and the shared secret; bodies are values of this crate as [`encode`] writes them,
//! of type [`CONTENT_TYPE`]:
//!
//! | path | body | answer |
//! | --- | --- | --- |
//! | [`MOUNTS`] | [`Hello`] | [`Deployment`] |
//! | [`CALLS`] | [`Calls`] | a [`CallAnswer`] for each, in order, as [`append_piece`] writes them and [`Pieces`] reads them |
//! | [`POLL`] | [`Poll`] | [`Polled`] |
//!
//! Any other status than 200 has a text for whoever runs the gateway, and says nothing about the calls: 401 the secret is
//! wrong, 404 no gateway is wanted, 400 the body cannot be read, 413 it is too large, 503 later perhaps. A trap of the logic
//! ends the whole request, so 500, or an answer that breaks off, says that the calls without an answer were perhaps made.
//!
//! The front wakes a gateway by a POST with the same `Authorization` and no body to the URL that its polls name; its path
//! is [`WOKEN`].
//!
//! # Calls
//!
//! Calls of one connection that must not overtake each other are never under way at the same time, in one batch or two.
//! The calls of a batch are made one after the other. The front may send each answer as soon as it has it.
//!
//! A call that may not be made twice ([`Invocation::is_remembered`]) has its answer remembered under its id. Sent with
//! `retry` it gets that answer; where there is none it is made with `failure` set; while it is still being made the answer is
//! [`Reply::Busy`], and the gateway asks again soon.
//!
//! # Publications
//!
//! A mount's publications stand in one row. Each answer brings those after the position that the gateway knows (`known`, or
//! where the previous answer of the same batch for the same mount ended) up to at least the last that the call made: none
//! left out, none twice. The gateway passes on those that it has not passed on before, then does what the answer says.

mod bytes;
mod calls;
mod coding;
mod deployment;
mod poll;
mod records;
#[cfg(test)]
mod tests;

pub use bytes::Bytes;
pub use calls::{Accept, CallAnswer, CallFailure, Calls, Change, Failure, Invocation, Reply, SocketCall, UpgradeResult};
pub use coding::{DecodeError, EncodeError, Pieces, append_piece, decode, encode};
pub use deployment::{Closes, Deployment, Hello, MountPlan, Route, RouteKind, SocketPlan, UpgradeAnswer, Upgrades, Watch};
pub use poll::{Held, Known, MountPublications, Poll, Polled, Published};
pub use records::{
    Alarm, Class, Close, Connection, Deliveries, Frame, Group, GroupOutcome, Header, Input, Mode, Order, Outcome, Part, Position,
    Publication, RequestHead, Response, ResponseBody, Subscription, TaskFailure, Template,
};

/// The first byte of every body. A side that meets another one refuses it with [`DecodeError::Version`].
pub const VERSION: u8 = 1;

/// Where the paths of the front begin.
pub const PREFIX: &str = "/.syncline/gateway/";
/// What the gateway asks first.
pub const MOUNTS: &str = "/.syncline/gateway/mounts";
/// Calls of the logic.
pub const CALLS: &str = "/.syncline/gateway/calls";
/// What was published, and which connections are held.
pub const POLL: &str = "/.syncline/gateway/poll";
/// Where a gateway is woken.
pub const WOKEN: &str = "/.syncline/woken";

/// The header by which the front knows a request that a gateway passes on: its value is the secret. What comes with it from
/// outside the gateway removes.
pub const GATEWAY_HEADER: &str = "x-syncline-gateway";
/// Of all bodies.
pub const CONTENT_TYPE: &str = "application/octet-stream";
/// The channels of Redis that tell of publications: this, and the mount's name. A message is the position in decimal digits.
pub const REDIS_CHANNEL_PREFIX: &str = "syncline:";

/// Bytes of a request at most: a few of the largest frames, and whatever travels with them.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Bytes of an answer at most, or of a piece of one.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Calls of one batch at most.
pub const CALLS_MAX: usize = 256;
/// How long a poll may wait at most.
pub const POLL_WAIT_MS_MAX: u32 = 20_000;
