//! The component as a fault: one that does what its client says (`tests/components/faulty`).

mod app;
mod bodies;
mod deliver;
mod documents;
mod excess;
mod exports;
mod failures;
mod inputs;
mod jobs;
mod limits;
mod objects;
mod order;
mod outbox;
mod quota;
mod reload;
mod requests;
mod streams;
mod tasks;
mod transactions;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use syncline::runtime::{EngineSettings, MountSettings, RuntimeSettings};
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Message;

use crate::commits::Commits;

const FAULTY: &[u8] = include_bytes!(env!("SYNCLINE_FAULTY_COMPONENT"));

/// A mount of the component at `/faulty`.
fn mount(settings: Value, app: Option<&str>) -> MountSettings {
    let settings = settings.as_object().cloned().unwrap_or_default();
    MountSettings {
        name: "faulty".into(),
        protocol: "faulty".into(),
        settings,
        app: app.map(PathBuf::from),
        listen: "127.0.0.1:0".into(),
        quota_bytes: None,
    }
}

/// A setup with the component; its instances may have 64 MiB.
fn setup(settings: Value, app: Option<&str>) -> Setup {
    let defaults = Setup::default();
    let engine = EngineSettings { instance_memory_bytes: 64 << 20, ..EngineSettings::default() };
    let runtime = RuntimeSettings { engine, ..defaults.runtime };
    Setup { component: FAULTY.to_vec(), mounts: vec![mount(settings, app)], runtime, ..Setup::default() }
}

async fn server(settings: Value) -> TestServer {
    TestServer::with(setup(settings, None)).await
}

/// A server whose commits the test holds.
async fn server_over(commits: &Arc<Commits>) -> TestServer {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = Arc::new(commits.executor(folder.path()).await);
    TestServer::with(Setup { executor: Some(executor), folder: Some(folder), ..setup(Value::Null, None) }).await
}

/// A client of the component.
struct Client {
    socket: Socket,
    id: u64,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self::connect_at(address, "/faulty").await
    }

    async fn connect_at(address: SocketAddr, path: &str) -> Self {
        let mut socket = Socket::connect(address, path).await;
        let hello = text(socket.receive().await);
        let id = hello.strip_prefix("hello ").and_then(|id| id.parse().ok());
        Self { socket, id: id.unwrap_or_else(|| panic!("{hello}")) }
    }

    /// Sends a frame of commands.
    async fn say(&mut self, commands: &str) {
        self.socket.send_message(Message::text(commands)).await;
    }

    /// The next text.
    async fn hear(&mut self) -> String {
        text(self.socket.receive().await)
    }

    /// Expects texts, in this order.
    async fn hears(&mut self, texts: &[&str]) {
        for expected in texts {
            assert_eq!(self.hear().await, *expected);
        }
    }

    /// Sends a frame and gives the next text.
    async fn ask(&mut self, commands: &str) -> String {
        self.say(commands).await;
        self.hear().await
    }

    /// Asks until the answer is this one.
    async fn ask_until(&mut self, commands: &str, expected: &str) {
        let asking = async { while self.ask(commands).await != expected {} };
        tokio::time::timeout(syncline_tests::DEADLINE, asking).await.unwrap_or_else(|_| panic!("{commands} never gave {expected}"));
    }

    /// Expects a close with a code.
    async fn closed(&mut self, code: u16) {
        assert_eq!(self.socket.receive().await, Received::Close(code));
    }
}

fn text(received: Received) -> String {
    match received {
        Received::Other(Message::Text(text)) => text.to_string(),
        Received::Json(value) => value.to_string(),
        other => panic!("a text was expected, and {other:?} came"),
    }
}
