//! Clients that write, race, drop their connections and come back, against a list.
//!
//! Each client keeps what it may rely on: the active snapshot, and per author the updates on it. Each message is checked
//! as it comes: no gap, nothing twice, an update never before its snapshot, a snapshot never without the updates that it
//! claims, a refusal never without the broadcast that explains it. A client that never writes holds the total order; in
//! the end every other one must have the same, and so must the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use syncline_tests::scale;
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;
use tokio::task::JoinSet;

use crate::support::*;

/// The signatures of updates stand for the updates.
type Log = BTreeMap<String, Vec<String>>;

/// What a client knows of the document.
#[derive(Clone, Debug)]
struct Known {
    active: Snapshot,
    /// The updates on it by author.
    updates: Log,
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn snapshot_of(frame: &Value) -> Snapshot {
    Snapshot { frame: frame.clone(), id: text_of(&frame["publicData"]["snapshotId"]) }
}

impl Known {
    fn of(document: &Value) -> Self {
        let mut known = Self { active: snapshot_of(&document["snapshot"]), updates: Log::new() };
        known.add_all(&document["updates"]);
        known
    }

    fn add_all(&mut self, updates: &Value) {
        for update in updates.as_array().expect("updates") {
            self.add(update);
        }
    }

    /// An update that must be the next one of its author.
    fn add(&mut self, update: &Value) {
        let public_data = &update["publicData"];
        assert_eq!(public_data["refSnapshotId"], self.active.id.as_str(), "an update of another snapshot: {public_data}");
        let log = self.updates.entry(text_of(&public_data["pubKey"])).or_default();
        assert_eq!(public_data["clock"], log.len(), "a gap, or an update twice: {public_data}");
        log.push(text_of(&update["signature"]));
    }

    /// A new active snapshot.
    fn replace(&mut self, snapshot: &Value) {
        assert_eq!(snapshot["publicData"]["parentSnapshotId"], self.active.id.as_str(), "a snapshot on another parent");
        assert_eq!(snapshot["publicData"]["parentSnapshotUpdateClocks"], json!(self.clocks()), "it claims other updates than came");
        *self = Self { active: snapshot_of(snapshot), updates: Log::new() };
    }

    fn clocks(&self) -> BTreeMap<String, u64> {
        self.updates.iter().map(|(author, log)| (author.clone(), u64::try_from(log.len()).expect("few") - 1)).collect()
    }

