//! What goes wrong below: no frame, a close that makes the client come back, and nothing half done.

use serde_json::json;

use crate::imports::{ConstraintKind, Frame, Level, SqlError};
use crate::registry::{Connection, Failure, Input};
use crate::secsync::test_support::*;

fn unavailable() -> SqlError {
    SqlError::Unavailable("away".into())
}

#[test]
fn an_upgrade_during_a_failure_gets_no_frame_and_a_close() {
    let host = TestHost::new(json!({}));
    for (fault, error, code) in [
        (Fault::Snapshot, unavailable(), 1013),
        (Fault::Snapshot, SqlError::Limit("rows".into()), 1013),
        (Fault::Begin, SqlError::Aborted, 1013),
        (Fault::Commit, unavailable(), 1013),
        (Fault::Snapshot, SqlError::InvalidStatement("no such table".into()), 1011),
    ] {
        host.fail(fault, error);
        let peer = host.join("doc", "k");
        assert_eq!((peer.take(), peer.closed()), (Vec::new(), Some(code)), "{fault:?}");
    }
    assert_eq!(host.join("doc", "k").one(), empty_document());
}

#[test]
fn a_save_that_fails_is_not_acknowledged_not_broadcast_and_leaves_nothing() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let reader = host.join("doc", "r");
    let large = ciphertext(&"x".repeat(300 << 10));
    let snapshot = a.sign("secsync_snapshot", &large, a.snapshot("doc", "s", None, json!({}))["publicData"].clone());
    reader.take();
    for (fault, error, code) in [
        (Fault::Begin, unavailable(), 1013),
        (Fault::Commit, unavailable(), 1013),
        (Fault::Commit, SqlError::Aborted, 1013),
        (Fault::Commit, SqlError::Constraint((ConstraintKind::Unique, "id".into())), 1011),
    ] {
        let peer = host.join("doc", "w");
        peer.take();
        host.fail(fault, error);
        peer.send(&snapshot);
        assert_eq!((peer.take(), peer.closed()), (Vec::new(), Some(code)));
        assert!(reader.take().is_empty());
        assert!(host.storage.objects.borrow().is_empty());
    }
    assert_eq!(host.join("doc", "w").ask(&snapshot)["type"], "snapshot-saved");
}

#[test]
fn what_was_saved_before_a_failure_is_acknowledged_all_the_same() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let peer = host.join("doc", "w");
    peer.send(&a.snapshot("doc", "s", None, json!({})));
    peer.take();
    // The first transaction is one of a stale update that is only rolled back: the commit that fails is the third frame's.
    let frames = [a.update("doc", "s", 7, "x"), a.update("doc", "s", 0, "x"), a.update("doc", "s", 1, "x")];
    peer.send_frames(frames.iter().take(2).map(|frame| Frame::Text(frame.to_string())).collect());
    assert_eq!(peer.take(), [refused("s", 7), saved("s", 0)]);
    host.fail(Fault::Commit, unavailable());
    peer.send_frames(vec![Frame::Text(frames[2].to_string()), Frame::Text(a.ephemeral_message("doc", "x").to_string())]);
    assert_eq!((peer.take(), peer.closed()), (Vec::new(), Some(1013)));
    assert!(host.effects.lines.borrow().iter().any(|(level, line)| *level == Level::Warn && line.contains("away")));
}

#[test]
fn a_call_that_failed_elsewhere_and_an_attachment_of_another_version_end_the_connection() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let good = peer.attachment().encode();
    let frame = Frame::Text(Author::new(1).snapshot("doc", "s", None, json!({})).to_string());
    for (attachment, failure) in [(good, Some(Failure::Trapped)), (vec![2, 0], None), (Vec::new(), None), (vec![1], None)] {
        let connection = Connection { id: peer.id, attachment, cursors: Vec::new(), failure };
        let outcome = host.mount().receive(host.imports(), connection, vec![Input::Frame(frame.clone())]);
        assert_eq!((outcome.close.map(|close| close.code), outcome.send), (Some(1013), Vec::new()));
    }
    assert!(host.sql("SELECT id FROM t_ss_snapshots").is_empty());
}

#[test]
fn other_inputs_than_frames_are_passed_over() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let connection = Connection { id: peer.id, attachment: peer.attachment().encode(), cursors: Vec::new(), failure: None };
    let outcome = host.mount().receive(host.imports(), connection, vec![Input::Wake, Input::Drained, Input::TaskDone(Vec::new())]);
    assert_eq!((outcome.close, outcome.send, outcome.attachment), (None, Vec::new(), None));
}

#[test]
fn a_start_over_existing_tables_keeps_them_and_over_newer_ones_is_refused() {
    let host = TestHost::new(json!({}));
    host.join("doc", "w");
    assert_eq!(host.mount().start(host.imports(), None), Ok(None));
    assert_eq!(host.sql("SELECT id FROM t_ss_documents").len(), 1);
    host.sql("UPDATE t_ss_meta SET value = 2");
    let refused = host.mount().start(host.imports(), None).unwrap_err();
    assert!(refused.contains("format 2"), "{refused}");
    assert_eq!(host.mount().start(host.imports(), None).unwrap_err(), refused, "and stays refused");
}

#[test]
fn a_hole_that_cannot_be_filled_closes_the_readers() {
    let host = TestHost::new(json!({}));
    host.join("doc", "w");
    host.sql("UPDATE t_ss_documents SET seq = 5");
    let publications = host.mount().refill(host.imports(), "ss:doc", "ss:doc", 2);
    assert_eq!(publications.len(), 1);
    assert_eq!(publications[0].close.as_ref().map(|close| close.code), Some(1013));
    host.fail(Fault::Snapshot, unavailable());
    let publications = host.mount().refill(host.imports(), "ss:doc", "ss:doc", 2);
    assert_eq!(publications[0].close.as_ref().map(|close| close.code), Some(1013));
}
