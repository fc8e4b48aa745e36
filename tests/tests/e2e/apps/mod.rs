//! App components: what users write themselves.

mod compose;
mod falls;
mod frozen;
mod hooks;
mod new_app;
pub mod plasma;
mod plasma_hooks;

use std::path::Path;

use serde_json::{Value, json};
use syncline::runtime::MountSettings;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;

/// The app of these tests (`tests/components/secsync-app`).
const APP: &str = env!("SYNCLINE_SECSYNC_APP");

/// A mount at `/secsync` that asks an app.
fn mount(app: &Path, settings: Value) -> MountSettings {
    MountSettings { app: Some(app.to_owned()), ..secsync_mount("secsync", settings) }
}

/// A server that asks an app for everything.
async fn server(app: &Path) -> TestServer {
    let settings = json!({"access": "app", "broadcast_access": "app", "additional_public_data": {"update": "any"}});
    TestServer::with(Setup { mounts: vec![mount(app, settings)], ..Setup::default() }).await
}

/// The next message of the app's own that tells of a hook, asked about another session than the one that listens.
async fn heard(log: &mut Socket, hook: &str) -> Value {
    loop {
        let message = log.json().await;
        let is_own = message["given"]["websocketSessionKey"] == "log";
        if message["type"] == "heard" && message["hook"] == hook && !is_own {
            return message["given"].clone();
        }
    }
}

/// The next message of the protocol; what the app says meanwhile is passed over.
async fn answer(socket: &mut Socket) -> Value {
    loop {
        let message = socket.json().await;
        if message["type"] != "heard" && message["type"] != "judged" {
            return message;
        }
    }
}
