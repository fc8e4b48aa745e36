//! What clients notice of ends: of a gateway, and of Spin under their sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncline_tests::eventually;
use syncline_tests::secsync::{Author, place, update_refused, update_saved};
use syncline_tests::socket::{Received, Socket};
use tokio::task::JoinSet;

use super::{Deployment, counts, first_snapshot, mark, marks, open};

/// Before and after an end, by each writer.
const UPDATES: u64 = 10;

/// The answer to an update, what others wrote aside; none when the connection ended.
async fn answer(socket: &mut Socket) -> Option<serde_json::Value> {
    loop {
        match socket.receive().await {
            Received::Json(message) if message["type"] == "update" => {}
            Received::Json(message) => return Some(message),
            Received::Close(_) | Received::End => return None,
            other => panic!("{other:?} came"),
        }
    }
}

/// Writes at the first of the addresses; when the connection ends, at the second. How many were acknowledged.
async fn write_on(addresses: [SocketAddr; 2], author: Author, snapshot_id: String, acknowledged: Arc<AtomicU64>, enough: u64) -> u64 {
    let mut of_author = 0;
    for address in addresses {
        let (mut socket, document) = open(address, &place("doc", "k")).await;
        let own = marks(&document).iter().filter(|(writer, _)| *writer == author.public_key()).count();
        let stored = u64::try_from(own).expect("few");
        // The last one may have been saved without a word.
        assert!(stored == of_author || stored == of_author + 1, "{of_author} were acknowledged and {stored} are there");
        of_author = stored;
        while address == addresses[0] || of_author < enough {
            if socket.try_send(author.update("doc", &snapshot_id, of_author, b"x").to_string().into()).await.is_err() {
                break;
            }
            let Some(answer) = answer(&mut socket).await else { break };
            // What the killed gateway had passed on may have been saved after the document was read: then this is the second.
            let is_second = answer == update_refused(&snapshot_id, of_author) && of_author == stored && address == addresses[1];
            assert!(is_second || answer == update_saved(&snapshot_id, of_author), "{answer}");
            of_author += 1;
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
    of_author
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_loses_nothing_that_was_acknowledged() {
    let deployment = Deployment::start().await;
    let (killed, kept) = (deployment.gateway().await, deployment.gateway().await);
    let (mut witness, _) = open(kept.address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut witness, &Author::new(9), "doc").await;
    let (acknowledged, mut writers) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for seed in 1..=3 {
        let addresses = [killed.address, kept.address];
        writers.spawn(write_on(addresses, Author::new(seed), snapshot.id.clone(), acknowledged.clone(), 3 * UPDATES));
    }
    eventually("a load", async || (acknowledged.load(Ordering::Relaxed) >= 3 * UPDATES).then_some(())).await;
    killed.kill().await;
    let written: u64 = writers.join_all().await.into_iter().sum();
    let (_, document) = open(kept.address, &place("doc", "k")).await;
    let order = marks(&document);
    assert_eq!(counts(&order).into_values().sum::<u64>(), written);
    for update in &order {
        assert_eq!(mark(&witness.json_of("update").await), *update, "the witness heard each once, in this order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spin_ends_under_the_sockets_and_comes_back_and_nobody_notices() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let (mut reader, _) = open(gateway.address, &place("doc", "k")).await;
    let (mut owner, _) = open(gateway.address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut owner, &Author::new(9), "doc").await;
    reader.json_of("snapshot").await;
    let mut writers = Vec::new();
    for seed in 1..=3 {
        writers.push((Author::new(seed), open(gateway.address, &place("doc", "k")).await.0));
    }
    // Some are under way when it ends, and some come while it is away.
    send(&mut writers, &snapshot.id, 0..UPDATES).await;
    assert_eq!(answer(&mut writers[0].1).await, Some(update_saved(&snapshot.id, 0)));
    let ended = deployment.end().await;
    send(&mut writers, &snapshot.id, UPDATES..2 * UPDATES).await;
    eventually("the gateway notices", async || (gateway.status("/readyz").await == 503).then_some(())).await;
    let _deployment = ended.start().await;
    for (number, (_, socket)) in writers.iter_mut().enumerate() {
        for clock in u64::from(number == 0)..2 * UPDATES {
            assert_eq!(answer(socket).await, Some(update_saved(&snapshot.id, clock)));
        }
    }
    let (_, document) = open(gateway.address, &place("doc", "k")).await;
    let order = marks(&document);
    assert_eq!(counts(&order).into_values().collect::<Vec<_>>(), [2 * UPDATES; 3]);
    for update in &order {
        assert_eq!(mark(&reader.json_of("update").await), *update, "the reader heard each once, in this order");
    }
}

async fn send(writers: &mut [(Author, Socket)], snapshot_id: &str, clocks: std::ops::Range<u64>) {
    for clock in clocks {
        for (author, socket) in &mut *writers {
            socket.send(&author.update("doc", snapshot_id, clock, b"x")).await;
        }
    }
}
