//! Messages of the right shape that come to the wrong place or at the wrong time (sections 5.1, 5.2 and 5.3).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_tests::secsync::{Author, FIRST_PROOF, fresh_id, hash, proof_of_child};
use syncline_tests::server::TestServer;

use crate::support::*;

/// The entry of a snapshot in a proof chain.
fn chain_entry(snapshot: &syncline_tests::secsync::Snapshot) -> Value {
    let ciphertext = snapshot.frame["ciphertext"].as_str().expect("a text");
    json!({
        "snapshotId": snapshot.id, "snapshotCiphertextHash": hash(ciphertext),
        "parentSnapshotProof": snapshot.frame["publicData"]["parentSnapshotProof"],
    })
}

#[tokio::test]
async fn a_client_cannot_write_into_another_document() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut there, theirs) = with_snapshot(&server, "theirs", &author).await;
    let mut socket = join(&server, "mine").await;
    assert_eq!(ask(&mut socket, &author.first_snapshot("theirs", b"x").frame).await, bare_failure());
    let on_theirs = author.snapshot_on(&theirs, &BTreeMap::new(), b"x");
    assert_eq!(ask(&mut socket, &on_theirs.frame).await, bare_failure());
    assert_eq!(ask(&mut socket, &author.update("theirs", &theirs.id, 0, b"x")).await, update_refused(&theirs.id, 0));
    assert_eq!(ask(&mut socket, &author.update("mine", &theirs.id, 0, b"x")).await, update_refused(&theirs.id, 0));
    socket.send(&author.ephemeral("theirs", b"x")).await;
    nothing_waits(&mut socket).await;
    nothing_waits(&mut there).await;
    let stored = load(&server, &place("theirs", "k")).await;
    assert_eq!((&stored["snapshot"], &stored["updates"]), (&theirs.frame, &json!([])));
    assert_eq!(load(&server, &place("mine", "k")).await, json!({"type": "document", "updates": [], "snapshotProofChain": []}));
}

#[tokio::test]
async fn a_snapshot_id_is_used_once_in_all_documents() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut first, snapshot) = with_snapshot(&server, "one", &author).await;
    let mut second = join(&server, "two").await;
    assert_eq!(ask(&mut first, &snapshot.frame).await, bare_failure(), "sent again");
    let mut public_data = author.first_snapshot("two", b"x").frame["publicData"].clone();
    public_data["snapshotId"] = snapshot.id.clone().into();
    assert_eq!(ask(&mut second, &author.sign("secsync_snapshot", public_data.clone(), b"x")).await, bare_failure());
    // In its own document the id is refused before the parent is looked at.
    public_data["docId"] = "one".into();
    assert_eq!(ask(&mut first, &author.sign("secsync_snapshot", public_data, b"x")).await, bare_failure());
    nothing_waits(&mut first).await;
    assert_eq!(load(&server, &place("two", "k")).await, json!({"type": "document", "updates": [], "snapshotProofChain": []}));
}

#[tokio::test]
async fn an_outdated_snapshot_gets_the_active_one_its_updates_and_the_chain_from_its_parent() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, first) = with_snapshot(&server, "doc", &author).await;
    let second = save_on(&mut socket, &author, &first, &[]).await;
    let third = save_on(&mut socket, &author, &second, &[]).await;
    let updates = [author.update("doc", &third.id, 0, b"0"), author.update("doc", &third.id, 1, b"1")];
    for update in &updates {
        save(&mut socket, update).await;
    }
    let outdated =
        |chain: Value| json!({"type": "snapshot-save-failed", "snapshot": third.frame, "updates": updates, "snapshotProofChain": chain});
    let no_clocks = BTreeMap::new();
    let on_second = author.snapshot_on(&second, &no_clocks, b"x").frame;
    assert_eq!(ask(&mut socket, &on_second).await, outdated(json!([])), "the active one is a child of the parent");
    let on_first = author.snapshot_on(&first, &no_clocks, b"x").frame;
    assert_eq!(ask(&mut socket, &on_first).await, outdated(json!([chain_entry(&second), chain_entry(&third)])));
    let stranger = Author::new(2).first_snapshot("doc", b"x");
    let on_stranger = author.snapshot_on(&stranger, &no_clocks, b"x").frame;
    assert_eq!(ask(&mut socket, &on_stranger).await, outdated(json!([])), "an unknown parent");
    assert_eq!(ask(&mut socket, &author.first_snapshot("doc", b"x").frame).await, outdated(json!([])), "no parent");
    let (_foreign_socket, foreign) = with_snapshot(&server, "other", &author).await;
    let mut public_data = on_stranger["publicData"].clone();
    public_data["parentSnapshotId"] = foreign.id.into();
    public_data["snapshotId"] = fresh_id().into();
    assert_eq!(ask(&mut socket, &author.sign("secsync_snapshot", public_data, b"x")).await, outdated(json!([])), "of another document");
    nothing_waits(&mut socket).await;
}

