//! The `document` frame: every row of the table of section 2.3.

use serde_json::{Value, json};
use syncline_tests::secsync::{Author, Snapshot, hash, proof_of_child};
use syncline_tests::server::TestServer;

use crate::support::*;

/// A document with three snapshots and updates of two authors on the last.
struct History {
    snapshots: [Snapshot; 3],
    /// In the order of their commits: a0 b0 a1 a2 b1.
    updates: Vec<Value>,
}

async fn history(server: &TestServer, a: &Author, b: &Author) -> History {
    let (mut socket, first) = with_snapshot(server, "doc", a).await;
    save(&mut socket, &a.update("doc", &first.id, 0, b"old")).await;
    let second = save_on(&mut socket, b, &first, &[(a, 0)]).await;
    save(&mut socket, &b.update("doc", &second.id, 0, b"old")).await;
    let third = save_on(&mut socket, a, &second, &[(b, 0)]).await;
    let mut updates = Vec::new();
    for (author, clock) in [(a, 0), (b, 0), (a, 1), (a, 2), (b, 1)] {
        let update = author.update("doc", &third.id, clock, format!("{clock}").as_bytes());
        save(&mut socket, &update).await;
        updates.push(update);
    }
    socket.close().await;
    History { snapshots: [first, second, third], updates }
}

/// The chain entries of snapshots, after each has been checked against its parent.
fn chain(snapshots: &[Snapshot]) -> Value {
    let entry = |pair: &[Snapshot]| {
        let (parent, child) = (&pair[0], &pair[1]);
        let proof = &child.frame["publicData"]["parentSnapshotProof"];
        assert_eq!(*proof, proof_of_child(&parent.frame));
        json!({
            "snapshotId": child.id, "parentSnapshotProof": proof,
            "snapshotCiphertextHash": hash(child.frame["ciphertext"].as_str().expect("a text")),
        })
    };
    snapshots.windows(2).map(entry).collect()
}

#[tokio::test]
async fn a_document_without_a_snapshot_is_empty_whatever_the_client_knows() {
    let server = TestServer::start().await;
    let (_other, foreign) = with_snapshot(&server, "other", &Author::new(1)).await;
    let empty = json!({"type": "document", "updates": [], "snapshotProofChain": []});
    for mode in ["complete", "delta", ""] {
        for known in ["", "unknown", foreign.id.as_str()] {
            assert_eq!(load(&server, &place_after("new", mode, known, &json!({"x": 3}))).await, empty);
        }
        assert_eq!(load(&server, &format!("/secsync/new?sessionKey=k&mode={mode}")).await, empty);
    }
    assert_eq!(load(&server, "/secsync/new?sessionKey=k").await, empty);
}

#[tokio::test]
async fn without_knowledge_of_this_document_everything_on_the_active_snapshot_comes() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let History { snapshots, updates } = history(&server, &a, &b).await;
    let (_other, foreign) = with_snapshot(&server, "other", &a).await;
    let all = json!({"type": "document", "snapshot": snapshots[2].frame, "updates": updates, "snapshotProofChain": []});
    for mode in ["complete", "delta", "anything"] {
        assert_eq!(load(&server, &format!("/secsync/doc?sessionKey=k&mode={mode}")).await, all);
        for known in ["unknown", foreign.id.as_str()] {
            assert_eq!(load(&server, &place_after("doc", mode, known, &clocks(&[(&a, 2), (&b, 1)]))).await, all, "{mode} {known}");
        }
    }
    let only_clocks = format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotUpdateClocks={}", encode(&clocks(&[(&a, 2)]).to_string()));
    assert_eq!(load(&server, &only_clocks).await, all);
}

