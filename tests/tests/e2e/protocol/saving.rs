//! Conversations of sections 4.3 and 5.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use syncline_tests::scale;
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;
use tokio::task::JoinSet;

use crate::support::*;

#[tokio::test]
async fn a_second_client_joins_writes_and_comes_back_with_a_delta() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let (mut first, document) = open(&server, &place("notes-1", "k1")).await;
    assert_eq!(document, json!({"type": "document", "updates": [], "snapshotProofChain": []}));
    let n1 = a.first_snapshot("notes-1", b"hello");
    assert_eq!(ask(&mut first, &n1.frame).await, snapshot_saved(&n1));

    let (mut second, document) = open(&server, &place("notes-1", "k2")).await;
    assert_eq!(document, json!({"type": "document", "snapshot": n1.frame, "updates": [], "snapshotProofChain": []}));
    for (from_second, content) in [(true, b"1"), (false, b"2"), (true, b"3")] {
        let (author, from, to) = if from_second { (&b, &mut second, &mut first) } else { (&a, &mut first, &mut second) };
        let message = author.ephemeral("notes-1", content);
        from.send(&message).await;
        assert_eq!(to.json().await, relayed("ephemeral-message", &message));
    }
    let b0 = b.update("notes-1", &n1.id, 0, b"b0");
    save(&mut second, &b0).await;
    assert_eq!(first.json().await, relayed("update", &b0));

    second.close().await;
    let a0 = a.update("notes-1", &n1.id, 0, b"a0");
    save(&mut first, &a0).await;
    let (mut second, document) = open(&server, &place_after("notes-1", "delta", &n1.id, &clocks(&[(&b, 0)]))).await;
    assert_eq!(document, json!({"type": "document", "updates": [a0]}));
    let again = b.update("notes-1", &n1.id, 0, b"typed meanwhile");
    assert_eq!(ask(&mut second, &again).await, update_refused(&n1.id, 0));
    let b1 = b.update("notes-1", &n1.id, 1, b"typed meanwhile");
    save(&mut second, &b1).await;
    assert_eq!(first.json().await, relayed("update", &b1));
}

#[tokio::test]
async fn the_second_of_two_first_snapshots_sees_the_first_before_it_is_refused_and_goes_on_from_it() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let (mut first, mut second) = (join(&server, "doc").await, join(&server, "doc").await);
    let (of_a, of_b) = (a.first_snapshot("doc", b"a"), b.first_snapshot("doc", b"b"));
    assert_eq!(ask(&mut first, &of_a.frame).await, snapshot_saved(&of_a));
    second.send(&of_b.frame).await;
    assert_eq!(second.json().await, relayed_snapshot(&of_a));
    let refused = json!({"type": "snapshot-save-failed", "snapshot": of_a.frame, "updates": [], "snapshotProofChain": []});
    assert_eq!(second.json().await, refused);
    let next = save_on(&mut second, &b, &of_a, &[]).await;
    assert_eq!(first.json().await, relayed_snapshot(&next));
}

