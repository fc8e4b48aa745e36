//! Groups that take long: what rests on them waits, everything else goes on.

use serde_json::json;

use crate::commits::Fate;
use crate::documents::{create, open, open_at, saved, signature, stored};
use crate::lost::{Stage, stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_rest_on_a_delayed_group_goes_on() {
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    let (mut reader, _) = open(server.address, "d").await;
    let (mut third, _) = open(server.address, "d").await;
    let (mut elsewhere, there) = create(server.address, "other", "d", &author).await;
    let (mut second, _) = create(server.address, "secsync", "e", &author).await;
    commits.hold();
    let delayed = author.update("d", &snapshot.id, 0, b"delayed");
    writer.send(&delayed).await;
    commits.held().await;
    // Ephemeral messages of the others, to everybody.
    third.send(&author.ephemeral("d", b"1")).await;
    reader.json_of("ephemeral-message").await;
    second.send(&author.ephemeral("e", b"2")).await;
    // Another mount writes.
    elsewhere.send(&author.update("d", &there.id, 0, b"")).await;
    saved(&mut elsewhere, 0).await;
    // Documents are read: another, and this one without what is not durable.
    let (mut late, document) = open(server.address, "e").await;
    assert!(document["snapshot"].is_object());
    second.send(&author.ephemeral("e", b"3")).await;
    late.json_of("ephemeral-message").await;
    let (mut joiner, document) = open(server.address, "d").await;
    assert_eq!(document["updates"], json!([]));
    third.send(&author.ephemeral("d", b"4")).await;
    reader.json_of("ephemeral-message").await;
    joiner.json_of("ephemeral-message").await;
    commits.settle(Fate::Kept).await;
    commits.release();
    // The writer gets its acknowledgement behind the messages that came before it.
    writer.json_of("ephemeral-message").await;
    writer.json_of("ephemeral-message").await;
    saved(&mut writer, 0).await;
    for socket in [&mut reader, &mut joiner, &mut third] {
        assert_eq!(signature(&socket.json_of("update").await), signature(&delayed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_come_in_the_order_of_the_frames() {
    const COUNT: u64 = 60;
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    let (mut reader, _) = open(server.address, "d").await;
    commits.hold();
    for clock in 0..COUNT {
        writer.send(&author.update("d", &snapshot.id, clock, b"")).await;
    }
    for _ in 0..COUNT / 2 {
        commits.settle(Fate::Kept).await;
    }
    commits.release();
    for clock in 0..COUNT {
        saved(&mut writer, clock).await;
        assert_eq!(reader.json_of("update").await["publicData"]["clock"], clock);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_gets_a_delayed_update_once() {
    let Stage { commits, server, mut begun, author, mut writer, snapshot } = stage().await;
    commits.hold();
    for clock in 0..8 {
        let before = begun.count();
        writer.send(&author.update("d", &snapshot.id, clock, b"")).await;
        begun.reach(before + 1).await;
        commits.held().await;
        let joining = open_at(server.address, "secsync", "d");
        let (joined, ()) = tokio::join!(joining, commits.settle(Fate::Kept));
        saved(&mut writer, clock).await;
        // Whether the document or a broadcast tells of the update: once, and nothing is left out.
        let (mut joiner, document) = joined;
        let held = document["updates"].as_array().expect("a list").len() as u64;
        assert!(held == clock || held == clock + 1, "{document}");
        writer.send(&author.ephemeral("d", b"")).await;
        if held == clock {
            assert_eq!(joiner.json_of("update").await["publicData"]["clock"], clock);
        }
        joiner.json_of("ephemeral-message").await;
    }
    assert_eq!(stored(server.folder(), "secsync", "d").len(), 8);
}

/// A server that stops while a group is delayed still tells whoever waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_a_delayed_group() {
    let Stage { commits, server, author, mut writer, snapshot, .. } = stage().await;
    commits.hold();
    writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
    commits.held().await;
    let stopping = tokio::spawn(server.stop());
    commits.settle(Fate::Kept).await;
    commits.release();
    saved(&mut writer, 0).await;
    assert_eq!(writer.closed().await, 1001);
    // Answers the close.
    writer.receive().await;
    let folder = stopping.await.expect("the server stops");
    assert_eq!(stored(folder.path(), "secsync", "d").len(), 1);
}
