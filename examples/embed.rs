//! Embeds the host in a program of one's own, with an executor of one's own: `cargo run --example embed`.
//!
//! The executor here wraps the SQLite executor. For each mount it counts statements, and it can make a mount read-only
//! while the server runs, for a tenant that has not paid, say. The program serves one mount, talks to it over a WebSocket,
//! and prints what it counted. docs/embedding.md goes through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{
    Database, DatabaseInfo, DatabaseName, Ended, Executor, ExecutorError, GroupObserver, Hold, RowSet, Snapshot, Statement, Transaction,
};
use syncline::pubsub::memory::MemoryPubSub;
use syncline::runtime::{Backends, GUEST_COMPONENT, MountSettings, Runtime, RuntimeSettings};
use syncline::server::{Server, ServerSettings};
use syncline::storage::Storage;
use syncline::storage::memory::{MemoryKeyValue, MemoryObjects};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// What was counted of a mount, and whether it may write.
#[derive(Clone, Copy, Default)]
struct Account {
    queries: u64,
    statements: u64,
    commits: u64,
    refused: u64,
    read_only: bool,
}

/// The accounts of all mounts; every part of the executor has a copy of this handle.
#[derive(Clone, Default)]
struct Accounts(Arc<Mutex<BTreeMap<String, Account>>>);

impl Accounts {
    /// Changes or reads the account of a mount.
    fn of<T>(&self, mount: &str, with: impl FnOnce(&mut Account) -> T) -> T {
        // Nothing in here panics half-way.
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        with(accounts.entry(mount.to_owned()).or_default())
    }
}

/// An executor that keeps accounts of another one.
struct Metered<E> {
    inner: E,
    accounts: Accounts,
}

#[async_trait]
impl<E: Executor> Executor for Metered<E> {
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError> {
        // The observer is handed on: groups are still the inner executor's, and it says when they are durable.
        let inner = self.inner.open(name, observer).await?;
        Ok(Arc::new(MeteredDatabase { inner, mount: name.mount.clone(), accounts: self.accounts.clone() }))
    }

