//! Clients that come, go and overlap at the worst moments: what they see stays in order, and nobody else suffers.

use std::sync::Arc;

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;
use tokio::sync::Semaphore;

use crate::commits::{Commits, Fate};
use crate::documents::{create, open, saved, signature};
use crate::lost::{Race, Stage, stage};
use syncline_tests::faulty_executor::{FaultyExecutor, Point, Verdict};

/// The loser of a race has seen the winner's snapshot before it is refused, also when it has sent more meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loser_that_sends_on_sees_the_winner_first() {
    let mut race = Race::prepare().await;
    let snapshot = race.start().await;
    let Race { commits, server: _server, mut begun, loser_author, mut winner, mut loser, .. } = race;
    let before = begun.count();
    commits.held().await;
    // The loser's call is over and waits for its group; the next one runs.
    loser.send(&loser_author.ephemeral("d", b"more")).await;
    loser.send(&loser_author.update("d", "no-such-snapshot", 0, b"more")).await;
    begun.reach(before + 1).await;
    commits.settle(Fate::Kept).await;
    commits.release();
    winner.json_of("snapshot-saved").await;
    let broadcast = loser.json_of("snapshot").await;
    assert_eq!(broadcast["snapshot"]["publicData"]["snapshotId"], snapshot.id.as_str());
    let refusal = loser.json_of("snapshot-save-failed").await;
    assert_eq!(refusal["snapshot"]["publicData"]["snapshotId"], snapshot.id.as_str());
}

/// An update is durable while the call that wrote it still runs. A document read meanwhile contains it, so the broadcast
/// that follows must not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_that_the_document_contains_does_not_follow_it() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let commits = Commits::of("secsync");
    let (begins, unlimited) = (Arc::new(Semaphore::new(0)), Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let judge = {
        let (begins, unlimited) = (begins.clone(), unlimited.clone());
        move |point: Point<'_>| match point {
            Point::Begin if !unlimited.load(std::sync::atomic::Ordering::SeqCst) => Verdict::Wait(begins.clone()),
            _ => Verdict::Pass,
        }
    };
    let executor = Arc::new(FaultyExecutor::new(commits.executor(folder.path()).await, judge));
    let mut begun = executor.begun();
    let setup = Setup { executor: Some(executor), folder: Some(folder), ..Setup::default() };
    let server = TestServer::with(setup).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    unlimited.store(false, std::sync::atomic::Ordering::SeqCst);
    let before = begun.count();
    // The first call stops at its begin, so the other frames come to the second, all together.
    let updates: Vec<_> = (0..4).map(|clock| author.update("d", &snapshot.id, clock, b"")).collect();
    for update in &updates {
        writer.send(update).await;
    }
    begins.add_permits(1);
    saved(&mut writer, 0).await;
    begins.add_permits(1);
    begun.reach(before + 2).await;
    // The second update becomes durable; whether its call goes on with the third is for the host to say.
    let (mut joiner, document) = loop {
        let (joiner, document) = open(server.address, "d").await;
        if document["updates"].as_array().is_some_and(|updates| updates.len() == 2) {
            break (joiner, document);
        }
        joiner.close().await;
    };
    assert_eq!(signature(&document["updates"][1]), signature(&updates[1]));
    unlimited.store(true, std::sync::atomic::Ordering::SeqCst);
    begins.add_permits(8);
    for clock in 1..4 {
        saved(&mut writer, clock).await;
    }
    for update in &updates[2..] {
        assert_eq!(signature(&joiner.json_of("update").await), signature(update));
    }
}

/// A client that goes away while its upgrade waits for the disk takes nobody along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_during_its_upgrade_holds_up_nobody() {
    let Stage { commits, server, mut begun, author, mut writer, snapshot } = stage().await;
    commits.hold();
    // Two clients open the same new document: the second one finds it created and reads, when it is durable.
    writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
    commits.held().await;
    let before = begun.count();
    let address = server.address;
    let first = tokio::spawn(async move { open(address, "new").await });
    begun.reach(before + 1).await;
    let second = tokio::spawn(Socket::connect(address, "/secsync/new?sessionKey=k&mode=complete"));
    begun.reach(before + 2).await;
    commits.settle(Fate::Kept).await;
    saved(&mut writer, 0).await;
    commits.held().await;
    // Both have a place in the group that is held. The second goes away.
    second.abort();
    assert!(second.await.is_err_and(|error| error.is_cancelled()));
    // The host has noticed once a later connection was served in full.
    open(address, "d").await.0.close().await;
    commits.settle(Fate::Kept).await;
    commits.release();
    let (_, document) = first.await.expect("the first is served");
    assert_eq!(document["updates"], json!([]));
    writer.send(&author.update("d", &snapshot.id, 1, b"")).await;
    saved(&mut writer, 1).await;
    let (_socket, document) = open(address, "new").await;
    assert_eq!(document["updates"], json!([]));
}

/// Ephemeral messages may be left out; they must not cost a connection that waits for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relayed_messages_do_not_close_a_connection_that_waits_for_the_disk() {
    let commits = Commits::of("secsync");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = commits.executor(folder.path()).await;
    let mounts = vec![secsync_mount("secsync", json!({"max_backlog_bytes": 4000}))];
    let setup = Setup { mounts, executor: Some(Arc::new(executor)), folder: Some(folder), ..Setup::default() };
    let server = TestServer::with(setup).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    let (mut chatter, _) = open(server.address, "d").await;
    let (mut reader, _) = open(server.address, "d").await;
    commits.hold();
    writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
    commits.held().await;
    for _ in 0..40 {
        chatter.send(&author.ephemeral("d", &[7; 100])).await;
        reader.json_of("ephemeral-message").await;
    }
    commits.settle(Fate::Kept).await;
    commits.release();
    loop {
        let reply = writer.json().await;
        if reply["type"] == "update-saved" {
            break;
        }
        assert_eq!(reply["type"], "ephemeral-message");
    }
}