#[tokio::test]
async fn a_snapshot_that_misses_updates_gets_them_and_no_snapshot() {
    let server = TestServer::start().await;
    let (a, b) = (Author::new(1), Author::new(2));
    let (mut socket, first) = with_snapshot(&server, "doc", &a).await;
    let updates = [
        a.update("doc", &first.id, 0, b"a0"),
        b.update("doc", &first.id, 0, b"b0"),
        a.update("doc", &first.id, 1, b"a1"),
        b.update("doc", &first.id, 1, b"b1"),
    ];
    for update in &updates {
        save(&mut socket, update).await;
    }
    let stranger = Author::new(3);
    for (claimed, missing) in [
        (clock_table(&[]), json!(updates)),
        (clock_table(&[(&a, 1)]), json!([updates[1], updates[3]])),
        (clock_table(&[(&a, 0), (&b, 1)]), json!([updates[2]])),
        (clock_table(&[(&a, 0), (&b, 0)]), json!([updates[2], updates[3]])),
        (clock_table(&[(&a, 2), (&b, 1)]), json!([])),
        (clock_table(&[(&a, 1), (&b, 1), (&stranger, 0)]), json!([])),
        (clock_table(&[(&stranger, 0)]), json!(updates)),
    ] {
        let answer = ask(&mut socket, &a.snapshot_on(&first, &claimed, b"x").frame).await;
        assert_eq!(answer, json!({"type": "snapshot-save-failed", "updates": missing}), "{claimed:?}");
    }
    for clocks in [json!({a.public_key(): 1, b.public_key(): 0.5}), json!({a.public_key(): -1, b.public_key(): 1e300})] {
        let public_data = changed(&a.snapshot_on(&first, &BTreeMap::new(), b"").frame["publicData"], "/parentSnapshotUpdateClocks", clocks);
        let answer = ask(&mut socket, &a.sign("secsync_snapshot", public_data, b"x")).await;
        assert_eq!((&answer["type"], answer.get("snapshot")), (&json!("snapshot-save-failed"), None));
    }
    save_on(&mut socket, &a, &first, &[(&a, 1), (&b, 1)]).await;
}

#[tokio::test]
async fn a_wrong_parent_proof_gets_a_bare_failure_unless_it_is_not_asked_for() {
    for (checked, saved) in [("on", false), ("strict", false), ("off", true)] {
        let server = TestServer::with_settings(json!({"verify": {"parent_proof": checked}})).await;
        let author = Author::new(1);
        let (mut socket, first) = with_snapshot(&server, "doc", &author).await;
        let mut next = author.snapshot_on(&first, &BTreeMap::new(), b"x");
        let good = next.frame.clone();
        for proof in [FIRST_PROOF.to_owned(), proof_of_child(&good)] {
            let public_data = changed(&good["publicData"], "/parentSnapshotProof", json!(proof));
            let answer = ask(&mut socket, &author.sign("secsync_snapshot", public_data, b"x")).await;
            if saved {
                assert_eq!(answer, snapshot_saved(&next));
                next = first.clone();
                break;
            }
            assert_eq!(answer, bare_failure());
        }
        if !saved {
            assert_eq!(ask(&mut socket, &next.frame).await, snapshot_saved(&next));
        }
    }
}