    async fn ready(&self) -> Result<(), ExecutorError> {
        self.inner.ready().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct MeteredDatabase {
    inner: Arc<dyn Database>,
    mount: String,
    accounts: Accounts,
}

#[async_trait]
impl Database for MeteredDatabase {
    fn info(&self) -> DatabaseInfo {
        self.inner.info()
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError> {
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(MeteredSnapshot { inner, mount: self.mount.clone(), accounts: self.accounts.clone() }))
    }

    fn hold(&self) -> Hold {
        self.inner.hold()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError> {
        let read_only = self.accounts.of(&self.mount, |account| {
            account.refused += u64::from(account.read_only);
            account.read_only
        });
        if read_only {
            // The logic says to its client that it may try again later.
            return Err(ExecutorError::Unavailable("this mount is read-only".into()));
        }
        let inner = self.inner.begin().await?;
        Ok(Box::new(MeteredTransaction { inner, mount: self.mount.clone(), accounts: self.accounts.clone() }))
    }
}

struct MeteredSnapshot {
    inner: Box<dyn Snapshot>,
    mount: String,
    accounts: Accounts,
}

#[async_trait]
impl Snapshot for MeteredSnapshot {
    async fn query(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        self.accounts.of(&self.mount, |account| account.queries += 1);
        self.inner.query(statement, row_limit).await
    }
}

struct MeteredTransaction {
    inner: Box<dyn Transaction>,
    mount: String,
    accounts: Accounts,
}

#[async_trait]
impl Transaction for MeteredTransaction {
    async fn execute(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        self.accounts.of(&self.mount, |account| account.statements += 1);
        self.inner.execute(statement, row_limit).await
    }

    async fn savepoint(&mut self) -> Result<u32, ExecutorError> {
        self.inner.savepoint().await
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.inner.release(savepoint).await
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.inner.rollback_to(savepoint).await
    }

    async fn commit(self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError> {
        let Self { inner, mount, accounts } = *self;
        inner.commit(ended).await?;
        accounts.of(&mount, |account| account.commits += 1);
        Ok(())
    }

    async fn rollback(self: Box<Self>, ended: Ended<'_>) {
        self.inner.rollback(ended).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let accounts = Accounts::default();
    let executor = Metered { inner: SqliteExecutor::start(SqliteSettings::new(folder.path())).await?, accounts: accounts.clone() };
    let backends = Backends {
        executor: Arc::new(executor),
        storage: Storage { keyvalue: Arc::new(MemoryKeyValue::new()), objects: Arc::new(MemoryObjects::new()) },
        pubsub: Arc::new(MemoryPubSub::default()),
    };
    let listen = String::from("127.0.0.1:0");
    // A real client signs what it sends (npm: `secsync`); this one is too short for it.
    let settings = json!({"path": "/notes", "verify": {"signatures": false, "shape": false, "parent_proof": "off"}});
    let mounts = [MountSettings {
        name: "notes".into(),
        protocol: "secsync".into(),
        settings: settings.as_object().cloned().unwrap_or_default(),
        app: None,
        quota_bytes: None,
        listen: listen.clone(),
    }];
    let runtime = Runtime::start(GUEST_COMPONENT, RuntimeSettings::default(), &mounts, backends).await?;
    let server = Server::start(runtime, &mounts, ServerSettings { listen, ..ServerSettings::default() }).await?;
    let address = server.addresses()[0];
    let before = accounts.of("notes", |account| *account);

    let mut socket = connect(address).await?;
    println!("opened a {}", kind(&receive(&mut socket).await?));
    let saved = ask(&mut socket, &snapshot()).await?;
    println!("{}", kind(&saved));
    for clock in 0..3 {
        let saved = ask(&mut socket, &update(clock)).await?;
        println!("{} {}", kind(&saved), saved["clock"]);
    }

    accounts.of("notes", |account| account.read_only = true);
    socket.send(Message::text(update(3).to_string())).await?;
    match socket.next().await.context("the server says why")?? {
        Message::Close(Some(close)) => println!("read-only now: closed with {}", close.code),
        other => anyhow::bail!("an update was taken: {other:?}"),
    }
    let document = receive(&mut connect(address).await?).await?;
    println!("the document can be read, with {} updates", document["updates"].as_array().map_or(0, Vec::len));

    accounts.of("notes", |account| account.read_only = false);
    let mut socket = connect(address).await?;
    receive(&mut socket).await?;
    println!("written again: {}", kind(&ask(&mut socket, &update(3)).await?));

    socket.close(None).await?;
    server.stop().await;
    let Account { queries, statements, commits, refused, .. } = accounts.of("notes", |account| *account);
    println!(
        "notes: {} queries, {} statements in {} commits, {refused} transactions refused",
        queries - before.queries,
        statements - before.statements,
        commits - before.commits,
    );
    Ok(())
}

type Socket = WebSocketStream<TcpStream>;

async fn connect(address: SocketAddr) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    Ok(client_async(format!("ws://{address}/notes/shopping?sessionKey=k"), stream).await?.0)
}

async fn receive(socket: &mut Socket) -> anyhow::Result<Json> {
    let message = socket.next().await.context("the socket is open")??;
    Ok(serde_json::from_str(message.to_text()?)?)
}

async fn ask(socket: &mut Socket, frame: &Json) -> anyhow::Result<Json> {
    socket.send(Message::text(frame.to_string())).await?;
    receive(socket).await
}

fn kind(frame: &Json) -> &str {
    frame["type"].as_str().unwrap_or("frame of no type")
}

fn snapshot() -> Json {
    frame(json!({
        "snapshotId": "first", "parentSnapshotId": "", "parentSnapshotProof": "", "parentSnapshotUpdateClocks": {},
    }))
}

fn update(clock: u64) -> Json {
    frame(json!({"refSnapshotId": "first", "clock": clock}))
}

/// A frame as a client would send it, with nothing encrypted and nothing signed.
fn frame(mut public_data: Json) -> Json {
    public_data["docId"] = "shopping".into();
    public_data["pubKey"] = "somebody".into();
    json!({"ciphertext": "bWlsaw", "nonce": "bm9uY2U", "signature": "", "publicData": public_data})
}
