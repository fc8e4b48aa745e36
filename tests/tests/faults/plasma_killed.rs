//! `kill -9` of the shipped binary while clients of plasma push and pull: what was acknowledged is there, once, and
//! every client comes to the same rows.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use rand::RngExt as _;
use serde_json::{Value, json};
use syncline_tests::http::try_request;
use syncline_tests::plasma::grown::{self, Found, Tables};
use syncline_tests::plasma::{Replica, alice, mutation, pull_body, push_body};
use syncline_tests::process::{Process, command, data_folder};
use syncline_tests::{DEADLINE, postgres, scale};
use tokio::process::Command;
use tokio::sync::Notify;

const CLIENTS: usize = 8;

/// Counts acknowledged pushes, and tells when there are enough for this run.
struct Enough {
    left: AtomicUsize,
    reached: Notify,
}

/// A client group of one client, as Replicache keeps it: it pushes everything that is not confirmed yet, again and again.
struct Client {
    name: String,
    replica: Replica,
    pending: Vec<Value>,
    /// The last mutation that it made.
    made: u64,
    /// The last mutation that a push was acknowledged for.
    acknowledged: u64,
}

impl Client {
    fn new(number: usize) -> Self {
        Self { name: format!("c{number}"), replica: Replica::new(), pending: Vec::new(), made: 0, acknowledged: 0 }
    }

    fn group(&self) -> String {
        format!("group of {}", self.name)
    }

    /// Counts a counter of its own and one that all share, some with rows of their own and some that fail.
    fn mutate(&mut self) {
        self.made += 1;
        let id = self.made;
        let (name, args) = match id % 4 {
            0 => ("writeThenFail", json!({"id": format!("never-{}-{id}", self.name)})),
            1 => ("inc", json!({"id": "shared", "by": 1})),
            2 => ("createTodo", json!({"id": format!("{}-{id}", self.name), "title": "x"})),
            _ => ("inc", json!({"id": self.name, "by": 1})),
        };
        self.pending.push(mutation(&self.name, id, name, args));
    }