/// Sends a first snapshot at the same time as others do; true if it won.
async fn race(mut socket: Socket, frame: Value, barrier: Arc<tokio::sync::Barrier>) -> (bool, Value) {
    barrier.wait().await;
    socket.send(&frame).await;
    let answer = socket.json().await;
    if answer["type"] == "snapshot-saved" {
        assert_eq!(answer["snapshotId"], frame["publicData"]["snapshotId"]);
        return (true, frame);
    }
    // The winner's broadcast comes before the refusal.
    assert_eq!(answer["type"], "snapshot", "{answer}");
    let winner = answer["snapshot"].clone();
    let refused = json!({"type": "snapshot-save-failed", "snapshot": winner, "updates": [], "snapshotProofChain": []});
    assert_eq!(socket.json().await, refused);
    (false, winner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_first_snapshots_at_once_one_wins_and_each_loser_sees_it_before_its_refusal() {
    let server = TestServer::start().await;
    for round in 0..20 * scale() {
        let document = format!("race-{round}");
        let barrier = Arc::new(tokio::sync::Barrier::new(5));
        let mut racers = JoinSet::new();
        for seed in 0..5 {
            let frame = Author::new(seed).first_snapshot(&document, b"x").frame;
            racers.spawn(race(join(&server, &document).await, frame, barrier.clone()));
        }
        let results = racers.join_all().await;
        assert_eq!(results.iter().filter(|(won, _)| *won).count(), 1);
        let stored = load(&server, &place(&document, "k")).await;
        for (_, winner) in &results {
            assert_eq!(*winner, stored["snapshot"]);
        }
    }
}

#[tokio::test]
async fn pipelined_updates_behind_a_refused_one_are_refused_quietly() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    for clock in [1, 2, 3, 4] {
        socket.send(&author.update("doc", &snapshot.id, clock, b"x")).await;
    }
    assert_eq!(socket.json().await, update_refused(&snapshot.id, 1));
    nothing_waits(&mut socket).await;
    // Neither one below nor one further is behind it.
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 9, b"x")).await, update_refused(&snapshot.id, 9));
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 8, b"x")).await, update_refused(&snapshot.id, 8));
    // Another author has a row of its own.
    assert_eq!(ask(&mut socket, &Author::new(2).update("doc", &snapshot.id, 9, b"x")).await, update_refused(&snapshot.id, 9));
    // An accepted update clears the mark.
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 1, b"x")).await, update_refused(&snapshot.id, 1));
    save(&mut socket, &author.update("doc", &snapshot.id, 0, b"x")).await;
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 2, b"x")).await, update_refused(&snapshot.id, 2));
    // A new connection begins without one.
    let mut other = join(&server, "doc").await;
    assert_eq!(ask(&mut other, &author.update("doc", &snapshot.id, 3, b"x")).await, update_refused(&snapshot.id, 3));
}

#[tokio::test]
async fn quiet_refusals_can_be_switched_off() {
    let server = TestServer::with_settings(json!({"quiet_pipelined_refusals": false})).await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    for clock in [1, 2, 3] {
        assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, clock, b"x")).await, update_refused(&snapshot.id, clock));
    }
}

#[tokio::test]
async fn at_the_limit_of_updates_a_new_snapshot_is_demanded_every_time() {
    let limits = json!({"max_updates_per_snapshot": {"limited-*": 3, "limited-more-*": 5, "*": 0}});
    let server = TestServer::with_settings(limits).await;
    let author = Author::new(1);
    for (document, limit) in [("limited-1", 3), ("limited-more-1", 5), ("free", u64::MAX)] {
        let (mut socket, snapshot) = with_snapshot(&server, document, &author).await;
        let update = |clock| author.update(document, &snapshot.id, clock, b"x");
        for clock in 0..limit.min(10) {
            save(&mut socket, &update(clock)).await;
        }
        if limit > 10 {
            continue;
        }
        let demanded =
            |clock| json!({"type": "update-save-failed", "snapshotId": snapshot.id, "clock": clock, "requiresNewSnapshot": true});
        // Pipelined ones are told as well, and whatever clock they have.
        for clock in [limit, limit + 1, limit + 2, limit, 0] {
            let other = author.update(document, &snapshot.id, clock, b"y");
            assert_eq!(ask(&mut socket, &other).await, demanded(clock));
        }
        // One that is stored is acknowledged, limit or not.
        save(&mut socket, &update(0)).await;
        let next = save_on(&mut socket, &author, &snapshot, &[(&author, limit - 1)]).await;
        save(&mut socket, &author.update(document, &next.id, 0, b"x")).await;
    }
}

#[tokio::test]
async fn after_a_snapshot_that_missed_updates_those_of_others_wait_for_the_retry() {
    let server = TestServer::with_settings(json!({"snapshot_grace_ms": 2000})).await;
    let (a, b) = (Author::new(1), Author::new(2));
    let (mut first, snapshot) = with_snapshot(&server, "doc", &a).await;
    let mut second = join(&server, "doc").await;
    let b0 = b.update("doc", &snapshot.id, 0, b"b0");
    save(&mut second, &b0).await;
    assert_eq!(first.json().await, relayed("update", &b0));
    let behind = a.snapshot_on(&snapshot, &BTreeMap::new(), b"x");
    assert_eq!(ask(&mut first, &behind.frame).await, json!({"type": "snapshot-save-failed", "updates": [b0]}));
    second.send(&b.update("doc", &snapshot.id, 1, b"b1")).await;
    // The author whose retry is waited for may write.
    let next = save_on(&mut first, &a, &snapshot, &[(&b, 0)]).await;
    assert_eq!(second.json().await, relayed_snapshot(&next));
    assert_eq!(second.json().await, update_refused(&snapshot.id, 1));
    save(&mut second, &b.update("doc", &next.id, 0, b"b1")).await;
}

