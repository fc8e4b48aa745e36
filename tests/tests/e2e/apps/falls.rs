//! An app that falls costs what it was asked about, and nothing else.

use std::path::Path;

use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};

use super::{APP, answer, mount};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_falls_within_a_transaction_costs_one_update_and_what_it_said_is_unsaid() {
    let server = TestServer::with(Setup { mounts: vec![mount(Path::new(APP), serde_json::json!({}))], ..Setup::default() }).await;
    let author = Author::new(1);
    let (mut others, other_snapshot) = (join(&server, "fine").await, author.first_snapshot("fine", b"x"));
    others.send(&other_snapshot.frame).await;
    assert_eq!(answer(&mut others).await, snapshot_saved(&other_snapshot));
    for (clock, document) in ["trap-d", "loop-d", "eat-d"].into_iter().enumerate() {
        let (mut writer, mut reader) = (join(&server, document).await, join(&server, document).await);
        let snapshot = author.first_snapshot(document, b"x");
        writer.send(&snapshot.frame).await;
        assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
        assert_eq!(answer(&mut reader).await, relayed_snapshot(&snapshot));
        writer.send(&author.update(document, &snapshot.id, 0, b"y")).await;
        assert_eq!(answer(&mut writer).await, update_refused(&snapshot.id, 0), "{document}");
        // What the app sent before it fell would have come before this.
        let message = author.ephemeral(document, b"after");
        writer.send(&message).await;
        assert_eq!(reader.json().await, relayed("ephemeral-message", &message), "{document}");
        // The same connection, others, and a new instance of the app go on.
        let clock = clock as u64;
        others.send(&author.update("fine", &other_snapshot.id, clock, b"z")).await;
        assert_eq!(answer(&mut others).await, update_saved(&other_snapshot.id, clock));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_app_falls_over_is_refused_and_stays() {
    let server = super::server(Path::new(APP)).await;
    let author = Author::new(1);
    for session in ["trap", "eat"] {
        let mut writer = open(&server, &place("d", session)).await.0;
        writer.send(&author.first_snapshot("d", b"x").frame).await;
        assert_eq!(answer(&mut writer).await, bare_failure(), "{session}");
        writer.send(&author.first_snapshot("d", b"x").frame).await;
        assert_eq!(answer(&mut writer).await, bare_failure(), "{session}: it is still there");
    }
}