#[tokio::test]
async fn a_first_snapshot_may_have_any_parent_unless_proofs_are_strict() {
    let author = Author::new(1);
    let stranger = author.first_snapshot("doc", b"x");
    let orphan = author.snapshot_on(&stranger, &clock_table(&[(&author, 3)]), b"x");
    let server = TestServer::start().await;
    assert_eq!(ask(&mut join(&server, "doc").await, &orphan.frame).await, snapshot_saved(&orphan));
    let strict = TestServer::with_settings(json!({"verify": {"parent_proof": "strict"}})).await;
    let mut socket = join(&strict, "doc").await;
    assert_eq!(ask(&mut socket, &orphan.frame).await, bare_failure());
    let public_data = changed(&stranger.frame["publicData"], "/parentSnapshotProof", json!(proof_of_child(&stranger.frame)));
    assert_eq!(ask(&mut socket, &author.sign("secsync_snapshot", public_data, b"x")).await, bare_failure());
    assert_eq!(ask(&mut socket, &stranger.frame).await, snapshot_saved(&stranger));
}

#[tokio::test]
async fn an_update_on_anything_but_the_active_snapshot_is_refused() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let early = author.first_snapshot("doc", b"s");
    assert_eq!(ask(&mut socket, &author.update("doc", &early.id, 0, b"x")).await, update_refused(&early.id, 0), "there is none yet");
    assert_eq!(ask(&mut socket, &early.frame).await, snapshot_saved(&early));
    save(&mut socket, &author.update("doc", &early.id, 0, b"x")).await;
    let second = save_on(&mut socket, &author, &early, &[(&author, 0)]).await;
    for (snapshot_id, clock) in [(early.id.as_str(), 1), (early.id.as_str(), 0), ("unknown", 0), (second.id.as_str(), 1)] {
        assert_eq!(ask(&mut socket, &author.update("doc", snapshot_id, clock, b"y")).await, update_refused(snapshot_id, clock));
    }
    save(&mut socket, &author.update("doc", &second.id, 0, b"y")).await;
}

#[tokio::test]
async fn a_clock_that_is_taken_is_acknowledged_for_the_same_update_only() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut other = join(&server, "doc").await;
    let updates = [author.update("doc", &snapshot.id, 0, b"0"), author.update("doc", &snapshot.id, 1, b"1")];
    for update in &updates {
        save(&mut socket, update).await;
        assert_eq!(other.json().await, relayed("update", update));
    }
    for update in updates.iter().chain(&updates) {
        save(&mut socket, update).await;
    }
    // Another connection of the same author may send it again too.
    save(&mut other, &updates[0]).await;
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 0, b"other")).await, update_refused(&snapshot.id, 0));
    assert_eq!(ask(&mut socket, &author.update("doc", &snapshot.id, 3, b"hole")).await, update_refused(&snapshot.id, 3));
    // An identical one is acknowledged even when its snapshot is history.
    save_on(&mut socket, &author, &snapshot, &[(&author, 1)]).await;
    save(&mut socket, &updates[1]).await;
    assert_eq!(other.json_of("snapshot").await["type"], "snapshot", "and nothing was broadcast twice");
    nothing_waits(&mut other).await;
}

#[tokio::test]
async fn an_ephemeral_message_is_checked_and_never_answered() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let good = author.ephemeral("doc", b"e");
    for frame in
        [changed(&good, "/publicData/docId", json!("other")), author.ephemeral("other", b"e"), changed(&good, "/nonce", json!("A"))]
    {
        socket.send(&frame).await;
    }
    socket.send(&good).await;
    socket.send(&good).await;
    nothing_waits(&mut socket).await;
    for _ in 0..2 {
        assert_eq!(other.json().await, relayed("ephemeral-message", &good));
    }
    nothing_waits(&mut other).await;
}
