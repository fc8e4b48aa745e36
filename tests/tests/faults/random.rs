//! Many writers and readers, with groups that are delayed and lost at random: what every client was told is compared
//! with what the database has at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use syncline::executor::ExecutorError;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::{Received, Socket};
use syncline_tests::{DEADLINE, scale};
use tokio::sync::watch;

use crate::commits::{Commits, Fate};
use crate::documents::{Stored, author_and_clock, check_clocks, create, open, signature, stored};
use syncline_tests::faulty_executor::{FaultyExecutor, Point, Verdict};

const DOCUMENTS: [&str; 2] = ["a", "b"];
const WRITERS_PER_DOCUMENT: u8 = 3;
const ACKNOWLEDGED_PER_WRITER: usize = 25;
const PIPELINED_MAX: u64 = 4;

/// What one connection was told, in order.
#[derive(Debug, Default)]
struct Heard {
    /// Signatures in `document`.
    document: Vec<String>,
    /// Signatures of broadcasts.
    broadcasts: Vec<String>,
}

/// What a client was told on all its connections.
#[derive(Debug, Default)]
struct Told {
    connections: Vec<Heard>,
    acknowledged: Vec<(u64, String)>,
    /// Everything that it ever sent.
    sent: BTreeSet<String>,
}

fn signatures(document: &Value) -> Vec<String> {
    document["updates"].as_array().expect("a list").iter().map(|update| signature(update).to_owned()).collect()
}

/// Opens a document as often as it takes.
async fn open_somehow(address: SocketAddr, document: &str) -> (Socket, Value) {
    let opening = async {
        loop {
            let path = format!("/secsync/{document}?sessionKey=k&mode=complete");
            let mut socket = Socket::connect(address, &path).await;
            match socket.receive().await {
                Received::Json(first) => {
                    assert_eq!(first["type"], "document", "{first}");
                    return (socket, first);
                }
                other => assert_eq!(other, Received::Close(1013)),
            }
        }
    };
    tokio::time::timeout(DEADLINE, opening).await.expect("the document can be opened within the deadline")
}

struct Writer {
    address: SocketAddr,
    document: &'static str,
    author: Author,
    snapshot_id: String,
    random: StdRng,
    /// Whether an update may be refused.
    refusals: bool,
    told: Told,
}

impl Writer {
    /// Writes until enough is acknowledged.
    async fn run(mut self) -> Told {
        while self.told.acknowledged.len() < ACKNOWLEDGED_PER_WRITER {
            self.connection().await;
        }
        self.told
    }

    /// One connection, up to its close or the end.
    async fn connection(&mut self) {
        let (mut socket, document) = open_somehow(self.address, self.document).await;
        let mut heard = Heard { document: signatures(&document), ..Heard::default() };
        let own = document["updates"].as_array().expect("a list").iter().map(author_and_clock);
        let mut next = own.filter(|(author, _)| *author == self.author.public_key()).count() as u64;
        let mut waiting = BTreeMap::new();
        while self.told.acknowledged.len() < ACKNOWLEDGED_PER_WRITER || !waiting.is_empty() {
            let burst = if waiting.is_empty() { self.random.random_range(1..=PIPELINED_MAX) } else { 0 };
            for _ in 0..burst {
                let update = self.author.update(self.document, &self.snapshot_id, next, &self.random.random::<[u8; 8]>());
                self.told.sent.insert(signature(&update).to_owned());
                waiting.insert(next, signature(&update).to_owned());
                next += 1;
                // The server may close meanwhile: the next message says so.
                let _ = socket.try_send(tokio_tungstenite::tungstenite::Message::text(update.to_string())).await;
            }
            match socket.receive().await {
                Received::Json(message) if message["type"] == "update" => heard.broadcasts.push(signature(&message).to_owned()),
                // A call that failed behind a commit closes before that is durable: the document read then may lack it.
                Received::Json(message) if self.refusals && message["type"] == "update-save-failed" => break,
                Received::Json(message) => {
                    assert_eq!(message["type"], "update-saved", "{message}");
                    let (clock, signature) = waiting.pop_first().expect("something waits");
                    assert_eq!(message["clock"], clock, "acknowledgements come in order");
                    self.told.acknowledged.push((clock, signature));
                }
                Received::Close(code) => {
                    assert_eq!(code, 1013);
                    break;
                }
                Received::End => break,
                other => panic!("{other:?}"),
            }
        }
        self.told.connections.push(heard);
    }
}

/// Reads until it was told of a last update.
async fn read(address: SocketAddr, document: &'static str, mut last: watch::Receiver<Option<String>>) -> Told {
    let mut told = Told::default();
    loop {
        let (mut socket, first) = open_somehow(address, document).await;
        let mut heard = Heard { document: signatures(&first), ..Heard::default() };
        loop {
            let heard_last = |last: &String| heard.broadcasts.contains(last) || heard.document.contains(last);
            if last.borrow().as_ref().is_some_and(heard_last) {
                told.connections.push(heard);
                return told;
            }
            let received = tokio::select! {
                received = socket.receive() => received,
                Ok(()) = last.changed() => continue,
            };
            match received {
                Received::Json(update) if update["type"] == "update" => heard.broadcasts.push(signature(&update).to_owned()),
                Received::Close(1013) | Received::End => break,
                other => panic!("{other:?}"),
            }
        }
        told.connections.push(heard);
    }
}