#[tokio::test]
async fn on_the_known_active_snapshot_exactly_the_unknown_updates_come_compared_per_author() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let History { snapshots, updates } = history(&server, &a, &b).await;
    let active = &snapshots[2];
    let key = a.public_key();
    let pick = |indexes: &[usize]| json!(indexes.iter().map(|index| &updates[*index]).collect::<Vec<_>>());
    for (known, unknown) in [
        (clocks(&[]), pick(&[0, 1, 2, 3, 4])),
        (clocks(&[(&a, 0)]), pick(&[1, 2, 3, 4])),
        (clocks(&[(&a, 1), (&b, 0)]), pick(&[3, 4])),
        // The newest of one author says nothing about the others.
        (clocks(&[(&a, 2)]), pick(&[1, 4])),
        (clocks(&[(&b, 1)]), pick(&[0, 2, 3])),
        (clocks(&[(&a, 2), (&b, 0)]), pick(&[4])),
        (clocks(&[(&a, 2), (&b, 1)]), pick(&[])),
        (clocks(&[(&a, 99), (&b, 99)]), pick(&[])),
        (clocks(&[(&Author::new(3), 5)]), pick(&[0, 1, 2, 3, 4])),
        (json!({&key: 0.5}), pick(&[1, 2, 3, 4])),
        (json!({&key: -7}), pick(&[0, 1, 2, 3, 4])),
    ] {
        let delta = load(&server, &place_after("doc", "delta", &active.id, &known)).await;
        assert_eq!(delta, json!({"type": "document", "updates": unknown}), "{known}");
        let complete = json!({"type": "document", "snapshot": active.frame, "updates": unknown, "snapshotProofChain": []});
        assert_eq!(load(&server, &place_after("doc", "complete", &active.id, &known)).await, complete, "{known}");
    }
    let without_clocks = format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId={}", active.id);
    assert_eq!(load(&server, &without_clocks).await, json!({"type": "document", "updates": updates}));
}

#[tokio::test]
async fn a_known_ancestor_gets_the_proof_chain_from_its_child_to_the_active_snapshot() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let History { snapshots, updates } = history(&server, &a, &b).await;
    for mode in ["complete", "delta"] {
        for (known, from) in [(&snapshots[0], &snapshots[0..]), (&snapshots[1], &snapshots[1..])] {
            let expected =
                json!({"type": "document", "snapshot": snapshots[2].frame, "updates": updates, "snapshotProofChain": chain(from)});
            // Clocks on an ancestor say nothing about the active snapshot.
            for clocks in [clocks(&[]), clocks(&[(&a, 9), (&b, 9)])] {
                assert_eq!(load(&server, &place_after("doc", mode, &known.id, &clocks)).await, expected);
            }
        }
    }
}

#[tokio::test]
async fn parameters_may_come_in_any_order_and_unknown_ones_are_passed_over() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let History { snapshots, updates } = history(&server, &a, &b).await;
    let known = encode(&clocks(&[(&a, 2), (&b, 0)]).to_string());
    let id = &snapshots[2].id;
    let expected = json!({"type": "document", "updates": [updates[4]]});
    for place in [
        format!("/secsync/doc?knownSnapshotUpdateClocks={known}&knownSnapshotId={id}&mode=delta&sessionKey=k"),
        format!("/secsync/doc?a=b&&=&sessionKey=k&knownSnapshotId={id}&x[]=1&mode=delta&mode=complete&knownSnapshotUpdateClocks={known}&#"),
        format!(
            "/secsync/doc?sessionKey=k&knownSnapshotId={id}&knownSnapshotId=x&mode=delta&knownSnapshotUpdateClocks={known}&knownSnapshotUpdateClocks=x"
        ),
    ] {
        assert_eq!(load(&server, place.trim_end_matches('#')).await, expected, "{place}");
    }
}

#[tokio::test]
async fn the_snapshot_comes_without_what_was_meant_for_the_server() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let first = author.first_snapshot("doc", b"x");
    let with_data = changed(&first.frame, "/additionalServerData", json!({"secret": "s"}));
    assert_eq!(ask(&mut socket, &with_data).await, snapshot_saved(&first));
    assert_eq!(other.json().await, relayed_snapshot(&first));
    assert_eq!(load(&server, &place("doc", "k")).await["snapshot"], first.frame);
    let outdated = ask(&mut other, &author.first_snapshot("doc", b"y").frame).await;
    assert_eq!(outdated["snapshot"], first.frame);
}