    async fn ask(&self, address: SocketAddr, path: &str, body: Value) -> Option<Value> {
        let headers = [("authorization", "tok-alice")];
        let asked = try_request(address, &Method::POST, path, &headers, body.to_string().into());
        let answer = tokio::time::timeout(DEADLINE, asked).await.expect("the server answers or is gone").ok()?;
        match answer.status {
            200 => Some(answer.json()),
            503 => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// One push and one pull; whether the server is still there.
    async fn exchange(&mut self, address: SocketAddr) -> bool {
        if !self.pending.is_empty() {
            let Some(answer) = self.ask(address, "/sync/push", push_body(&self.group(), &self.pending)).await else { return false };
            assert_eq!(answer["lastMutationIDChanges"][&self.name], self.made, "{answer}");
            self.acknowledged = self.made;
        }
        let Some(answer) = self.ask(address, "/sync/pull", pull_body(&self.group(), &self.replica.cookie)).await else { return false };
        let pulled = self.replica.apply(&answer).unwrap_or_else(|broken| panic!("{}: {broken}", self.name));
        let confirmed = self.replica.last_mutation_ids.get(&self.name).copied().unwrap_or(0);
        if !pulled.has_more {
            assert!(confirmed >= self.acknowledged, "{} of {} acknowledged mutations are confirmed", confirmed, self.acknowledged);
        }
        self.pending.retain(|mutation| mutation["id"].as_u64() > Some(confirmed));
        true
    }

    /// Works until the server is gone.
    async fn run(mut self, address: SocketAddr, enough: Arc<Enough>) -> Self {
        loop {
            for _ in 0..rand::rng().random_range(1..4) {
                self.mutate();
            }
            if !self.exchange(address).await {
                return self;
            }
            if enough.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                enough.reached.notify_one();
            }
        }
    }
}

async fn start(data: &Path) -> Process {
    let configuration = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/plasma.toml");
    Process::start(data, &["--config", configuration, "--log-level", "error"]).await
}

/// What the rows must be after so many mutations of each client.
fn check(rows: &std::collections::BTreeMap<String, Value>, clients: &[Client]) {
    let of_kind = |client: &Client, kind: u64| (1..=client.made).filter(|id| id % 4 == kind).count();
    let shared: usize = clients.iter().map(|client| of_kind(client, 1)).sum();
    assert_eq!(rows["counters/shared"]["n"], shared);
    for client in clients {
        let counted = rows.get(&format!("counters/{}", client.name)).map_or(json!(0), |row| row["n"].clone());
        assert_eq!(counted, of_kind(client, 3), "{}", client.name);
        let todos = rows.keys().filter(|key| key.starts_with(&format!("todos/{}-", client.name))).count();
        assert_eq!(todos, of_kind(client, 2), "{}", client.name);
    }
    assert!(!rows.keys().any(|key| key.contains("never")), "what failed left nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_plasma_lose_nothing_to_a_kill() {
    let folder = data_folder();
    let mut clients: Vec<_> = (0..CLIENTS).map(Client::new).collect();
    for _ in 0..2 * scale() {
        let process = start(folder.path()).await;
        let enough = Arc::new(Enough { left: AtomicUsize::new(rand::rng().random_range(30..300)), reached: Notify::new() });
        let working: Vec<_> = clients.drain(..).map(|client| tokio::spawn(client.run(process.address, enough.clone()))).collect();
        tokio::time::timeout(DEADLINE, enough.reached.notified()).await.expect("clients come along");
        process.kill().await;
        for client in working {
            clients.push(client.await.expect("the client is content"));
        }
    }
    let process = start(folder.path()).await;
    for client in &mut clients {
        while !client.pending.is_empty() {
            assert!(client.exchange(process.address).await, "the server is there");
        }
    }
    for client in &mut clients {
        while client.replica.apply(&alice(process.address).pull(&client.group(), &client.replica.cookie).await).unwrap().has_more {}
    }
    for client in &clients {
        check(&client.replica.rows, &clients);
    }
}

/// The command that serves the large table of [`grown`].
fn serve_grown(data: &Path, after: bool) -> Command {
    let configuration = data.join("grown.toml");
    let settings = data.join("grown.json");
    std::fs::write(&settings, grown::settings(after).to_string()).expect("files can be written");
    let mount = "[[mount]]\nprotocol = \"plasma\"\nname = \"plasma\"\npath = \"/sync\"\nsettings_file = \"grown.json\"\n";
    std::fs::write(&configuration, mount).expect("files can be written");
    let mut command = command(&["--log-level", "error", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(configuration).arg("--data").arg(data);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_killed_leaves_the_old_schema_or_the_new_one() {
    let folder = data_folder();
    let data = folder.path();
    let on_postgres = postgres::is_chosen();
    let started = async |after: bool| {
        let mut command = serve_grown(data, after);
        if on_postgres {
            command.args(["--executor", postgres::of_folder(data).await.url()]);
        }
        command
    };
    assert_eq!(Process::spawn(started(false).await).await.terminate().await, 0);
    Tables::open(data, on_postgres).await.grow().await;
    for _ in 0..3 * scale() {
        let mut migrating = started(true).await.stdout(Stdio::null()).spawn().expect("the binary is built");
        // At any moment of it: before, in the middle, or after.
        let life = Duration::from_millis(rand::rng().random_range(100..2500));
        // Whether it still runs then is not asked.
        let _ = tokio::time::timeout(life, migrating.wait()).await;
        migrating.kill().await.expect("the process can be killed");
        // Whatever it is, it is whole.
        if Tables::open(data, on_postgres).await.look().await == Found::After {
            break;
        }
    }
    assert_eq!(Process::spawn(started(true).await).await.terminate().await, 0);
    assert_eq!(Tables::open(data, on_postgres).await.look().await, Found::After);
}
