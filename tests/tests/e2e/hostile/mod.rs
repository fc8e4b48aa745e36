//! Clients that mean harm, before and after the upgrade, alone and in crowds. Beside each of them an honest client goes
//! on being served, and where the shipped binary runs, its memory stays below a bound.
//!
//! `heads` holds HTTP, `sockets` WebSockets, `crowds` many of them, `caps` the limits of addresses, `buckets` rates,
//! `budget` the queues of a mount.

mod buckets;
mod budget;
mod caps;
mod crowds;
mod heads;
mod sockets;

use std::net::SocketAddr;

use serde_json::Value;
use syncline_tests::process::{Process, command};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::socket::{Received, Socket};
use tempfile::TempDir;
use tokio::process::Command;

use crate::cli::{data_folder, path_of, write};
use crate::raw::{RawConnection, get};
use crate::support::*;

/// A client that does nothing wrong, on a document of its own.
struct Honest {
    address: SocketAddr,
    socket: Socket,
    author: Author,
    snapshot: Snapshot,
    saved: u64,
}

impl Honest {
    async fn join(address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address, &place("honest", "k")).await;
        socket.json_of("document").await;
        let author = Author::new(9);
        let snapshot = author.first_snapshot("honest", b"first");
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        Self { address, socket, author, snapshot, saved: 0 }
    }

    fn next_update(&mut self) -> Value {
        self.saved += 1;
        self.author.update("honest", &self.snapshot.id, self.saved - 1, b"honest work")
    }

    /// Its next update is saved.
    async fn is_served(&mut self) {
        let update = self.next_update();
        save(&mut self.socket, &update).await;
    }

    /// A newcomer finds everything that was saved.
    async fn lost_nothing(&mut self) {
        self.is_served().await;
        let mut newcomer = Socket::connect(self.address, &place("honest", "k")).await;
        let document = newcomer.json_of("document").await;
        assert_eq!(document["updates"].as_array().map(Vec::len), usize::try_from(self.saved).ok());
    }
}

/// The shipped binary with a configuration, and its memory.
struct Victim {
    process: Process,
    _folder: TempDir,
}

impl Victim {
    /// Starts it with one secsync mount; `head` goes before the mount and `settings` are the mount's.
    async fn start(head: &str, settings: &str) -> Self {
        Self::start_by(head, settings, command).await
    }

    /// The same by another command.
    async fn start_by(head: &str, settings: &str, command: impl FnOnce(&[&str]) -> Command) -> Self {
        let folder = data_folder();
        let text = format!("{head}\n[log]\nlevel = \"error\"\n[[mount]]\nprotocol = \"secsync\"\nsettings = {{ {settings} }}\n");
        let config = write(&folder, "hostile.toml", &text);
        let command = command(&["--config", &config, "--listen", "127.0.0.1:0", "--data", path_of(&folder)]);
        Self { process: Process::spawn(command).await, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Resident memory in bytes.
    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the system says how much memory it has");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

/// A WebSocket whose `document` frame has been read.
async fn raw_member(address: SocketAddr, document: &str) -> RawConnection {
    let mut connection = RawConnection::websocket(address, &place(document, "k")).await;
    assert!(connection.message().await.expect("a document").text().starts_with(r#"{"type":"document""#));
    connection
}

/// How often a limit turned somebody away.
async fn turned_away(address: SocketAddr, reason: &str) -> u64 {
    metric(address, &format!(r#"syncline_turned_away_total{{reason="{reason}"}}"#)).await
}

async fn metric(address: SocketAddr, beginning: &str) -> u64 {
    let metrics = get(address, "/metrics").await.body;
    let line = metrics.lines().find(|line| line.starts_with(beginning));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Whatever still comes on a socket, up to its close code; 1006 for an end without one.
async fn close_code_of(socket: &mut Socket) -> u16 {
    loop {
        match socket.receive().await {
            Received::Close(code) => return code,
            Received::End => return 1006,
            _ => {}
        }
    }
}
