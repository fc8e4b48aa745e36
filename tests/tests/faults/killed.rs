//! `kill -9` of the shipped binary under load: what was acknowledged is there, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;
use syncline_tests::process::Process;
use syncline_tests::scale;
use syncline_tests::secsync::Author;
use syncline_tests::socket::{Received, Socket};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::documents::{author_and_clock, check_clocks, create, open, saved, signature, stored};

const WRITERS: u8 = 4;
const PIPELINED: usize = 16;

/// Counts acknowledgements, and tells when there are enough for this run.
struct Enough {
    left: AtomicUsize,
    reached: Notify,
}

/// Writes until the server is gone; signatures of what was acknowledged, by clock from `first` on.
async fn write(mut socket: Socket, author: Author, snapshot_id: String, first: u64, enough: Arc<Enough>) -> Vec<(u64, String)> {
    let (mut next, mut waiting, mut acknowledged) = (first, std::collections::VecDeque::new(), Vec::new());
    loop {
        while waiting.len() < PIPELINED {
            let update = author.update("d", &snapshot_id, next, &rand::random::<[u8; 16]>());
            waiting.push_back((next, signature(&update).to_owned()));
            next += 1;
            if socket.try_send(Message::text(update.to_string())).await.is_err() {
                break;
            }
        }
        match socket.receive().await {
            Received::Json(message) if message["type"] == "update" => {}
            Received::Json(message) => {
                let oldest = waiting.pop_front().expect("something waits");
                assert_eq!((&message["type"], &message["clock"]), (&"update-saved".into(), &oldest.0.into()));
                acknowledged.push(oldest);
                if enough.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    enough.reached.notify_one();
                }
            }
            Received::End => return acknowledged,
            other => panic!("{other:?}"),
        }
    }
}

/// Clocks of an author in a document.
async fn clocks_of(address: SocketAddr, author: &Author) -> (Socket, u64) {
    let (socket, document) = open(address, "d").await;
    let updates = document["updates"].as_array().expect("a list").iter().map(author_and_clock);
    (socket, updates.filter(|(name, _)| *name == author.public_key()).count() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = Vec::new();
    let mut snapshot_id = None;
    for round in 0..3 * scale() {
        let process = Process::start(folder.path(), &["--log-level", "error"]).await;
        let snapshot_id = match &snapshot_id {
            Some(id) => String::clone(id),
            None => snapshot_id.insert(create(process.address, "secsync", "d", &Author::new(99)).await.1.id).clone(),
        };
        let left = rand::rng().random_range(50..400);
        let enough = Arc::new(Enough { left: AtomicUsize::new(left), reached: Notify::new() });
        let mut writers = Vec::new();
        for number in 1..=WRITERS {
            let author = Author::new(number);
            let (socket, first) = clocks_of(process.address, &author).await;
            writers.push(tokio::spawn(write(socket, author, snapshot_id.clone(), first, enough.clone())));
        }
        let reached = tokio::time::timeout(syncline_tests::DEADLINE, enough.reached.notified()).await;
        reached.expect("writers come along");
        process.kill().await;
        for writer in writers {
            acknowledged.extend(writer.await.expect("the writer is content"));
        }
        let process = Process::start(folder.path(), &["--log-level", "error"]).await;
        let (_socket, document) = open(process.address, "d").await;
        let there: Vec<&str> = document["updates"].as_array().expect("a list").iter().map(signature).collect();
        let updates = stored(folder.path(), "secsync", "d");
        check_clocks(&updates);
        assert_eq!(there, updates.iter().map(|update| update.signature.as_str()).collect::<Vec<_>>(), "round {round}");
        for (clock, signature) in &acknowledged {
            let found: Vec<_> = updates.iter().filter(|update| update.signature == *signature).map(|update| update.clock).collect();
            assert_eq!(found, [*clock], "round {round}: what was acknowledged is there once");
        }
        let (mut socket, next) = clocks_of(process.address, &Author::new(1)).await;
        socket.send(&Author::new(1).update("d", &snapshot_id, next, b"after")).await;
        saved(&mut socket, next).await;
        process.kill().await;
    }
}
