//! What a gateway must know of a deployment.

use serde::{Deserialize, Serialize};

use crate::{Close, Frame, Position};

/// Asks for a [`Deployment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who asks: a random number of the gateway's process.
    pub gateway: u64,
}

/// The mounts of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Another one whenever anything else in here but positions may be another.
    pub revision: String,
    /// The topic of what goes to one connection (`pubsub.send`). A message is the connection as eight bytes (little-endian),
    /// 0 for text or 1 for binary, and the frame.
    pub sent_topic: String,
    /// All of them, those without sockets too.
    pub mounts: Vec<MountPlan>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Its name.
    pub name: String,
    /// The protocol.
    pub protocol: String,
    /// Where it is.
    pub path: String,
    /// What sockets need of `mounts.plan`.
    pub plan: SocketPlan,
    /// The newest position in its row of publications.
    pub position: Position,
}

/// What sockets need of `mounts.plan`, where it says what each of these means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPlan {
    /// All of them, those for requests too.
    pub routes: Vec<Route>,
    /// Largest frame of a client.
    pub max_frame_bytes: u64,
    /// The same before the first `receive`.
    pub max_frame_bytes_before_auth: u64,
    /// How often a ping is sent.
    pub ping_ms: Option<u64>,
    /// Closes after so long without a frame.
    pub idle_ms: Option<u64>,
    /// What may wait for a connection.
    pub queue_bytes: u64,
    /// Tasks at once.
    pub max_tasks: u32,
    /// Inputs in one call; 0: any number.
    pub inputs_per_call: u32,
    /// Time for a call.
    pub call_deadline_ms: u64,
    /// Time for a task; none: `call_deadline_ms`.
    pub task_ms: Option<u64>,
    /// Time for what was received when the gateway stops.
    pub drain_ms: Option<u64>,
    /// Limits of upgrades.
    pub upgrades: Upgrades,
    /// How sockets are closed.
    pub closes: Closes,
    /// Text frames that are answered at once.
    pub auto_replies: Vec<(String, String)>,
    /// What is looked at again and again.
    pub watch: Option<Watch>,
}

/// A path that a mount answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Absolute.
    pub path: String,
    /// Everything below it too.
    pub prefix: bool,
    /// What it takes.
    pub kind: RouteKind,
}

/// What a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteKind {
    /// Requests.
    Http,
    /// Upgrades.
    Socket,
    /// Both.
    Both,
}

/// Limits of upgrades, and what those get that meet them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrades {
    /// Connections in one process.
    pub max_connections: Option<u32>,
    /// Time for the call.
    pub deadline_ms: u64,
    /// Too many connections.
    pub full: UpgradeAnswer,
    /// The call failed.
    pub failed: UpgradeAnswer,
    /// It took too long.
    pub timed_out: UpgradeAnswer,
}

/// What an upgrade gets that the logic does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpgradeAnswer {
    /// A status with an empty body.
    Status(u16),
    /// 101, frames and a close.
    Close(Vec<Frame>, Close),
}

/// How sockets are closed by whoever holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closes {
    /// Too much waited.
    pub slow: Close,
    /// Nothing came.
    pub idle: Close,
    /// A frame was too large.
    pub too_large: Close,
    /// A call failed.
    pub failed: Close,
    /// The process stops.
    pub shutdown: Close,
}

/// Topics on which something may become new that nobody announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// At least one.
    pub topics: Vec<String>,
    /// The order key.
    pub key: String,
    /// How often it is asked.
    pub interval_ms: u64,
}
