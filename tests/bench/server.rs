//! The servers that are measured, each pinned to the server's core: ours in its settings, the Node peer, and the bare ones.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use syncline_tests::process::{Process, binary};
use tempfile::TempDir;
use tokio::process::Command;

use crate::machine::SERVER_CORE;

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

/// A server that runs.
pub struct Server {
    /// What the report calls it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: u32,
    _running: Process,
    _folder: Option<Rc<TempDir>>,
}

/// A program on the server's core.
pub fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SYNCLINE_")) {
        command.env_remove(name);
    }
    command.args(["-c", &SERVER_CORE.to_string()]).arg(program).kill_on_drop(true);
    command
}

impl Server {
    async fn spawn(name: &str, command: Command, folder: Option<Rc<TempDir>>) -> Rc<Self> {
        let running = Process::spawn(command).await;
        let (address, process) = (running.address, running.id());
        Rc::new(Self { name: name.to_owned(), address, process, _running: running, _folder: folder })
    }

    /// Our own server, on a folder of its own below `disk`.
    pub async fn syncline(disk: &Path, settings: Settings) -> anyhow::Result<Rc<Self>> {
        let folder = Rc::new(TempDir::new_in(disk)?);
        let name = if settings.durable { "syncline" } else { "durability off" };
        Ok(Self::spawn(name, syncline_command(folder.path(), settings)?, Some(folder)).await)
    }

    /// The Node peer.
    pub async fn peer(disk: &Path, settings: Settings) -> anyhow::Result<Rc<Self>> {
        let folder = Rc::new(TempDir::new_in(disk)?);
        let script = peers_folder().join("secsync.mjs");
        ensure!(peers_folder().join("node_modules/better-sqlite3").exists(), "the peer's packages are missing: `make bench` installs them");
        let mut command = pinned("node");
        command.arg(script).arg(folder.path().join("peer.sqlite")).arg(if settings.signatures { "check" } else { "trust" });
        Ok(Self::spawn("node peer", command, Some(folder)).await)
    }

    /// This program as a server: a bare loop that writes the same frames to the same sockets.
    pub async fn bare(readers: usize) -> anyhow::Result<Rc<Self>> {
        let mut command = pinned(std::env::current_exe()?);
        command.args(["child", "bare", &readers.to_string()]);
        Ok(Self::spawn("bare loop", command, None).await)
    }
}

/// Where the peers are.
pub fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers")
}

/// The command that starts our own server on a folder.
pub fn syncline_command(folder: &Path, settings: Settings) -> anyhow::Result<Command> {
    let config = folder.join("syncline.toml");
    let signatures = settings.signatures;
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n[[mount]]\nprotocol = \"secsync\"\n[mount.settings]\nverify = {{ signatures = {signatures} }}\n"
    );
    std::fs::write(&config, text).context("the configuration")?;
    let data = folder.join("data");
    let mut command = pinned(binary());
    command.args(["serve", "--config"]).arg(config).arg("--data").arg(&data);
    if !settings.durable {
        command.arg("--executor").arg(format!("sqlite:{}?synchronous=off", data.display()));
    }
    Ok(command)
}
