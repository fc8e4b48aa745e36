//! What was published meanwhile.

use serde::{Deserialize, Serialize};

use crate::{Position, Publication};

/// Asks for what is new, and waits a while for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Who asks: a random number of the gateway's process.
    pub gateway: u64,
    /// The revision of the deployment that the gateway knows. Where another one serves the poll is answered at once.
    pub revision: String,
    /// Of which mounts.
    pub mounts: Vec<Known>,
    /// Connections whose presence is to be kept; at most every 30 s, else empty.
    pub held: Vec<Held>,
    /// How long to wait where nothing is new, at most [`crate::POLL_WAIT_MS_MAX`].
    pub wait_ms: u32,
    /// Where the gateway is woken; such a poll need not wait.
    pub callback: Option<String>,
}

/// A mount, and up to where its publications are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub mount: String,
    /// Everything up to here was passed on.
    pub position: Position,
}

/// Connections of a mount that the gateway holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its name.
    pub mount: String,
    /// All of them.
    pub connections: Vec<u64>,
}

/// The answer to a [`Poll`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled {
    /// The revision that serves now.
    pub revision: String,
    /// Of the mounts that were asked about and that are there; those without anything new may be left out.
    pub mounts: Vec<MountPublications>,
}

/// What is new of one mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPublications {
    /// Its name.
    pub mount: String,
    /// What was published.
    pub published: Published,
}

/// A stretch of a mount's row of publications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// In order, with their positions.
    pub publications: Vec<(Position, Publication)>,
    /// The stretch ends here: ask after this the next time. Never before the position that was asked after.
    pub next: Position,
    /// Some before the stretch are gone.
    pub missed: bool,
}
