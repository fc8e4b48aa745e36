//! PostgreSQL for tests: schemas of a test's own on a server that all share, or a whole server that a test may break.
//!
//! `SYNCLINE_TEST_POSTGRES` is the address of a server that tests share (`tests/with-postgres` starts one); without it each
//! test starts its own. `SYNCLINE_TEST_EXECUTOR=postgres` lets every server of the tests keep its data there.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::DEADLINE;

/// Whether servers of the tests keep their data in PostgreSQL.
pub fn is_chosen() -> bool {
    std::env::var("SYNCLINE_TEST_EXECUTOR").is_ok_and(|executor| executor == "postgres")
}

/// Schemas of a test's own.
pub struct PostgresSchemas {
    url: String,
    /// None where the server is shared.
    _server: Option<PostgresServer>,
}

impl PostgresSchemas {
    /// Nothing is in them yet.
    pub async fn new() -> Self {
        let (server, url) = match std::env::var("SYNCLINE_TEST_POSTGRES") {
            Ok(url) => (None, url),
            Err(_) => {
                let server = PostgresServer::start().await;
                let url = server.url();
                (Some(server), url)
            }
        };
        Self { url: format!("{url}?schema_prefix=t{:016x}", rand::random::<u64>()), _server: server }
    }

    /// As configured.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks the server by itself, in the schema of a mount's database: rows of texts. `:'name'` is a parameter.
    pub fn query(&self, mount: &str, database: &str, sql: &str, parameters: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut session = Session::start(self.psql(parameters));
        session.run(&self.search_path(mount, database));
        session.run(sql)
    }

    /// Somebody else's connection to a mount's database, whose transaction may stay open.
    pub fn session(&self, mount: &str, database: &str) -> Session {
        let mut session = Session::start(self.psql(&[]));
        session.run(&self.search_path(mount, database));
        session
    }

    fn psql(&self, parameters: &[(&str, &str)]) -> Command {
        let (address, _) = self.url.split_once("?schema_prefix=").expect("the URL has a prefix");
        let mut command = Command::new(bin("psql"));
        command.args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", address]);
        for (name, value) in parameters {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        command
    }

    fn search_path(&self, mount: &str, database: &str) -> String {
        let (_, prefix) = self.url.split_once("?schema_prefix=").expect("the URL has a prefix");
        format!("SET search_path TO {prefix}_{mount}_{database}_{}", database.len())
    }
}

/// A connection of `psql`; ended when dropped, and its transaction with it.
pub struct Session {
    child: std::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Session {
    /// What `psql` says when a statement is done.
    const DONE: &str = "statement done";

    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql is there");
        let (input, output) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Self { child, input, output: BufReader::new(output).lines() }
    }

