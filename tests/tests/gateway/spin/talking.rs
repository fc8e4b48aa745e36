//! What clients say to each other while all goes well.

use std::net::SocketAddr;

use serde_json::json;
use syncline_tests::plasma::{alice, mutation};
use syncline_tests::secsync::{Author, place, relayed, relayed_snapshot, snapshot_saved, update_saved};
use syncline_tests::socket::{Received, Socket};
use tokio::task::JoinSet;

use super::{Deployment, ask, counts, first_snapshot, mark, marks, open};

const UPDATES_EACH: u64 = 25;

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_joined_written_and_read() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let (ann, bob) = (Author::new(1), Author::new(2));
    let (mut writer, document) = open(gateway.address, &place("doc", "k")).await;
    assert_eq!(document, json!({"type": "document", "updates": [], "snapshotProofChain": []}));
    let (mut reader, _) = open(gateway.address, &place("doc", "k")).await;

    let first = first_snapshot(&mut writer, &ann, "doc").await;
    assert_eq!(reader.json().await, relayed_snapshot(&first));
    let updates = [(&ann, 0), (&ann, 1), (&bob, 0)].map(|(author, clock)| author.update("doc", &first.id, clock, b"x"));
    for update in &updates {
        assert_eq!(ask(&mut writer, update).await, update_saved(&first.id, mark(update).1));
        assert_eq!(reader.json().await, relayed("update", update));
    }
    let message = bob.ephemeral("doc", b"here");
    reader.send(&message).await;
    assert_eq!(writer.json().await, relayed("ephemeral-message", &message));

    let (late, document) = open(gateway.address, &place("doc", "k")).await;
    assert_eq!(document["snapshot"], first.frame);
    assert_eq!(marks(&document), updates.each_ref().map(mark));
    late.close().await;

    let clocks = [(ann.public_key(), 1), (bob.public_key(), 0)].into();
    let next = bob.snapshot_on(&first, &clocks, b"next");
    assert_eq!(ask(&mut reader, &next.frame).await, snapshot_saved(&next));
    assert_eq!(writer.json().await, relayed_snapshot(&next));
    let (_, document) = open(gateway.address, &place("doc", "k")).await;
    assert_eq!((&document["snapshot"], marks(&document)), (&next.frame, vec![]));
    assert_eq!(gateway.terminate().await, 0);
    assert_eq!(writer.closed().await, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_who_may_do_what() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let at = |document: &str, key: &str| format!("/secsync-policy/{document}?sessionKey={key}&mode=complete");
    let author = Author::new(1);
    for (document, key, refusal) in [("pol-1", "stranger", "unauthorized"), ("nope-1", "writer", "document-not-found")] {
        let mut socket = Socket::connect(gateway.address, &at(document, key)).await;
        assert_eq!(socket.json().await, json!({"type": refusal}));
        assert_eq!(socket.receive().await, Received::Close(1005));
    }
    let (mut writer, _) = open(gateway.address, &at("pol-1", "writer")).await;
    let (mut reader, _) = open(gateway.address, &at("pol-1", "reader")).await;
    let (mut muted, _) = open(gateway.address, &at("pol-1", "muted")).await;
    let snapshot = first_snapshot(&mut writer, &author, "pol-1").await;
    assert_eq!(reader.json().await, relayed_snapshot(&snapshot));
    let update = author.update("pol-1", &snapshot.id, 0, b"x");
    assert_eq!(ask(&mut reader, &update).await, json!({"type": "unauthorized"}));
    assert_eq!(reader.receive().await, Received::Close(1005));
    assert_eq!(ask(&mut writer, &update).await, update_saved(&snapshot.id, 0));
    // What the muted one hears first is the answer to its own writing, which it may not do.
    assert_eq!(ask(&mut muted, &update).await, json!({"type": "unauthorized"}));
}

/// Reads until so many updates came, those of the document first.
async fn read(address: SocketAddr, total: usize) -> Vec<(String, u64)> {
    let (mut socket, document) = open(address, &place("doc", "k")).await;
    let mut seen = marks(&document);
    while seen.len() < total {
        seen.push(mark(&socket.json_of("update").await));
    }
    seen
}

async fn write(address: SocketAddr, author: Author, snapshot_id: String) {
    let (mut socket, _) = open(address, &place("doc", "k")).await;
    for clock in 0..UPDATES_EACH {
        socket.send(&author.update("doc", &snapshot_id, clock, b"x")).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_two_gateways_are_seen_in_one_order_at_both() {
    let deployment = Deployment::start().await;
    let gateways = [deployment.gateway().await, deployment.gateway().await];
    let (mut owner, _) = open(gateways[0].address, &place("doc", "k")).await;
    let snapshot = first_snapshot(&mut owner, &Author::new(9), "doc").await;
    let (mut readers, mut writers) = (JoinSet::new(), JoinSet::new());
    let total = usize::try_from(2 * UPDATES_EACH).expect("small");
    for (gateway, seed) in gateways.iter().zip(1..) {
        readers.spawn(read(gateway.address, total));
        writers.spawn(write(gateway.address, Author::new(seed), snapshot.id.clone()));
        // These come while the others write.
        readers.spawn(read(gateway.address, total));
    }
    writers.join_all().await;
    let (_, document) = open(gateways[1].address, &place("doc", "k")).await;
    let order = marks(&document);
    assert_eq!(counts(&order).into_values().collect::<Vec<_>>(), [UPDATES_EACH; 2]);
    for seen in readers.join_all().await {
        assert_eq!(seen, order);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_reach_everybody_else_at_every_gateway() {
    let deployment = Deployment::start().await;
    let gateways = [deployment.gateway().await, deployment.gateway().await];
    let author = Author::new(1);
    let (mut speaker, _) = open(gateways[0].address, &place("doc", "k")).await;
    let (mut near, _) = open(gateways[0].address, &place("doc", "k")).await;
    let (mut far, _) = open(gateways[1].address, &place("doc", "k")).await;
    let (mut elsewhere, _) = open(gateways[1].address, &place("other", "k")).await;
    let messages: Vec<_> = (0..10_u8).map(|number| author.ephemeral("doc", &[number])).collect();
    for message in &messages {
        speaker.send(message).await;
    }
    for listener in [&mut near, &mut far] {
        for message in &messages {
            assert_eq!(listener.json().await, relayed("ephemeral-message", message));
        }
    }
    // Neither the speaker nor others hear anything of it: what comes next is the answer to what comes next.
    first_snapshot(&mut speaker, &author, "doc").await;
    first_snapshot(&mut elsewhere, &author, "other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plasma_is_served_through_a_gateway_as_without_it() {
    let deployment = Deployment::start().await;
    let gateway = deployment.gateway().await;
    let mut events = alice(gateway.address).events("").await;
    let mut socket = Socket::connect(gateway.address, "/sync/ws?auth=tok-bob").await;
    socket.json_of("hello").await;
    events.next_of("hello").await;
    let created = mutation("c", 1, "createTodo", json!({"id": "1", "title": "x", "shared": true}));
    alice(gateway.address).push("c", &[created]).await;
    events.next_of("poke").await;
    socket.json_of("poke").await;
}