    fn next_clock(&self, author: &str) -> u64 {
        self.updates.get(author).map_or(0, |log| u64::try_from(log.len()).expect("few"))
    }
}

/// A client that writes.
struct Client {
    server: Arc<TestServer>,
    author: Author,
    key: String,
    random: StdRng,
    socket: Socket,
    known: Known,
    /// Updates under way, oldest first.
    pending: Vec<Value>,
    /// Every snapshot that was active.
    actives: BTreeSet<String>,
}

impl Client {
    async fn start(server: Arc<TestServer>, number: u8, seed: u64) -> Self {
        let author = Author::new(number);
        let (socket, document) = open(&server, &place("doc", "k")).await;
        let random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number)));
        Self {
            key: author.public_key(),
            known: Known::of(&document),
            server,
            author,
            random,
            socket,
            pending: Vec::new(),
            actives: BTreeSet::new(),
        }
    }

    async fn run(mut self, steps: u32) -> Self {
        for _ in 0..steps {
            match self.random.random_range(0..100) {
                0..60 => self.write_updates().await,
                60..75 => self.write_snapshot().await,
                75..85 => self.come_back("delta").await,
                85..90 => self.break_off_while_writing().await,
                90..93 => self.come_back("complete").await,
                _ => self.come_back_with_nothing().await,
            }
        }
        self
    }

    /// A broadcast, or an answer that is left to the caller.
    fn take(&mut self, message: Value) -> Option<Value> {
        match message["type"].as_str() {
            Some("update") => self.known.add(&message),
            Some("snapshot") => {
                self.own_updates_in(&message["snapshot"]);
                self.actives.insert(self.known.active.id.clone());
                self.known.replace(&message["snapshot"]);
                self.pending.clear();
            }
            Some("update-saved") if message["snapshotId"] != self.known.active.id.as_str() => {
                // Its snapshot was replaced by one that contains it (checked then).
            }
            _ => return Some(message),
        }
        None
    }

    /// Another client's snapshot may contain updates of this one whose acknowledgement is still under way.
    fn own_updates_in(&mut self, snapshot: &Value) {
        let Some(last) = snapshot["publicData"]["parentSnapshotUpdateClocks"][&self.key].as_u64() else { return };
        while self.known.next_clock(&self.key) <= last && !self.pending.is_empty() {
            let update = self.pending.remove(0);
            self.known.add(&update);
        }
    }

    fn next_updates(&mut self) -> Vec<Value> {
        let count = self.random.random_range(1..6);
        let first = self.known.next_clock(&self.key);
        let content: [u8; 8] = self.random.random();
        (first..first + count).map(|clock| self.author.update("doc", &self.known.active.id, clock, &content)).collect()
    }

    async fn write_updates(&mut self) {
        self.pending = self.next_updates();
        for update in self.pending.clone() {
            self.socket.send(&update).await;
        }
        let (based_on, count) = (self.known.active.id.clone(), self.pending.len());
        let mut answered = 0;
        while answered < count {
            let message = self.socket.json().await;
            let is_acknowledgement = message["type"] == "update-saved";
            match self.take(message) {
                None => answered += usize::from(is_acknowledgement),
                Some(answer) if is_acknowledgement => {
                    let update = self.pending.remove(0);
                    assert_eq!(answer["clock"], update["publicData"]["clock"]);
                    self.known.add(&update);
                    answered += 1;
                }
                Some(answer) => {
                    // Refused, and the pipelined rest silently. Only another snapshot is a reason, and it came first.
                    assert_eq!((&answer["type"], &answer["requiresNewSnapshot"]), (&json!("update-save-failed"), &json!(false)));
                    assert_eq!(answer["snapshotId"], based_on.as_str());
                    assert_ne!(self.known.active.id, based_on, "refused without need, or before the reason came: {answer}");
                    break;
                }
            }
        }
        self.pending.clear();
    }

    async fn write_snapshot(&mut self) {
        let content: [u8; 8] = self.random.random();
        let snapshot = self.author.snapshot_on(&self.known.active, &self.known.clocks(), &content);
        let before = (self.known.active.id.clone(), self.known.clocks());
        self.socket.send(&snapshot.frame).await;
        let answer = loop {
            let message = self.socket.json().await;
            if let Some(answer) = self.take(message) {
                break answer;
            }
        };
        if answer["type"] == "snapshot-saved" {
            assert_eq!(answer["snapshotId"], snapshot.id.as_str());
            self.known.replace(&snapshot.frame);
            return;
        }
        assert_eq!(answer["type"], "snapshot-save-failed");
        assert_ne!((self.known.active.id.clone(), self.known.clocks()), before, "refused without need");
        if answer["snapshot"].is_null() {
            // What it missed has been broadcast before.
            assert!(self.known.active.id == before.0 || self.actives.contains(&before.0));
            return;
        }
        // So has the snapshot that was quicker, and what was on it.
        let told = Known::of(&answer);
        if told.active.id != self.known.active.id {
            assert!(self.actives.contains(&told.active.id), "a snapshot that was never broadcast");
            return;
        }
        for (author, log) in &told.updates {
            assert!(self.known.updates.get(author).is_some_and(|known| known.starts_with(log)), "updates that were never broadcast");
        }
    }

    async fn come_back(&mut self, mode: &str) {
        let place = place_after("doc", mode, &self.known.active.id, &json!(self.known.clocks()));
        let (socket, document) = open(&self.server, &place).await;
        // The old connection is dropped without a word, sometimes after the new one is there.
        self.socket = socket;
        if document["snapshot"]["publicData"]["snapshotId"].as_str().is_none_or(|id| id == self.known.active.id) {
            assert_eq!(document["snapshot"].is_null(), mode == "delta");
            self.known.add_all(&document["updates"]);
            return;
        }
        let chain = document["snapshotProofChain"].as_array().expect("a chain");
        assert_eq!(chain[0]["parentSnapshotProof"], syncline_tests::secsync::proof_of_child(&self.known.active.frame));
        assert_eq!(chain.last().expect("not empty")["snapshotId"], document["snapshot"]["publicData"]["snapshotId"]);
        self.known = Known::of(&document);
    }

    async fn come_back_with_nothing(&mut self) {
        let (socket, document) = open(&self.server, &place("doc", "k")).await;
        self.socket = socket;
        self.known = Known::of(&document);
    }

    /// Drops the connection with updates under way: each may have been saved or not, but no later one without it.
    async fn break_off_while_writing(&mut self) {
        let updates = self.next_updates();
        for update in &updates {
            self.socket.send(update).await;
        }
        self.come_back("delta").await;
        let saved = self.known.updates.get(&self.key).cloned().unwrap_or_default();
        if self.known.active.id == text_of(&updates[0]["publicData"]["refSnapshotId"]) {
            let first = usize::try_from(updates[0]["publicData"]["clock"].as_u64().expect("a clock")).expect("small");
            for (stored, sent) in saved[first..].iter().zip(&updates) {
                assert_eq!(*stored, text_of(&sent["signature"]));
            }
        }
        // The old connection may still be writing; its updates come as broadcasts, since they are of another socket.
        for update in &updates {
            self.settle(update).await;
        }
    }

    /// Sends an update again until it is known what became of it.
    async fn settle(&mut self, update: &Value) {
        if self.known.active.id != text_of(&update["publicData"]["refSnapshotId"]) {
            return;
        }
        self.socket.send(update).await;
        self.pending = vec![update.clone()];
        let clock = update["publicData"]["clock"].as_u64().expect("a clock");
        loop {
            let message = self.socket.json().await;
            let kind = message["type"].clone();
            match self.take(message) {
                None if kind == "update-saved" => break,
                None => {}
                Some(answer) if kind == "update-saved" => {
                    assert_eq!(answer["clock"], clock);
                    // Saved now, or saved before and broadcast by the old connection.
                    if self.known.next_clock(&self.key) == clock {
                        self.known.add(update);
                    }
                    break;
                }
                Some(answer) => {
                    assert_ne!(self.known.active.id, text_of(&update["publicData"]["refSnapshotId"]), "refused without need: {answer}");
                    break;
                }
            }
        }
        self.pending.clear();
    }
}

