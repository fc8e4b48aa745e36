//! Large things, many things, and what is dropped.

use std::path::Path;

use serde_json::{Value, json};
use syncline_tests::postgres;
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;

use crate::support::*;

/// A frame's text, filled with spaces up to a number of bytes.
fn filled(frame: &Value, bytes: usize) -> String {
    let mut text = frame.to_string();
    assert!(text.len() <= bytes);
    text.push_str(&" ".repeat(bytes - text.len()));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_snapshots_and_updates_are_saved_relayed_and_loaded() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    // Around the size above which contents leave their rows, and far above it.
    for (index, kibibytes) in [190, 193, 300, 5 * 1024].into_iter().enumerate() {
        let document = format!("doc-{index}");
        let content = vec![u8::try_from(index).expect("few"); kibibytes << 10];
        let (mut socket, mut other) = (join(&server, &document).await, join(&server, &document).await);
        let snapshot = author.first_snapshot(&document, &content);
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        assert_eq!(other.json().await, relayed_snapshot(&snapshot));
        let update = author.update(&document, &snapshot.id, 0, &content);
        save(&mut socket, &update).await;
        assert_eq!(other.json().await, relayed("update", &update));
        let expected = json!({"type": "document", "snapshot": snapshot.frame, "updates": [update], "snapshotProofChain": []});
        assert_eq!(load(&server, &place(&document, "k")).await, expected);
        let outdated = ask(&mut other, &author.first_snapshot(&document, b"x").frame).await;
        assert_eq!((&outdated["snapshot"], &outdated["updates"]), (&snapshot.frame, &json!([update])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_of_just_the_limit_is_taken_and_one_byte_more_is_not() {
    for (settings, limit) in [(json!({"max_message_bytes": 100_000}), 100_000), (json!({}), 16 << 20)] {
        let server = TestServer::with_settings(settings).await;
        let author = Author::new(1);
        let mut socket = join(&server, "doc").await;
        let content = vec![7; (limit - 2000) / 4 * 3];
        let snapshot = author.first_snapshot("doc", &content);
        socket.send_message(text(&filled(&snapshot.frame, limit))).await;
        assert_eq!(socket.json().await, snapshot_saved(&snapshot));
        let next = author.snapshot_on(&snapshot, &clock_table(&[]), &content);
        // The server may close before it has read all.
        let _ = socket.try_send(text(&filled(&next.frame, limit + 1))).await;
        assert_eq!(socket.closed().await, 1009);
        assert_eq!(load(&server, &place("doc", "k")).await["snapshot"], snapshot.frame);
    }
}

/// Sends updates ahead of their answers.
async fn pipeline(socket: &mut Socket, author: &Author, snapshot: &Snapshot, clocks: std::ops::Range<u64>) {
    let window = 500;
    let mut answered = clocks.start;
    for clock in clocks.clone() {
        socket.send(&author.update("doc", &snapshot.id, clock, &clock.to_be_bytes())).await;
        if clock - answered >= window {
            assert_eq!(socket.json().await, update_saved(&snapshot.id, answered));
            answered += 1;
        }
    }
    for clock in answered..clocks.end {
        assert_eq!(socket.json().await, update_saved(&snapshot.id, clock));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_document_with_thousands_of_updates_loads_in_order_and_in_parts() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    pipeline(&mut socket, &author, &snapshot, 0..3000).await;
    let document = load(&server, &place("doc", "k")).await;
    let updates = document["updates"].as_array().expect("updates");
    assert_eq!(updates.len(), 3000);
    for (clock, update) in updates.iter().enumerate() {
        assert_eq!(update["publicData"]["clock"], clock);
    }
    for known in [0, 63, 64, 1500, 2998, 2999] {
        let delta = load(&server, &place_after("doc", "delta", &snapshot.id, &clocks(&[(&author, known)]))).await;
        let missing = &updates[usize::try_from(known).expect("small") + 1..];
        assert_eq!(delta["updates"].as_array().map(Vec::as_slice), Some(missing));
    }
    let behind = author.snapshot_on(&snapshot, &clock_table(&[(&author, 2990)]), b"x");
    assert_eq!(ask(&mut socket, &behind.frame).await["updates"].as_array().map(Vec::len), Some(9));
    save_on(&mut socket, &author, &snapshot, &[(&author, 2999)]).await;
}

#[tokio::test]
async fn a_document_of_many_authors_loads_what_each_client_lacks() {
    let server = TestServer::start().await;
    let authors: Vec<_> = (0..40).map(Author::new).collect();
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &authors[0]).await;
    for clock in 0..2 {
        for author in &authors {
            save(&mut socket, &author.update("doc", &snapshot.id, clock, b"x")).await;
        }
    }
    // Around the number of authors above which the server asks its database otherwise.
    for lacking in [0, 1, 31, 32, 33, 40] {
        let known: Vec<_> = authors.iter().enumerate().map(|(index, author)| (author, if index < lacking { 0 } else { 1 })).collect();
        let delta = load(&server, &place_after("doc", "delta", &snapshot.id, &clocks(&known))).await;
        let updates: Vec<_> = delta["updates"].as_array().expect("updates").iter().map(|update| update["publicData"].clone()).collect();
        let expected: Vec<_> = authors[..lacking]
            .iter()
            .map(|author| {
                json!({
                    "docId": "doc", "pubKey": author.public_key(), "refSnapshotId": snapshot.id, "clock": 1,
                })
            })
            .collect();
        assert_eq!(updates, expected, "{lacking}");
    }
}

/// Snapshots whose content is kept, and updates, in the database of the mount.
fn kept(folder: &Path) -> (i64, i64) {
    let counts = ["SELECT COUNT(body) + COUNT(object_key) FROM ss_snapshots", "SELECT COUNT(*) FROM ss_updates"];
    if let Some(schemas) = postgres::known(folder) {
        let [snapshots, updates] = counts.map(|sql| schemas.query("secsync", "secsync", sql, &[])[0][0].parse().expect("a count"));
        return (snapshots, updates);
    }
    let database = std::fs::read_dir(folder.join("secsync")).expect("the mount has a folder").find_map(|entry| {
        let path = entry.expect("it can be listed").path();
        path.extension().is_some_and(|extension| extension == "sqlite").then_some(path)
    });
    let database = rusqlite::Connection::open(database.expect("the mount has a database")).expect("it can be opened");
    let count = |sql: &str| database.query_row(sql, [], |row| row.get(0)).expect("it can be counted");
    (count(counts[0]), count(counts[1]))
}

#[tokio::test]
async fn superseded_snapshots_are_dropped_and_chains_go_on_working() {
    for (retention, snapshots_kept, updates_kept) in
        [(json!({"superseded_snapshots": 0}), 1, 1), (json!({"superseded_snapshots": 2}), 3, 3), (json!("keep"), 8, 8)]
    {
        let server = TestServer::with_settings(json!({"retention": retention})).await;
        let author = Author::new(1);
        let (mut socket, first) = with_snapshot(&server, "doc", &author).await;
        let mut snapshots = vec![first];
        for number in 0..8_usize {
            let last = snapshots.last().expect("there is one").clone();
            save(&mut socket, &author.update("doc", &last.id, 0, b"u")).await;
            if number < 7 {
                snapshots.push(save_on(&mut socket, &author, &last, &[(&author, 0)]).await);
            }
        }
        let active = snapshots.last().expect("there is one");
        for (index, known) in snapshots.iter().enumerate() {
            let document = load(&server, &place_after("doc", "delta", &known.id, &clocks(&[(&author, 0)]))).await;
            if index == 7 {
                assert_eq!(document, json!({"type": "document", "updates": []}));
                continue;
            }
            assert_eq!(document["snapshot"], active.frame);
            let chain = document["snapshotProofChain"].as_array().expect("a chain");
            let ids: Vec<_> = chain.iter().map(|entry| entry["snapshotId"].as_str().expect("an id")).collect();
            assert_eq!(ids, snapshots[index + 1..].iter().map(|snapshot| snapshot.id.as_str()).collect::<Vec<_>>());
        }
        // A dropped snapshot still cannot be used as an id, nor as a parent.
        assert_eq!(ask(&mut socket, &snapshots[0].frame).await, bare_failure());
        let late = author.snapshot_on(&snapshots[0], &clock_table(&[(&author, 0)]), b"late");
        let outdated = ask(&mut socket, &late.frame).await;
        assert_eq!((&outdated["snapshot"], outdated["snapshotProofChain"].as_array().map(Vec::len)), (&active.frame, Some(7)));
        socket.close().await;
        let folder = server.stop().await;
        assert_eq!(kept(folder.path()), (snapshots_kept, updates_kept), "{retention}");
    }
}
