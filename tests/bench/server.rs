//! The servers that are measured, each pinned to the server's core: ours in its settings, the Node peers, and the bare ones.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use syncline_tests::process::{Process, binary};
use tempfile::TempDir;
use tokio::process::Command;

use crate::machine::SERVER_CORE;

/// Where our own server keeps its rows.
#[derive(Clone, Debug, Default)]
pub enum Rows {
    /// SQLite, every commit on disk before it is acknowledged.
    #[default]
    Sqlite,
    /// The same without waiting for the disk.
    NotDurable,
    /// A PostgreSQL server.
    Postgres(String),
}

/// How our own server is set.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The `[[mount]]` of its configuration.
    pub mount: String,
    /// Its executor.
    pub rows: Rows,
}

/// A server that runs.
pub struct Server {
    /// What the report calls it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: u32,
    _running: Process,
    _below: Option<Below>,
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
        Rc::new(Self { name: name.to_owned(), address, process, _running: running, _below: None, _folder: folder })
    }

    /// A program that may start others: the last of them is measured.
    pub async fn spawn_below(name: &str, command: Command, folder: Option<Rc<TempDir>>) -> anyhow::Result<Rc<Self>> {
        let running = Process::spawn(command).await;
        let (address, process) = (running.address, last_below(running.id())?);
        let below = (process != running.id()).then(|| Below(process));
        Ok(Rc::new(Self { name: name.to_owned(), address, process, _running: running, _below: below, _folder: folder }))
    }

    /// Our own server, on a folder of its own below `disk`.
    pub async fn syncline(disk: &Path, launch: impl Into<Launch>) -> anyhow::Result<Rc<Self>> {
        let (launch, folder) = (launch.into(), Rc::new(TempDir::new_in(disk)?));
        // Compiled code is shared, but for the case that measures starts.
        let (data, shared) = (folder.path().join("data"), disk.join("cache"));
        std::fs::create_dir_all(&shared)?;
        std::fs::create_dir(&data)?;
        std::os::unix::fs::symlink(std::path::absolute(shared)?, data.join("cache"))?;
        let name = match launch.rows {
            Rows::Sqlite => "syncline",
            Rows::NotDurable => "durability off",
            Rows::Postgres(_) => "syncline on PostgreSQL",
        };
        Ok(Self::spawn(name, syncline_command(folder.path(), launch)?, Some(folder)).await)
    }

    /// A Node peer: a script of the peers' folder, on a database file of its own below `disk`.
    pub async fn node(disk: &Path, script: &str, arguments: &[&str]) -> anyhow::Result<Rc<Self>> {
        let folder = Rc::new(TempDir::new_in(disk)?);
        ensure!(peers_folder().join("node_modules/better-sqlite3").exists(), "the peers' packages are missing: `make bench` installs them");
        let mut command = pinned("node");
        command.arg(peers_folder().join(script)).arg(folder.path().join("peer.sqlite")).args(arguments);
        Ok(Self::spawn("node peer", command, Some(folder)).await)
    }

    /// This program as a server: a bare loop that writes the same bytes to the same sockets, `messages` or `events`.
    pub async fn bare(kind: &str, readers: usize) -> anyhow::Result<Rc<Self>> {
        let mut command = pinned(std::env::current_exe()?);
        command.args(["child", "bare", kind, &readers.to_string()]);
        Ok(Self::spawn("bare loop", command, None).await)
    }
}

/// A process that nobody ends who was started here: killed when dropped.
struct Below(u32);

impl Drop for Below {
    fn drop(&mut self) {
        let process = i32::try_from(self.0).ok().and_then(Pid::from_raw);
        // It may have ended by itself.
        let _ = process.map(|process| kill_process(process, Signal::KILL));
    }
}

/// The process that a process started, and so on.
fn last_below(process: u32) -> anyhow::Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    children.split_whitespace().next().map_or(Ok(process), |child| last_below(child.parse()?))
}

/// Where the real clients are.
pub fn clients_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where the peers are.
pub fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers")
}

/// The command that starts our own server on a folder.
pub fn syncline_command(folder: &Path, launch: impl Into<Launch>) -> anyhow::Result<Command> {
    let (launch, config) = (launch.into(), folder.join("syncline.toml"));
    let text = format!("listen = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n[[mount]]\n{}", launch.mount);
    std::fs::write(&config, text).context("the configuration")?;
    let data = folder.join("data");
    let mut command = pinned(binary());
    command.args(["serve", "--config"]).arg(config).arg("--data").arg(&data);
    match launch.rows {
        Rows::Sqlite => {}
        Rows::NotDurable => {
            command.arg("--executor").arg(format!("sqlite:{}?synchronous=off", data.display()));
        }
        Rows::Postgres(url) => {
            command.arg("--executor").arg(url);
        }
    }
    Ok(command)
}
