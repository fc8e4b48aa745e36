//! Gateways, as the shipped binary, in front of what is composed for Spin: the conversations of secsync that matter most.

mod failing;
mod talking;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use syncline::runtime::GUEST_COMPONENT;
use syncline_tests::process::{Process, command};
use syncline_tests::secsync::{Author, Snapshot, snapshot_saved};
use syncline_tests::socket::Socket;
use syncline_tests::spin::{Kind, Spin, SpinSettings, chosen, composed};
use tempfile::TempDir;

/// Plasma, secsync with its defaults and secsync with a policy.
const CONFIG: &str = include_str!("../../../conformance/spin-config.json");
const SECRET: &str = "gateway-secret";

fn kind() -> Kind {
    chosen().unwrap_or(Kind::Fake)
}

/// Spin with the composed component; the fake, or with `SYNCLINE_TEST_HOST=spin-up` the real one.
struct Deployment {
    spin: Spin,
    settings: SpinSettings,
    _folder: TempDir,
}

/// A deployment that was ended, to go on at the same address.
struct Ended {
    settings: SpinSettings,
    folder: TempDir,
}

impl Deployment {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folders can be made");
        let component = composed(kind(), GUEST_COMPONENT, &[]).expect("the parts fit");
        let mut settings = SpinSettings::new(component, folder.path());
        settings.variables.insert("config".into(), CONFIG.into());
        Ended { settings, folder }.start().await
    }

    /// A gateway before it.
    async fn gateway(&self) -> Process {
        let upstream = format!("http://{}", self.settings.listen);
        let mut command = command(&["gateway", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
        command.env("SYNCLINE_GATEWAY_SECRET", SECRET);
        Process::spawn(command).await
    }

    /// Ends it in the middle of whatever it does.
    async fn end(self) -> Ended {
        self.spin.stop().await;
        Ended { settings: self.settings, folder: self._folder }
    }
}

impl Ended {
    async fn start(self) -> Deployment {
        let Self { mut settings, folder } = self;
        let spin = Spin::start(kind(), settings.clone()).await.expect("it starts");
        settings.listen = spin.address();
        Deployment { spin, settings, _folder: folder }
    }
}

/// Opens a place; the `document` frame is the first.
async fn open(address: SocketAddr, place: &str) -> (Socket, Value) {
    let mut socket = Socket::connect(address, place).await;
    let document = socket.json_of("document").await;
    (socket, document)
}

/// Sends a frame and gives the next that comes.
async fn ask(socket: &mut Socket, frame: &Value) -> Value {
    socket.send(frame).await;
    socket.json().await
}

/// Makes the first snapshot of a document.
async fn first_snapshot(socket: &mut Socket, author: &Author, document: &str) -> Snapshot {
    let snapshot = author.first_snapshot(document, b"first");
    assert_eq!(ask(socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    snapshot
}

/// What tells one update from another: its author and clock.
fn mark(update: &Value) -> (String, u64) {
    let public_data = &update["publicData"];
    let author = public_data["pubKey"].as_str().expect("an author").to_owned();
    (author, public_data["clock"].as_u64().expect("a clock"))
}

/// The updates of a `document` frame.
fn marks(document: &Value) -> Vec<(String, u64)> {
    document["updates"].as_array().expect("updates").iter().map(mark).collect()
}

/// Each author's clocks begin at 0 and have no gap; how many each has.
fn counts(seen: &[(String, u64)]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (author, clock) in seen {
        let count = counts.entry(author.clone()).or_default();
        assert_eq!(clock, count, "lost or doubled in {seen:?}");
        *count += 1;
    }
    counts
}
