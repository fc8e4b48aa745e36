//! What clients notice of ends: of a gateway, and of Spin under their sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncline_tests::eventually;
use syncline_tests::process::Process;
use syncline_tests::secsync::{Author, Snapshot, place, update_refused, update_saved};
use syncline_tests::socket::{Received, Socket};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Deployment, counts, first_snapshot, mark, marks, open};

/// By each writer; or by all, before an end.
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

/// Somebody who writes, and connects again when the connection ends.
struct Writer {
    author: Author,
    snapshot_id: String,
    /// Of all writers.
    acknowledged: Arc<AtomicU64>,
    /// All of them begin once all are connected.
    connected: Arc<Barrier>,
}

impl Writer {
    /// Three of them, who share a count.
    fn three(snapshot: &Snapshot) -> (Vec<Self>, Arc<AtomicU64>) {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let connected = Arc::new(Barrier::new(3));
        let writer = |seed| Self {
            author: Author::new(seed),
            snapshot_id: snapshot.id.clone(),
            acknowledged: acknowledged.clone(),
            connected: connected.clone(),
        };
        ((1..=3).map(writer).collect(), acknowledged)
    }

    /// Writes so many updates: at the first address while it can, then at the last. How often the connection ended.
    async fn write(self, addresses: [SocketAddr; 2], enough: u64) -> u32 {
        let (mut ends, mut saved, mut address) = (0, 0, addresses[0]);
        loop {
            // Who knocks while Spin is away is turned away.
            let mut socket = eventually("an upgrade", async || Socket::try_connect(address, &place("doc", "k")).await.ok()).await;
            let document = socket.json_of("document").await;
            if ends == 0 {
                // Nobody is to find the first address gone before it was there.
                self.connected.wait().await;
            }
            let own = marks(&document).iter().filter(|(writer, _)| *writer == self.author.public_key()).count();
            let stored = u64::try_from(own).expect("few");
            // The last one may have been saved without a word.
            assert!(stored == saved || stored == saved + 1, "{saved} were acknowledged and {stored} are there");
            saved = stored;
            while saved < enough && self.save(&mut socket, saved, ends > 0 && saved == stored).await {
                saved += 1;
            }
            if saved == enough {
                return ends;
            }
            (ends, address) = (ends + 1, addresses[1]);
        }
    }

    /// Whether an update was saved; else the connection has ended.
    async fn save(&self, socket: &mut Socket, clock: u64, is_again: bool) -> bool {
        let update = self.author.update("doc", &self.snapshot_id, clock, b"x");
        if socket.try_send(update.to_string().into()).await.is_err() {
            return false;
        }
        let Some(answer) = answer(socket).await else { return false };
        // What was on its way when the connection ended may have been saved after the document was read: then this is the second.
        let is_second = is_again && answer == update_refused(&self.snapshot_id, clock);
        assert!(is_second || answer == update_saved(&self.snapshot_id, clock), "{answer}");
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_loses_nothing_that_was_acknowledged() {
    let deployment = Deployment::start().await;
    let (killed, kept) = (deployment.gateway().await, deployment.gateway().await);
    let (mut witness, _) = open(kept.address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut witness, &Author::new(9), "doc").await;
    let (writers, acknowledged) = Writer::three(&snapshot);
    let mut writing: JoinSet<_> = writers.into_iter().map(|writer| writer.write([killed.address, kept.address], 4 * UPDATES)).collect();
    eventually("a load", async || (acknowledged.load(Ordering::Relaxed) >= UPDATES).then_some(())).await;
    killed.kill().await;
    while let Some(ends) = writing.join_next().await {
        assert_eq!(ends.expect("nothing is lost"), 1);
    }
    everything_was_heard_once(&kept, &mut witness, 4 * UPDATES).await;
}

/// Each writer's updates are there, and one who listened heard them in this order.
async fn everything_was_heard_once(gateway: &Process, witness: &mut Socket, each: u64) {
    let (_, document) = open(gateway.address, &place("doc", "k")).await;
    let order = marks(&document);
    assert_eq!(counts(&order).into_values().collect::<Vec<_>>(), [each; 3]);
    for update in &order {
        assert_eq!(mark(&witness.json_of("update").await), *update);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spin_ends_in_the_middle_of_calls_and_nothing_is_lost_or_doubled() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let (mut witness, _) = open(gateway.address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut witness, &Author::new(9), "doc").await;
    let (writers, acknowledged) = Writer::three(&snapshot);
    let address = gateway.address;
    let mut writing: JoinSet<_> = writers.into_iter().map(|writer| writer.write([address, address], 4 * UPDATES)).collect();
    eventually("a load", async || (acknowledged.load(Ordering::Relaxed) >= UPDATES).then_some(())).await;
    let ended = deployment.end().await;
    let _deployment = ended.start().await;
    while let Some(ends) = writing.join_next().await {
        // Of a call that was under way nobody can say whether it was done: the logic closes the connection.
        assert!(ends.expect("nothing is lost") <= 1);
    }
    everything_was_heard_once(&gateway, &mut witness, 4 * UPDATES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_stay_while_spin_is_away_and_what_is_sent_meanwhile_is_done() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let (mut witness, _) = open(gateway.address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut witness, &Author::new(9), "doc").await;
    let mut writers = Vec::new();
    for seed in 1..=3 {
        writers.push((Author::new(seed), open(gateway.address, &place("doc", "k")).await.0));
    }
    let ended = deployment.end().await;
    eventually("the gateway notices", async || (gateway.status("/readyz").await == 503).then_some(())).await;
    for clock in 0..UPDATES {
        for (author, socket) in &mut writers {
            socket.send(&author.update("doc", &snapshot.id, clock, b"x")).await;
        }
    }
    let _deployment = ended.start().await;
    for (_, socket) in &mut writers {
        for clock in 0..UPDATES {
            assert_eq!(answer(socket).await, Some(update_saved(&snapshot.id, clock)));
        }
    }
    everything_was_heard_once(&gateway, &mut witness, UPDATES).await;
}
