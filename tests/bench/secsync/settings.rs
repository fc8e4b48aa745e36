//! How the servers of secsync are set.

use std::path::Path;
use std::rc::Rc;

use crate::server::{Launch, Rows, Server};

/// How our own server, or the peer, is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether signatures are checked.
    pub signatures: bool,
    /// Whether writes are synced to disk.
    pub durable: bool,
}

/// Signature checks are counted apart, so most cases run without.
pub const PLAIN: Settings = Settings { signatures: false, durable: true };

impl From<Settings> for Launch {
    fn from(settings: Settings) -> Self {
        let mount = format!("protocol = \"secsync\"\n[mount.settings]\nverify = {{ signatures = {} }}\n", settings.signatures);
        Self { mount, rows: if settings.durable { Rows::Sqlite } else { Rows::NotDurable } }
    }
}

impl Server {
    /// The Node peer of secsync.
    pub async fn peer(disk: &Path, settings: Settings) -> anyhow::Result<Rc<Self>> {
        Self::node(disk, "secsync.mjs", &[if settings.signatures { "check" } else { "trust" }]).await
    }
}