/// The oracle: a connection hears the document as it was at one moment, and from then on everything that others commit,
/// once and in order. `updates` is what is there at the end.
fn check_heard(heard: &Heard, own: &BTreeSet<String>, updates: &[Stored], what: &str) {
    let all: Vec<&str> = updates.iter().map(|update| update.signature.as_str()).collect();
    let known = heard.document.len();
    assert!(known <= all.len(), "{what}: the document held more than is there");
    assert!(heard.document == all[..known], "{what}: the document is what was committed first");
    let others: Vec<&str> = all[known..].iter().copied().filter(|signature| !own.contains(*signature)).collect();
    let told = heard.broadcasts.len();
    assert!(told <= others.len(), "{what}: {told} broadcasts, and {} updates", others.len());
    let wrong = heard.broadcasts.iter().zip(&others).position(|(heard, committed)| heard != committed);
    assert_eq!(wrong, None, "{what}: broadcasts are what was committed, without a hole or a double ({told} broadcasts)");
}

fn check(told: &[Told], updates: &[Stored]) {
    check_clocks(updates);
    let by_signature: BTreeMap<&str, &Stored> = updates.iter().map(|update| (update.signature.as_str(), update)).collect();
    for (index, client) in told.iter().enumerate() {
        for (clock, signature) in &client.acknowledged {
            let stored = by_signature.get(signature.as_str());
            assert_eq!(stored.map(|stored| stored.clock), Some(*clock), "client {index}: what is acknowledged is there");
        }
        for (connection, heard) in client.connections.iter().enumerate() {
            check_heard(heard, &client.sent, updates, &format!("client {index}, connection {connection}"));
        }
    }
}

/// A run: `aborts` and `losses` are probabilities.
async fn run(seed: u64, losses: f64, aborts: f64) {
    println!("seed {seed}");
    let mut seeds = StdRng::seed_from_u64(seed);
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let commits = Commits::of("secsync");
    let judge_random = parking_lot::Mutex::new(StdRng::seed_from_u64(seeds.random()));
    let enabled = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let aborting = enabled.clone();
    let judge = move |_: Point<'_>| {
        let abort = aborting.load(std::sync::atomic::Ordering::SeqCst) && judge_random.lock().random_bool(aborts);
        if abort { Verdict::Fail(ExecutorError::Aborted) } else { Verdict::Pass }
    };
    let executor = FaultyExecutor::new(commits.executor(folder.path()).await, judge);
    let setup = Setup { executor: Some(Arc::new(executor)), folder: Some(folder), ..Setup::default() };
    let server = TestServer::with(setup).await;
    let mut snapshots = BTreeMap::new();
    for document in DOCUMENTS {
        snapshots.insert(document, create(server.address, "secsync", document, &Author::new(99)).await.1);
    }
    let mut fates = StdRng::seed_from_u64(seeds.random());
    commits.decide(move || {
        let delay = if fates.random_bool(0.3) { fates.random_range(0..8) } else { 0 };
        (Duration::from_millis(delay), if fates.random_bool(losses) { Fate::Lost } else { Fate::Kept })
    });
    enabled.store(true, std::sync::atomic::Ordering::SeqCst);
    let (mut writing, mut reading, mut lasts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for document in DOCUMENTS {
        let (last, _) = watch::channel(None);
        let readers: Vec<_> = (0..2).map(|_| tokio::spawn(read(server.address, document, last.subscribe()))).collect();
        reading.insert(document, readers);
        lasts.insert(document, last);
        let writers: Vec<_> = (1..=WRITERS_PER_DOCUMENT)
            .map(|number| {
                let (author, snapshot_id) = (Author::new(number), snapshots[document].id.clone());
                let random = StdRng::seed_from_u64(seeds.random());
                let told = Told::default();
                tokio::spawn(Writer { address: server.address, document, author, snapshot_id, random, refusals: aborts > 0.0, told }.run())
            })
            .collect();
        writing.insert(document, writers);
    }
    let mut told = BTreeMap::<&str, Vec<Told>>::new();
    for (document, writers) in writing {
        for writer in writers {
            told.entry(document).or_default().push(writer.await.expect("the writer is content"));
        }
    }
    commits.decide(|| (Duration::ZERO, Fate::Kept));
    enabled.store(false, std::sync::atomic::Ordering::SeqCst);
    for (document, readers) in reading {
        // One last update, so that the readers know when they have heard everything.
        let (mut socket, _) = open(server.address, document).await;
        let last = Author::new(100).update(document, &snapshots[document].id, 0, b"last");
        socket.send(&last).await;
        while socket.json().await["type"] != json!("update-saved") {}
        lasts[document].send_replace(Some(signature(&last).to_owned()));
        for reader in readers {
            told.entry(document).or_default().push(reader.await.expect("the reader is content"));
        }
    }
    for (document, told) in told {
        check(&told, &stored(server.folder(), "secsync", document));
    }
}

fn seed() -> u64 {
    std::env::var("SYNCLINE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_what_holds_whatever_group_is_lost() {
    for _ in 0..3 * scale() {
        run(seed(), 0.1, 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_what_holds_whatever_is_aborted_or_lost() {
    for _ in 0..2 * scale() {
        run(seed(), 0.05, 0.02).await;
    }
}
