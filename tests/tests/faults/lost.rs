//! Groups that never become durable: nothing that rests on them leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::{Received, Socket};

use crate::commits::{Commits, Fate};
use crate::documents::{author_and_clock, check_clocks, create, open, saved, signature, stored, told_to_come_back};
use syncline_tests::faulty_executor::{Begun, FaultyExecutor, Verdict};

/// A server over commits that the test holds.
pub async fn server(commits: &Arc<Commits>) -> (TestServer, Begun) {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = FaultyExecutor::new(commits.executor(folder.path()).await, |_| Verdict::Pass);
    let begun = executor.begun();
    let mounts = vec![secsync_mount("secsync", serde_json::json!({})), secsync_mount("other", serde_json::json!({}))];
    let setup = Setup { mounts, executor: Some(Arc::new(executor)), folder: Some(folder), ..Setup::default() };
    (TestServer::with(setup).await, begun)
}

/// A document and its author, over commits that the test holds.
pub struct Stage {
    pub commits: Arc<Commits>,
    pub server: TestServer,
    pub begun: Begun,
    pub author: Author,
    pub writer: Socket,
    /// The document's first, and only, snapshot.
    pub snapshot: Snapshot,
}

/// A server with one document, whose writer is connected.
pub async fn stage() -> Stage {
    let commits = Commits::of("secsync");
    let (server, begun) = server(&commits).await;
    let author = Author::new(1);
    let (writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    Stage { commits, server, begun, author, writer, snapshot }
}

/// Two clients that both make the first snapshot of a document.
pub struct Race {
    pub commits: Arc<Commits>,
    pub server: TestServer,
    pub begun: Begun,
    pub filler: Socket,
    pub filled: Snapshot,
    pub winner_author: Author,
    pub winner: Socket,
    pub loser_author: Author,
    pub loser: Socket,
}

impl Race {
    /// Both are connected, and so is somebody at another document.
    pub async fn prepare() -> Self {
        let commits = Commits::of("secsync");
        let (server, begun) = server(&commits).await;
        let (winner_author, loser_author) = (Author::new(1), Author::new(2));
        let (filler, filled) = create(server.address, "secsync", "filler", &winner_author).await;
        let (winner, _) = open(server.address, "d").await;
        let (loser, _) = open(server.address, "d").await;
        Self { commits, server, begun, filler, filled, winner_author, winner, loser_author, loser }
    }

    /// Both send, and share the group behind the one that is held. The winner's snapshot.
    pub async fn start(&mut self) -> Snapshot {
        self.commits.hold();
        self.filler.send(&self.winner_author.update("filler", &self.filled.id, 0, b"")).await;
        self.commits.held().await;
        // Both wait for the writer, in this order.
        let before = self.begun.count();
        let snapshot = self.winner_author.first_snapshot("d", b"wins");
        self.winner.send(&snapshot.frame).await;
        self.begun.reach(before + 1).await;
        self.loser.send(&self.loser_author.first_snapshot("d", b"loses").frame).await;
        self.begun.reach(before + 2).await;
        self.commits.settle(Fate::Kept).await;
        saved(&mut self.filler, 0).await;
        snapshot
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_is_lost_was_never_there() {
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    let (mut reader, _) = open(server.address, "d").await;
    let (mut third, _) = open(server.address, "d").await;
    commits.hold();
    let lost = author.update("d", &snapshot.id, 0, b"lost");
    writer.send(&lost).await;
    commits.settle(Fate::Lost).await;
    told_to_come_back(&mut writer).await;
    commits.release();
    let (mut writer, document) = open(server.address, "d").await;
    assert_eq!(document["updates"], serde_json::json!([]));
    // The others are still there; what they get next is what came next.
    third.send(&author.ephemeral("d", b"e")).await;
    reader.json_of("ephemeral-message").await;
    let kept = author.update("d", &snapshot.id, 0, b"kept");
    writer.send(&kept).await;
    writer.json_of("ephemeral-message").await;
    saved(&mut writer, 0).await;
    assert_eq!(signature(&reader.json_of("update").await), signature(&kept));
    assert_eq!(signature(&third.json_of("update").await), signature(&kept));
    let updates = stored(server.folder(), "secsync", "d");
    assert_eq!(updates.iter().map(|update| update.signature.as_str()).collect::<Vec<_>>(), [signature(&kept)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_quotes_lost_data_is_not_said() {
    let mut race = Race::prepare().await;
    let (mut reader, _) = open(race.server.address, "d").await;
    race.start().await;
    let Race { commits, server, mut filler, filled, winner_author, mut winner, loser_author, mut loser, .. } = race;
    commits.settle(Fate::Lost).await;
    told_to_come_back(&mut winner).await;
    told_to_come_back(&mut loser).await;
    commits.release();
    let (mut loser, document) = open(server.address, "d").await;
    assert_eq!(document, serde_json::json!({"type": "document", "updates": [], "snapshotProofChain": []}));
    let snapshot = loser_author.first_snapshot("d", b"again");
    loser.send(&snapshot.frame).await;
    loser.json_of("snapshot-saved").await;
    let broadcast = reader.json_of("snapshot").await;
    assert_eq!(broadcast["snapshot"]["publicData"]["snapshotId"], snapshot.id.as_str());
    filler.send(&winner_author.update("filler", &filled.id, 1, b"")).await;
    saved(&mut filler, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misses_updates_refusal_that_quotes_a_lost_update_is_not_said() {
    let commits = Commits::of("secsync");
    let (server, mut begun) = server(&commits).await;
    let (author, other) = (Author::new(1), Author::new(2));
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    let (mut successor, _) = open(server.address, "d").await;
    let (mut filler, filled) = create(server.address, "secsync", "filler", &author).await;
    commits.hold();
    filler.send(&author.update("filler", &filled.id, 0, b"")).await;
    commits.held().await;
    let before = begun.count();
    writer.send(&author.update("d", &snapshot.id, 0, b"lost")).await;
    begun.reach(before + 1).await;
    successor.send(&other.snapshot_on(&snapshot, &BTreeMap::new(), b"").frame).await;
    begun.reach(before + 2).await;
    commits.settle(Fate::Kept).await;
    commits.settle(Fate::Lost).await;
    told_to_come_back(&mut writer).await;
    told_to_come_back(&mut successor).await;
    commits.release();
    // Without the lost update the very same snapshot is right.
    let (mut successor, _) = open(server.address, "d").await;
    successor.send(&other.snapshot_on(&snapshot, &BTreeMap::new(), b"").frame).await;
    successor.json_of("snapshot-saved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_behind_a_lost_one_are_not_answered() {
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    let (mut reader, _) = open(server.address, "d").await;
    commits.hold();
    for clock in 0..5 {
        writer.send(&author.update("d", &snapshot.id, clock, b"lost")).await;
    }
    writer.send(&author.ephemeral("d", b"behind")).await;
    commits.settle(Fate::Lost).await;
    commits.release();
    told_to_come_back(&mut writer).await;
    let (mut writer, document) = open(server.address, "d").await;
    assert_eq!(document["updates"], serde_json::json!([]));
    writer.send(&author.update("d", &snapshot.id, 0, b"kept")).await;
    saved(&mut writer, 0).await;
    assert_eq!(author_and_clock(&reader.json_of("update").await), (author.public_key(), 0));
}

/// Three frames in one call, each a group of its own: the first is durable, the second lost. Whoever stays connected
/// must not miss the first: a hole in the clocks of an author is fatal for a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_durable_of_a_call_with_a_lost_group_still_reaches_the_others() {
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    let (mut reader, _) = open(server.address, "d").await;
    commits.hold();
    writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
    commits.held().await;
    // The next call waits for the writer meanwhile, and the frames behind it come in one call.
    for clock in 1..5 {
        writer.send(&author.update("d", &snapshot.id, clock, b"")).await;
    }
    writer.stream().writable().await.expect("the socket is open");
    for _ in 0..3 {
        commits.settle(Fate::Kept).await;
    }
    commits.settle(Fate::Lost).await;
    commits.release();
    while let Received::Json(reply) = writer.receive().await {
        assert_eq!(reply["type"], "update-saved", "{reply}");
    }
    let (mut writer, document) = open(server.address, "d").await;
    let clocks: Vec<_> = document["updates"].as_array().expect("a list").iter().map(|update| author_and_clock(update).1).collect();
    let durable = stored(server.folder(), "secsync", "d");
    check_clocks(&durable);
    assert_eq!(clocks, durable.iter().map(|update| update.clock).collect::<Vec<_>>());
    let next = u64::try_from(clocks.len()).expect("few");
    writer.send(&author.update("d", &snapshot.id, next, b"")).await;
    saved(&mut writer, next).await;
    // The reader may have been closed, but if it is still there it has been told everything.
    for clock in 0..=next {
        match reader.receive().await {
            Received::Json(update) => assert_eq!(author_and_clock(&update), (author.public_key(), clock), "{clocks:?} is durable"),
            other => return assert_eq!(other, Received::Close(1013)),
        }
    }
}
