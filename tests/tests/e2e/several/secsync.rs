//! Documents whose clients are connected to different servers.

use std::net::SocketAddr;

use serde_json::{Value, json};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::secsync_mount;
use syncline_tests::socket::Socket;

use super::Pair;
use crate::support::{ask, place, relayed, relayed_snapshot, snapshot_saved};

const DOCUMENT: &str = "doc";

async fn joined(address: SocketAddr) -> Socket {
    let mut socket = Socket::connect(address, &place(DOCUMENT, "k")).await;
    socket.json_of("document").await;
    socket
}

async fn pair() -> Pair {
    Pair::start(vec![secsync_mount("secsync", json!({}))]).await
}

/// A document with a first snapshot, written at the first of both.
async fn with_snapshot(pair: &Pair, author: &Author) -> Snapshot {
    let mut socket = joined(pair.servers[0].address).await;
    let snapshot = author.first_snapshot(DOCUMENT, b"first");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    socket.close().await;
    snapshot
}

/// Saves updates one after the other, whatever others do meanwhile.
async fn write(mut socket: Socket, author: &Author, snapshot: &Snapshot, count: u64) {
    for clock in 0..count {
        let update = author.update(DOCUMENT, &snapshot.id, clock, format!("update {clock}").as_bytes());
        socket.send(&update).await;
        while socket.json().await["type"] != "update-saved" {}
    }
}

/// The updates that a reader sees, in their order.
async fn read(mut socket: Socket, count: u64) -> Vec<Value> {
    let mut updates = Vec::new();
    while updates.len() as u64 != count {
        let update = socket.json_of("update").await;
        updates.push(update["publicData"].clone());
    }
    updates
}

/// Writers at both servers at once, and readers of both: all see the same.
async fn everybody_sees_the_same(pair: &Pair, count: u64, meanwhile: impl Future<Output = ()>) {
    let (a, b) = (Author::new(1), Author::new(2));
    let snapshot = with_snapshot(pair, &a).await;
    let [here, there] = pair.addresses();
    let writers = [joined(here).await, joined(there).await];
    let readers = [joined(here).await, joined(there).await];
    let ([first, second], [reader_here, reader_there]) = (writers, readers);
    let ((), (), seen_here, seen_there, ()) = tokio::join!(
        write(first, &a, &snapshot, count),
        write(second, &b, &snapshot, count),
        read(reader_here, 2 * count),
        read(reader_there, 2 * count),
        meanwhile,
    );
    assert_eq!(seen_here, seen_there, "in the same order");
    for author in [&a, &b] {
        let clocks: Vec<_> =
            seen_here.iter().filter(|update| update["pubKey"] == author.public_key()).map(|update| update["clock"].as_u64()).collect();
        assert_eq!(clocks, (0..count).map(Some).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_both_see_everything_in_the_same_order() {
    let pair = pair().await;
    everybody_sees_the_same(&pair, 25, async {}).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_by_those_whose_servers_do_not_hear_for_a_while() {
    let pair = pair().await;
    let deafen = async {
        for _ in 0..4 {
            tokio::task::block_in_place(|| pair.deafen());
            syncline_tests::eventually("both listen again", async || {
                let mut ready = true;
                for address in pair.addresses() {
                    ready &= crate::raw::get(address, "/readyz").await.status == 200;
                }
                ready.then_some(())
            })
            .await;
        }
    };
    everybody_sees_the_same(&pair, 40, deafen).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_join_while_others_write_miss_nothing() {
    let pair = pair().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let snapshot = with_snapshot(&pair, &a).await;
    let [here, there] = pair.addresses();
    // The only client of its server each time, so that nobody there has seen anything before.
    let join = async {
        for _ in 0..12 {
            let mut socket = Socket::connect(there, &place(DOCUMENT, "k")).await;
            let document = socket.json_of("document").await;
            let mut next = document["updates"].as_array().map_or(0, Vec::len) as u64;
            while next < 60 {
                let update = socket.json_of("update").await;
                assert_eq!(update["publicData"]["clock"], next, "after {} updates of the document", document["updates"]);
                next += 1;
                if next.is_multiple_of(5) {
                    break;
                }
            }
            socket.close().await;
        }
    };
    tokio::join!(write(joined(here).await, &b, &snapshot, 60), join);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_crosses_and_so_does_what_is_not_kept() {
    let pair = pair().await;
    let a = Author::new(1);
    let snapshot = with_snapshot(&pair, &a).await;
    let [here, there] = pair.addresses();
    let (mut writer, mut reader) = (joined(here).await, joined(there).await);
    for (clock, bytes) in [(0, 6_000), (1, 9_000), (2, 300_000), (3, 10)] {
        let update = a.update(DOCUMENT, &snapshot.id, clock, &vec![b'x'; bytes]);
        writer.send(&update).await;
        assert_eq!(writer.json_of("update-saved").await["clock"], clock);
        assert_eq!(reader.json().await, relayed("update", &update));
        let message = a.ephemeral(DOCUMENT, &vec![b'y'; bytes]);
        writer.send(&message).await;
        assert_eq!(reader.json().await, relayed("ephemeral-message", &message));
    }
    let clocks = [(a.public_key(), 3)].into();
    let next = a.snapshot_on(&snapshot, &clocks, b"next");
    assert_eq!(ask(&mut writer, &next.frame).await, snapshot_saved(&next));
    assert_eq!(reader.json().await, relayed_snapshot(&next));
    pair.stop().await;
}
