//! From when a connection gets broadcasts (section 2.4), and in which order (section 8).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use syncline_tests::scale;
use syncline_tests::secsync::Author;
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;
use tokio::task::JoinSet;

use crate::raw::{self, FIN, RawConnection, TEXT};
use crate::support::*;

const WRITERS: u8 = 4;

/// What tells one update from another: its author and clock.
fn mark(update: &Value) -> (String, u64) {
    let public_data = &update["publicData"];
    let author = public_data["pubKey"].as_str().expect("an author").to_owned();
    (author, public_data["clock"].as_u64().expect("a clock"))
}

/// Writes so many updates, a few ahead of their answers.
async fn write(server: Arc<TestServer>, author: Author, snapshot_id: String, count: u64) {
    let mut socket = join(&server, "doc").await;
    for first in (0..count).step_by(8) {
        let clocks = first..count.min(first + 8);
        for clock in clocks.clone() {
            socket.send(&author.update("doc", &snapshot_id, clock, b"x")).await;
        }
        for clock in clocks {
            let answer = loop {
                let message = socket.json().await;
                if message["type"] != "update" {
                    break message;
                }
                assert_ne!(mark(&message).0, author.public_key(), "nobody gets what it sent");
            };
            assert_eq!(answer, update_saved(&snapshot_id, clock));
        }
    }
    socket.close().await;
}

