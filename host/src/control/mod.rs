//! The control socket of a running server: `control.sock` in its data folder, for its owner alone.
//!
//! A client sends one JSON object on one line ([`Command`]) and gets one back ([`Answer`]). Going away calls a backup
//! off.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::MountStatus;
use crate::server::Listening;

mod client;
mod server;

pub use client::{ControlError, ask};
pub use server::{ControlServer, Controlled, Reload};

/// Name of the socket in the data folder.
pub const SOCKET: &str = "control.sock";
/// Holds the time of the last backup, in milliseconds since 1970, in the data folder.
pub const LAST_BACKUP: &str = "last-backup";

/// The longest command or answer, bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// The longest path that a socket can be bound to or reached at, bytes.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// What a server can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How it is.
    Status,
    /// Takes over a changed configuration.
    Reload,
    /// Makes a backup.
    Backup {
        /// The folder, as a whole path.
        to: PathBuf,
    },
}

/// What a server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it did what it was asked.
    pub ok: bool,
    /// Why not, one line a problem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What it did, one line a step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report: Vec<String>,
    /// To [`Command::Status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl Answer {
    /// It did what it was asked.
    pub fn done(report: Vec<String>) -> Self {
        Self { ok: true, report, ..Self::default() }
    }

    /// It did not.
    pub fn refused(problems: Vec<String>) -> Self {
        Self { ok: false, problems, ..Self::default() }
    }
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Number of the process.
    pub process_id: u32,
    /// Since its start.
    pub uptime_ms: u64,
    /// Where it listens.
    pub listeners: Vec<Listening>,
    /// What it serves.
    pub mounts: Vec<MountStatus>,
    /// Backends that do not work right now, and why.
    pub not_ready: Vec<String>,
    /// When the last backup was made, milliseconds since 1970.
    pub last_backup_ms: Option<u64>,
    /// A backup is under way.
    pub backup_runs: bool,
}

/// A path to the socket of a data folder that is short enough for the system, and what keeps it valid.
fn socket_path(folder: &Path) -> std::io::Result<(PathBuf, Option<File>)> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX || !Path::new("/proc/self/fd").exists() {
        return Ok((path, None));
    }
    let opened = File::open(folder)?;
    Ok((Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(SOCKET), Some(opened)))
}

/// When the last backup of a data folder was made, milliseconds since 1970.
fn last_backup(folder: &Path) -> Option<u64> {
    std::fs::read_to_string(folder.join(LAST_BACKUP)).ok()?.trim().parse().ok()
}

/// Notes that a backup of a data folder was made. Blocks.
pub fn note_backup(folder: &Path, created_ms: u64) {
    if let Err(error) = std::fs::write(folder.join(LAST_BACKUP), format!("{created_ms}\n")) {
        tracing::warn!(%error, "the time of the backup could not be noted");
    }
}
