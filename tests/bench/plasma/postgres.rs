//! PostgreSQL as the store, and `pgbench` as what it can do without us.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;

use super::raw::pgbench_script;
use crate::load::Contestant;
use crate::machine::{Cpu, OWN_CORE};
use crate::report::Sample;

/// Which server is used; `make bench` starts one.
const ADDRESS: &str = "SYNCLINE_TEST_POSTGRES";

/// A PostgreSQL server that somebody else started.
pub struct Postgres {
    url: String,
}

impl Postgres {
    /// The one of the environment, kept to the core of the generator from here on.
    pub fn given() -> anyhow::Result<Self> {
        let url = std::env::var(ADDRESS).with_context(|| format!("{ADDRESS} names no PostgreSQL server; `make bench` starts one"))?;
        let postgres = Self { url };
        let process = postgres.sql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")?;
        // The processes of later connections inherit it.
        output(Command::new("taskset").args(["-cp", &OWN_CORE.to_string(), process.trim()]))?;
        Ok(postgres)
    }

    /// A new database; its URL.
    pub fn database(&self) -> anyhow::Result<String> {
        let name = format!("bench_{}", rand::random::<u64>());
        self.sql(&format!("CREATE DATABASE {name}"))?;
        let (server, _) = self.url.rsplit_once('/').context("the URL of the server names a database")?;
        Ok(format!("{server}/{name}"))
    }

    fn sql(&self, statement: &str) -> anyhow::Result<String> {
        sql(&self.url, statement)
    }
}

fn sql(url: &str, statement: &str) -> anyhow::Result<String> {
    output(Command::new("psql").args([url, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", statement]))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A program of PostgreSQL. Debian keeps them apart by version, outside of the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    newest.unwrap_or_else(|| name.into())
}

/// `pgbench` in the place of our server.
pub struct PgBench {
    folder: tempfile::TempDir,
    url: String,
    connections: usize,
    pinned: fn(PathBuf) -> tokio::process::Command,
}

impl PgBench {
    /// Makes the tables in a database.
    pub fn new(disk: &Path, url: String, connections: usize, pinned: fn(PathBuf) -> tokio::process::Command) -> anyhow::Result<Self> {
        let folder = tempfile::TempDir::new_in(disk)?;
        let (script, tables) = pgbench_script(connections);
        std::fs::write(folder.path().join("push.sql"), script)?;
        sql(&url, &tables)?;
        Ok(Self { folder, url, connections, pinned })
    }
}

#[async_trait(?Send)]
impl Contestant for PgBench {
    fn name(&self) -> &str {
        "pgbench"
    }

    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample> {
        let begun = Instant::now();
        let log = self.folder.path().join("log");
        let mut command = (self.pinned)(program("pgbench"));
        command.current_dir(self.folder.path()).args(["--no-vacuum", "--protocol=prepared", "--log", "--log-prefix"]).arg(&log);
        command.args(["--client", &self.connections.to_string(), "--file", "push.sql"]);
        // It knows whole seconds only.
        command.args(["--time", &window.as_secs().max(1).to_string(), &self.url]);
        let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn()?;
        let process = child.id().context("it runs")?;
        let mut used = Cpu::default();
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status?,
                () = tokio::time::sleep(Duration::from_millis(50)) => used = Cpu::of(process).unwrap_or(used),
            }
        };
        ensure!(status.success(), "pgbench ended with {status}");
        let elapsed = begun.elapsed();
        let mut latencies_us = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.")) {
                continue;
            }
            // client, transaction, time in microseconds, …
            let text = std::fs::read_to_string(&path)?;
            latencies_us.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()));
            std::fs::remove_file(path)?;
        }
        Ok(Sample::new(latencies_us, elapsed, used, 1))
    }
}