#[tokio::test]
async fn updates_of_others_do_not_wait_for_ever_for_a_retry_that_never_comes() {
    let server = TestServer::with_settings(json!({"snapshot_grace_ms": 50})).await;
    let (a, b) = (Author::new(1), Author::new(2));
    let (mut first, snapshot) = with_snapshot(&server, "doc", &a).await;
    let mut second = join(&server, "doc").await;
    let updates: Vec<_> = (0..10).map(|clock| b.update("doc", &snapshot.id, clock, b"x")).collect();
    save(&mut second, &updates[0]).await;
    let behind = a.snapshot_on(&snapshot, &BTreeMap::new(), b"x");
    assert_eq!(first.json_of("update").await["publicData"]["clock"], 0);
    assert_eq!(ask(&mut first, &behind.frame).await["type"], "snapshot-save-failed");
    for update in &updates[1..] {
        second.send(update).await;
    }
    for (clock, update) in (1..).zip(&updates[1..]) {
        assert_eq!(second.json().await, update_saved(&snapshot.id, clock));
        assert_eq!(first.json().await, relayed("update", update));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_many_documents_at_once_are_never_refused_without_need() {
    let server = Arc::new(TestServer::start().await);
    let mut writers = JoinSet::new();
    for seed in 0..8_u8 {
        let server = server.clone();
        writers.spawn(async move {
            // Two writers a document, with authors of their own.
            let (document, author) = (format!("doc-{}", seed / 2), Author::new(seed));
            let mut socket = join(&server, &document).await;
            let first = author.first_snapshot(&document, b"x");
            let mut answer = ask(&mut socket, &first.frame).await;
            while matches!(answer["type"].as_str(), Some("snapshot" | "update")) {
                answer = socket.json().await;
            }
            // The other one may have been quicker.
            let active = match answer["snapshot"]["publicData"]["snapshotId"].as_str() {
                Some(other) => other.to_owned(),
                None => first.id,
            };
            for clock in 0..50 * u64::from(scale()) {
                socket.send(&author.update(&document, &active, clock, b"x")).await;
                let mut answer = socket.json().await;
                while answer["type"] == "update" {
                    answer = socket.json().await;
                }
                assert_eq!(answer, update_saved(&active, clock));
            }
        });
    }
    writers.join_all().await;
}

/// Sends snapshots that claim more and more updates of an author, until one of them claims exactly those that are stored.
async fn hit(mut socket: Socket, first: Snapshot, writer: String, last_clock: u64) {
    let author = Author::new(2);
    for clock in (0..last_clock).step_by(2) {
        let snapshot = author.snapshot_on(&first, &BTreeMap::from([(writer.clone(), clock)]), b"x");
        socket.send(&snapshot.frame).await;
        loop {
            let message = socket.json().await;
            match message["type"].as_str() {
                Some("update") => {}
                Some("snapshot-saved") => return socket.close().await,
                _ => break assert_eq!(message["type"], "snapshot-save-failed"),
            }
        }
    }
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_ahead_of_its_answers_sees_the_snapshot_that_ends_its_row_before_the_refusal() {
    let server = TestServer::start().await;
    let (author, count) = (Author::new(1), 60);
    for round in 0..20 * scale() {
        let document = format!("doc-{round}");
        let (mut socket, first) = with_snapshot(&server, &document, &author).await;
        let other = join(&server, &document).await;
        for clock in 0..count {
            socket.send(&author.update(&document, &first.id, clock, b"x")).await;
        }
        let hitting = tokio::spawn(hit(other, first.clone(), author.public_key(), count));
        let (mut saved, mut told) = (0, false);
        while saved < count {
            let message = socket.json().await;
            match message["type"].as_str() {
                Some("snapshot") => told = true,
                Some("update-saved") => saved += 1,
                _ => {
                    assert_eq!(message, update_refused(&first.id, saved));
                    assert!(told, "round {round}: refused before the snapshot that is the reason came");
                    break;
                }
            }
        }
        hitting.await.expect("the other one saw nothing wrong");
    }
}
