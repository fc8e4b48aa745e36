//! The shipped binary as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::{DEADLINE, postgres};

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

/// Puts the compiled component of the other tests into a data folder: compiling it takes longer than most of them.
pub fn with_compiled_code(data: &Path) {
    let shared = crate::server::compilation_cache();
    std::fs::create_dir_all(&shared).expect("folders can be made");
    std::fs::create_dir_all(data).expect("folders can be made");
    std::os::unix::fs::symlink(shared, data.join("cache")).expect("links can be made");
}

/// A data folder with nothing but compiled code.
pub fn data_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("folders can be made");
    with_compiled_code(folder.path());
    folder
}

/// Copies a data folder that no server uses into another folder, with compiled code beside.
pub fn copy_data(from: &Path, to: &Path) {
    with_compiled_code(to);
    copy_files(from, to);
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("it is a folder") {
        let entry = entry.expect("it can be listed");
        let (kind, copy) = (entry.file_type().expect("it has a kind"), to.join(entry.file_name()));
        if kind.is_dir() {
            std::fs::create_dir_all(&copy).expect("folders can be made");
            copy_files(&entry.path(), &copy);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), copy).expect("files can be copied");
        }
    }
}

/// Runs a command to its end: whether it succeeded, and all that it said.
pub async fn run(mut command: Command) -> (bool, String) {
    let running = command.stdin(Stdio::null()).output();
    let output = tokio::time::timeout(DEADLINE, running).await.expect("it ends within the deadline").expect("it can be run");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// A run that must fail with a message that has all these words.
pub async fn fails(command: Command, words: &[&str]) {
    let what = format!("{command:?}");
    let (succeeded, text) = run(command).await;
    assert!(!succeeded, "{what} worked: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

impl Process {
    /// Starts a server on a data folder; `arguments` come on top.
    pub async fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.arg("--data").arg(data).stderr(Stdio::inherit());
        if postgres::is_chosen() && !arguments.contains(&"--executor") {
            command.args(["--executor", postgres::of_folder(data).await.url()]);
        }
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

    /// What a GET of the process gets, head and body.
    pub async fn get(&self, target: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        tokio::time::timeout(DEADLINE, asked).await.expect("it is answered within the deadline").expect("it is answered")
    }

    /// The status that a GET of the process gets.
    pub async fn status(&self, target: &str) -> u16 {
        let answer = self.get(target).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("a status was expected in {answer:?}"))
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