    /// Runs a statement: rows of texts.
    pub fn run(&mut self, sql: &str) -> Vec<Vec<String>> {
        writeln!(self.input, "{sql};\n\\echo {}", Self::DONE).expect("psql reads");
        let mut rows = Vec::new();
        loop {
            let line = self.output.next().unwrap_or_else(|| panic!("{sql} failed")).expect("UTF-8");
            if line == Self::DONE {
                return rows;
            }
            rows.push(line.split('\t').map(str::to_owned).collect());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without an input it ends by itself; one that hangs must not outlive its test.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The schemas that belong to a data folder, for as long as the test runs.
static OF_FOLDERS: LazyLock<Mutex<HashMap<PathBuf, Arc<PostgresSchemas>>>> = LazyLock::new(Mutex::default);

/// The schemas that belong to a data folder; made when they are first asked for.
pub async fn of_folder(folder: &Path) -> Arc<PostgresSchemas> {
    if let Some(schemas) = known(folder) {
        return schemas;
    }
    let made = Arc::new(PostgresSchemas::new().await);
    OF_FOLDERS.lock().entry(folder.to_owned()).or_insert(made).clone()
}

/// The address of a whole database that belongs to a data folder, for who knows no schemas; made when it is first asked for.
pub async fn database_of_folder(folder: &Path) -> String {
    let schemas = of_folder(folder).await;
    let (address, name) = schemas.url().split_once("?schema_prefix=").expect("the URL has a prefix");
    let mut session = Session::start(schemas.psql(&[]));
    if session.run(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).is_empty() {
        session.run(&format!("CREATE DATABASE {name}"));
    }
    let (server, _) = address.rsplit_once('/').expect("the address names a database");
    format!("{server}/{name}")
}

/// The schemas that belong to a data folder, if a server has kept data for it there.
pub fn known(folder: &Path) -> Option<Arc<PostgresSchemas>> {
    OF_FOLDERS.lock().get(folder).cloned()
}

/// A running server; stopped when dropped.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl PostgresServer {
    /// Makes a cluster and starts it.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("syncline-postgres").tempdir().expect("a folder");
        let data = folder.path().join("data");
        copy(&template(), &data);
        own(folder.path());
        let port = free_port();
        let child = spawn(&data, port);
        let mut server = Self { folder, port, child };
        server.answers().await;
        server
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives it a certificate: from now on others than its own user must come over TLS, with a password.
    pub async fn secure(&mut self, certificate: &Path, key: &Path) {
        let data = self.folder.path().join("data");
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            std::fs::copy(from, data.join(to)).expect("files can be copied");
        }
        std::fs::write(data.join("pg_hba.conf"), "hostssl all app all scram-sha-256\nhost all postgres all trust\n").expect("it is there");
        let settings = data.join("postgresql.auto.conf");
        std::fs::write(&settings, "ssl = on\npassword_encryption = 'scram-sha-256'\n").expect("it is there");
        run(Command::new("chmod").arg("600").arg(data.join("server.key")));
        own(self.folder.path());
        self.crash().await;
        self.start_again().await;
    }

    /// Runs statements as its own user.
    pub fn query(&self, sql: &str) {
        run(Command::new(bin("psql")).args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", sql]));
    }

    /// Ends it as a crash does, without a checkpoint.
    pub async fn crash(&mut self) {
        self.signal(rustix::process::Signal::QUIT);
        self.child.wait().await.expect("the server ends");
    }

    /// Starts it again, on the same port and data.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.folder.path().join("data"), self.port);
        self.answers().await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())).expect("the server runs");
        rustix::process::kill_process(id, signal).expect("the server can be told");
    }

    /// Waits until it takes connections.
    async fn answers(&mut self) {
        let end = Instant::now() + DEADLINE;
        let ready = bin("pg_isready");
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("PostgreSQL ended with {status}");
            }
            // The port is there before the server is.
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                let port = self.port.to_string();
                let asked = tokio::process::Command::new(&ready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status().await;
                if asked.expect("pg_isready can be run").success() {
                    return;
                }
            }
            assert!(Instant::now() < end, "PostgreSQL does not start");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.signal(rustix::process::Signal::QUIT);
        }
    }
}

/// A program of PostgreSQL. Debian keeps them apart by version, outside of the path.
fn bin(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path().join("bin").join(program)).filter(|path| path.exists()).max();
    newest.unwrap_or_else(|| program.into())
}

/// As the user that the server wants to be, and gone with the process that started it.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).arg(program);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A cluster that nobody has used: making one takes longer than most tests.
fn template() -> PathBuf {
    let initdb = bin("initdb");
    let version = Command::new(&initdb).arg("--version").output().expect("PostgreSQL is installed (apt-get install postgresql)");
    let version: String = String::from_utf8_lossy(&version.stdout).chars().filter(char::is_ascii_alphanumeric).collect();
    let template = std::env::temp_dir().join(format!("syncline-tests-{version}"));
    if template.exists() {
        return template;
    }
    let making = tempfile::Builder::new().prefix("syncline-initdb").tempdir().expect("a folder");
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("postgres").arg(making.path()));
    }
    let made = making.path().join("data");
    let mut command = as_postgres(&initdb);
    run(command.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]).arg(&made));
    if let Err(error) = std::fs::rename(&made, &template) {
        assert!(template.exists(), "{error}");
    }
    template
}

/// Gives a folder to the user of the server, who is not root.
fn own(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("-R").arg("postgres").arg(folder));
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn spawn(data: &Path, port: u16) -> Child {
    let mut command = as_postgres(&bin("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    command.args(["-c", "shared_buffers=32MB", "-c", "max_connections=100", "-c", "logging_collector=off"]);
    let log = std::fs::File::create(data.with_file_name("log")).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    tokio::process::Command::from(command).kill_on_drop(false).spawn().expect("PostgreSQL can be started")
}