/// Joins, and reads until it has everything: the document first, then each update once, without a gap per author.
async fn read_all(server: &TestServer, total: usize) -> Vec<(String, u64)> {
    let (mut socket, document) = open(server, &place("doc", "k")).await;
    let mut seen: Vec<_> = document["updates"].as_array().expect("updates").iter().map(mark).collect();
    let mut clocks = BTreeMap::new();
    for (author, clock) in &seen {
        assert_eq!(clocks.insert(author.clone(), *clock).map_or(0, |last| last + 1), *clock, "in the document");
    }
    let in_document = seen.len();
    while seen.len() < total {
        let (author, clock) = mark(&socket.json_of("update").await);
        let expected = clocks.get(&author).map_or(0, |last| last + 1);
        assert_eq!(clock, expected, "after {in_document} updates in the document and {} broadcasts", seen.len() - in_document);
        clocks.insert(author.clone(), clock);
        seen.push((author, clock));
    }
    socket.close().await;
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joiners_during_writes_see_each_update_once_and_all_in_one_order() {
    for round in 0..5 * scale() {
        let server = Arc::new(TestServer::start().await);
        let (owner, snapshot) = with_snapshot(&server, "doc", &Author::new(99)).await;
        owner.close().await;
        let (each, mut tasks, mut readers) = (40, JoinSet::new(), JoinSet::new());
        for seed in 0..WRITERS {
            tasks.spawn(write(server.clone(), Author::new(seed), snapshot.id.clone(), each));
        }
        let total = usize::try_from(each).expect("small") * usize::from(WRITERS);
        // Each joins while the writers write, a little later than the one before it.
        for _ in 0..12 {
            let server = server.clone();
            load(&server, &place("doc", "k")).await;
            readers.spawn(async move { read_all(&server, total).await });
        }
        let orders = readers.join_all().await;
        tasks.join_all().await;
        let stored = read_all(&server, total).await;
        for order in orders {
            assert_eq!(order, stored, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joiners_while_snapshots_follow_each_other_get_a_state_and_all_that_follows_it() {
    let server = Arc::new(TestServer::start().await);
    let author = Author::new(1);
    let (mut writer, mut snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut readers = JoinSet::new();
    let rounds = 60 * scale();
    for round in 0..rounds {
        if round % 5 == 0 {
            let server = server.clone();
            readers.spawn(async move { follow(&server).await });
        }
        save(&mut writer, &author.update("doc", &snapshot.id, 0, b"x")).await;
        snapshot = save_on(&mut writer, &author, &snapshot, &[(&author, 0)]).await;
    }
    save(&mut writer, &author.update("doc", &snapshot.id, 0, b"the end")).await;
    save(&mut writer, &author.update("doc", &snapshot.id, 1, b"the end")).await;
    for last in readers.join_all().await {
        assert_eq!(last, snapshot.id);
    }
}

/// Follows a document of one author with one update a snapshot, until a second update; the last snapshot.
async fn follow(server: &TestServer) -> String {
    let (mut socket, document) = open(server, &place("doc", "k")).await;
    let id = |snapshot: &Value| snapshot["publicData"]["snapshotId"].as_str().expect("an id").to_owned();
    let (mut active, mut updates) = (id(&document["snapshot"]), document["updates"].as_array().expect("updates").len());
    while updates < 2 {
        let message = socket.json().await;
        if message["type"] == "snapshot" {
            assert_eq!(message["snapshot"]["publicData"]["parentSnapshotId"], active.as_str());
            assert_eq!(updates, 1, "the update on the parent came before it");
            (active, updates) = (id(&message["snapshot"]), 0);
        } else {
            assert_eq!(message["publicData"]["refSnapshotId"], active.as_str(), "{message}");
            assert_eq!(mark(&message).1, u64::try_from(updates).expect("small"));
            updates += 1;
        }
    }
    socket.close().await;
    active
}

#[tokio::test]
async fn frames_sent_before_the_document_came_are_handled_after_it() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let first = author.first_snapshot("doc", b"x");
    let mut connection = RawConnection::connect(server.address).await;
    let handshake = "GET /secsync/doc?sessionKey=k HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut bytes = handshake.as_bytes().to_vec();
    bytes.extend(raw::frame(FIN | TEXT, first.frame.to_string().as_bytes()));
    for clock in 0..3 {
        bytes.extend(raw::frame(FIN | TEXT, author.update("doc", &first.id, clock, b"u").to_string().as_bytes()));
    }
    connection.send(&bytes).await;
    assert_eq!(connection.response(true).await.status, 101);
    let mut answers: Vec<Value> = Vec::new();
    for _ in 0..5 {
        let message = connection.message().await.expect("an answer");
        answers.push(serde_json::from_str(message.text()).expect("JSON"));
    }
    let document = json!({"type": "document", "updates": [], "snapshotProofChain": []});
    let saved = |clock| update_saved(&first.id, clock);
    assert_eq!(answers, [document, snapshot_saved(&first), saved(0), saved(1), saved(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_open_a_new_document_at_once_all_get_it() {
    let server = Arc::new(TestServer::start().await);
    for round in 0..10 * scale() {
        let mut openers = JoinSet::new();
        for _ in 0..8 {
            let server = server.clone();
            openers.spawn(async move { open(&server, &place(&format!("new-{round}"), "k")).await });
        }
        let mut sockets: Vec<Socket> = Vec::new();
        while let Some(opened) = openers.join_next().await {
            let (socket, document) = opened.expect("nobody fails");
            assert_eq!(document, json!({"type": "document", "updates": [], "snapshotProofChain": []}));
            sockets.push(socket);
        }
        let snapshot = Author::new(1).first_snapshot(&format!("new-{round}"), b"x");
        assert_eq!(ask(&mut sockets[0], &snapshot.frame).await, snapshot_saved(&snapshot));
        for socket in &mut sockets[1..] {
            assert_eq!(socket.json().await, relayed_snapshot(&snapshot));
        }
    }
}

#[tokio::test]
async fn all_others_get_a_broadcast_also_sessions_and_authors_that_are_the_same() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut sender, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut same = join(&server, "doc").await;
    let mut other = open(&server, &place("doc", "k2")).await.0;
    let mut elsewhere = join(&server, "doc2").await;
    let update = author.update("doc", &snapshot.id, 0, b"u");
    save(&mut sender, &update).await;
    let ephemeral = author.ephemeral("doc", b"e");
    sender.send(&ephemeral).await;
    let next = save_on(&mut sender, &author, &snapshot, &[(&author, 0)]).await;
    for socket in [&mut same, &mut other] {
        assert_eq!(socket.json().await, relayed("update", &update));
        assert_eq!(socket.json().await, relayed("ephemeral-message", &ephemeral));
        assert_eq!(socket.json().await, relayed_snapshot(&next));
    }
    nothing_waits(&mut sender).await;
    nothing_waits(&mut elsewhere).await;
}

#[tokio::test]
async fn ephemeral_messages_of_a_sender_keep_their_order_and_are_not_kept() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut sender = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let messages: Vec<_> = (0..200_u32).map(|number| author.ephemeral("doc", &number.to_be_bytes())).collect();
    for message in &messages {
        sender.send(message).await;
    }
    for message in &messages {
        assert_eq!(other.json().await, relayed("ephemeral-message", message));
    }
    nothing_waits(&mut join(&server, "doc").await).await;
}
