//! What the app of a secsync mount decides (docs/protocols/secsync.md, sections 6 and 10).

use std::path::Path;

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;

use super::{APP, answer, heard, mount, server};
use crate::support::*;

#[tokio::test]
async fn each_hook_is_given_what_the_callbacks_of_the_original_are_given() {
    let server = server(Path::new(APP)).await;
    let mut log = open(&server, &place("d", "log")).await.0;
    let (author, mut writer) = (Author::new(1), open(&server, &place("d", "writer")).await.0);
    assert_eq!(heard(&mut log, "hasAccess").await, json!({"action": "read", "documentId": "d", "websocketSessionKey": "writer"}));
    assert_eq!(heard(&mut log, "getDocument").await, json!({"documentId": "d", "mode": "complete"}));
    let mut snapshot = author.first_snapshot("d", b"x");
    snapshot.frame["additionalServerData"] = json!({"workspace": 7});
    writer.send(&snapshot.frame).await;
    assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
    let asked = json!({"action": "write-snapshot", "documentId": "d", "publicKey": author.public_key(), "websocketSessionKey": "writer"});
    assert_eq!(heard(&mut log, "hasAccess").await, asked);
    assert_eq!(heard(&mut log, "createSnapshot").await, json!({"type": "create-snapshot", "snapshot": snapshot.frame}));
    let update = author.update("d", &snapshot.id, 0, b"y");
    writer.send(&update).await;
    assert_eq!(answer(&mut writer).await, update_saved(&snapshot.id, 0));
    assert_eq!(heard(&mut log, "createUpdate").await, json!({"type": "create-update", "update": update}));
}

#[tokio::test]
async fn sessions_are_let_in_and_thrown_out_as_the_app_says() {
    let server = server(Path::new(APP)).await;
    let mut stranger = Socket::connect(server.address, &place("d", "stranger")).await;
    assert_eq!(stranger.json().await, json!({"type": "unauthorized"}));
    closed_without_code(&mut stranger).await;
    let mut reader = open(&server, &place("d", "reader")).await.0;
    reader.send(&Author::new(1).first_snapshot("d", b"x").frame).await;
    assert_eq!(answer(&mut reader).await, json!({"type": "unauthorized"}));
    closed_without_code(&mut reader).await;
}

#[tokio::test]
async fn the_app_sends_to_all_who_get_broadcasts_and_only_what_was_saved() {
    let server = server(Path::new(APP)).await;
    let author = Author::new(1);
    for (document, is_saved) in [("d", true), ("refuse-d", false)] {
        let mut muted = open(&server, &place(document, "muted")).await.0;
        let mut reader = open(&server, &place(document, "r")).await.0;
        let mut writer = open(&server, &place(document, "w")).await.0;
        let snapshot = author.first_snapshot(document, b"x");
        writer.send(&snapshot.frame).await;
        if is_saved {
            let seen = json!({"activeSnapshotId": null, "sequence": 0, "updateCount": 0, "clocks": {}});
            assert_eq!(reader.json().await, json!({"type": "judged", "hook": "createSnapshot", "seen": seen}));
            assert_eq!(answer(&mut reader).await, relayed_snapshot(&snapshot));
        } else {
            assert_eq!(answer(&mut writer).await, bare_failure());
            // Whatever had been said would have come before this.
            let message = author.ephemeral(document, b"after");
            writer.send(&message).await;
            assert_eq!(reader.json().await, relayed("ephemeral-message", &message));
        }
        let again = author.first_snapshot(document, b"y");
        muted.send(&again.frame).await;
        assert_eq!(muted.json().await["type"], "snapshot-save-failed", "the first that it hears is its own answer");
    }
}

#[tokio::test]
async fn the_app_has_the_last_word_about_what_is_saved() {
    let server = server(Path::new(APP)).await;
    let author = Author::new(1);
    let mut writer = open(&server, &place("rotate-d", "w")).await.0;
    let snapshot = author.first_snapshot("rotate-d", b"x");
    writer.send(&snapshot.frame).await;
    assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
    for clock in 0..2 {
        writer.send(&author.update("rotate-d", &snapshot.id, clock, b"y")).await;
        assert_eq!(answer(&mut writer).await, update_saved(&snapshot.id, clock));
    }
    writer.send(&author.update("rotate-d", &snapshot.id, 2, b"y")).await;
    assert_eq!(answer(&mut writer).await["requiresNewSnapshot"], true);
    let public_data = json!({"docId": "rotate-d", "pubKey": author.public_key(), "refSnapshotId": snapshot.id, "clock": 2, "tag": "wrong"});
    writer.send(&author.sign("secsync_update", public_data, b"y")).await;
    assert_eq!(answer(&mut writer).await["requiresNewSnapshot"], false, "its public data is not what it should be");
    for (document, with_snapshot) in [("outdated-d", true), ("misses-d", false)] {
        let mut writer = open(&server, &place(document, "w")).await.0;
        let first = author.first_snapshot(document, b"x");
        writer.send(&first.frame).await;
        assert_eq!(answer(&mut writer).await, snapshot_saved(&first));
        writer.send(&author.snapshot_on(&first, &Default::default(), b"y").frame).await;
        let failed = answer(&mut writer).await;
        assert_eq!((&failed["type"], failed.get("snapshot").is_some()), (&json!("snapshot-save-failed"), with_snapshot), "{failed}");
    }
}

#[tokio::test]
async fn the_app_says_what_a_reader_gets() {
    let server = server(Path::new(APP)).await;
    for (document, message) in [("none-d", "document-not-found"), ("broken-d", "document-error")] {
        let mut socket = Socket::connect(server.address, &place(document, "k")).await;
        assert_eq!(socket.json().await, json!({"type": message}));
        closed_without_code(&mut socket).await;
    }
    let given = open(&server, &place("given-d", "k")).await.1;
    assert_eq!(given, json!({"type": "document", "snapshot": {"of": "the app"}, "updates": [], "snapshotProofChain": []}));
}

#[tokio::test]
async fn a_mount_that_asks_an_app_needs_one_that_has_the_function() {
    let without =
        TestServer::try_with(Setup { mounts: vec![secsync_mount("secsync", json!({"access": "app"}))], ..Setup::default() }).await;
    let problem = without.err().expect("it does not start").to_string();
    assert!(problem.contains("access: needs an app component with the function `authorize`"), "{problem}");
    let lacks = mount(Path::new(env!("SYNCLINE_BAD_APP")), json!({"broadcast_access": "app"}));
    let lacking = TestServer::try_with(Setup { mounts: vec![lacks], ..Setup::default() }).await;
    let problem = lacking.err().expect("it does not start").to_string();
    assert!(problem.contains("broadcast_access: needs the function `authorize`"), "{problem}");
}
