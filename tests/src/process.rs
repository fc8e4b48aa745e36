//! The shipped binary as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::DEADLINE;

/// A running `syncline`; killed when dropped.
pub struct Process {
    /// The main listener.
    pub address: SocketAddr,
    /// Whether it speaks TLS there.
    pub secure: bool,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The shipped binary, beside the test binaries.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SYNCLINE_BIN") {
        return path.into();
    }
    built().join("syncline")
}

/// An example of the repository, built with the tests.
pub fn example(name: &str) -> PathBuf {
    built().join("examples").join(name)
}

fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    test.parent().and_then(Path::parent).expect("tests are two folders below the target").to_owned()
}

/// The command with nothing of this environment's settings.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SYNCLINE_")) {
        command.env_remove(name);
    }
    command.args(arguments).kill_on_drop(true);
    command
}

impl Process {
    /// Starts a server on a data folder; `arguments` come on top.
    pub async fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.arg("--data").arg(data).stderr(Stdio::inherit());
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::spawn(command).await
    }

    /// Starts a prepared command; it says on its standard output where it listens.
    pub async fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary is built");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let line = next_line(&mut lines).await;
        let url = line.strip_prefix("listening on ").and_then(|url| url.split_once("://"));
        let (scheme, address) = url.unwrap_or_else(|| panic!("a URL was expected, not {line:?}"));
        Self { address: address.parse().expect("the URL has an address"), secure: scheme == "https", child, lines }
    }

    /// The next line that it says on standard output.
    pub async fn line(&mut self) -> String {
        next_line(&mut self.lines).await
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// `kill -9`, and waits for the end.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the process can be killed");
    }

    /// Sends it a signal, by its name without SIG.
    pub async fn signal(&self, name: &str) {
        let signalled = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().await;
        assert!(signalled.expect("kill can be run").success());
    }

    /// Ends it in order; the exit code.
    pub async fn terminate(mut self) -> i32 {
        self.signal("TERM").await;
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("the server ends within the deadline");
        status.expect("the process was started here").code().expect("it ended by itself")
    }
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("the server says something within the deadline");
    line.expect("standard output can be read").expect("the server says where it listens")
}