/// Follows the document until it is told that nothing more comes, by an ephemeral message.
async fn observe(server: Arc<TestServer>) -> (Known, usize) {
    let (mut socket, document) = open(&server, &place("doc", "k")).await;
    let (mut known, mut count) = (Known::of(&document), 0);
    loop {
        let message = socket.json().await;
        match message["type"].as_str() {
            Some("update") => known.add(&message),
            Some("snapshot") => known.replace(&message["snapshot"]),
            _ => return (known, count),
        }
        count += 1;
    }
}

async fn run(seed: u64, clients: u8, steps: u32) {
    let server = Arc::new(TestServer::start().await);
    let (mut owner, _) = with_snapshot(&server, "doc", &Author::new(100)).await;
    let observer = tokio::spawn(observe(server.clone()));
    let mut writers = JoinSet::new();
    for number in 0..clients {
        let server = server.clone();
        writers.spawn(async move { Client::start(server, number, seed).await.run(steps).await });
    }
    let mut writers = writers.join_all().await;
    // What dropped connections had under way has been settled by their clients: nothing changes any more.
    let stored = Known::of(&load(&server, &place("doc", "k")).await);
    owner.send(&Author::new(200).ephemeral("doc", b"the end")).await;
    for writer in &mut writers {
        loop {
            let message = writer.socket.json().await;
            if writer.take(message).is_some_and(|message| message["type"] == "ephemeral-message") {
                break;
            }
        }
        assert_eq!((&writer.known.active.id, &writer.known.updates), (&stored.active.id, &stored.updates), "a writer");
    }
    let (observed, count) = observer.await.expect("the observer saw nothing wrong");
    assert_eq!((&observed.active.id, &observed.updates), (&stored.active.id, &stored.updates), "the observer");
    println!("{count} broadcasts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_clients_do_at_once_each_ends_with_everything_exactly_once_in_order() {
    let seed: u64 = std::env::var("SYNCLINE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SYNCLINE_TEST_SEED={seed}");
    for round in 0..3 * u64::from(scale()) {
        run(seed.wrapping_add(round << 16), 5, 60).await;
    }
}
