//! Section 5: snapshots, updates, ephemeral messages.

use serde_json::{Value as Json, json};

use crate::imports::{Class, Frame, Value};
use crate::secsync::test_support::*;

/// A document with a first snapshot "s" of author 1.
fn with_snapshot<'a>(host: &'a TestHost, author: &Author) -> (Peer<'a>, Json) {
    let peer = host.join("doc", "w");
    let snapshot = author.snapshot("doc", "s", None, json!({}));
    assert_eq!(peer.ask(&snapshot), json!({"type": "snapshot-saved", "snapshotId": "s"}));
    (peer, snapshot)
}

#[test]
fn everybody_else_on_the_document_gets_what_was_saved_even_the_same_author() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (writer, _) = with_snapshot(&host, &a);
    let (reader, same_key, elsewhere) = (host.join("doc", "r"), host.join("doc", "w"), host.join("elsewhere", "r"));
    [reader, same_key, elsewhere].iter().for_each(|peer| drop(peer.take()));
    let update = a.update("doc", "s", 0, "x");
    assert_eq!(writer.ask(&update), saved("s", 0));
    assert_eq!(reader.one()["type"], "update");
    assert_eq!(same_key.one()["publicData"], update["publicData"]);
    assert!(elsewhere.take().is_empty());
}

#[test]
fn the_second_of_two_first_snapshots_is_told_of_the_first() {
    let host = TestHost::new(json!({}));
    let (a, b) = (Author::new(1), Author::new(2));
    let (_, first) = with_snapshot(&host, &a);
    let loser = host.join("doc", "b");
    let reply = loser.ask(&b.snapshot("doc", "b1", None, json!({})));
    assert_eq!(reply, json!({"type": "snapshot-save-failed", "snapshot": first, "updates": [], "snapshotProofChain": []}));
    assert_eq!(loser.ask(&b.snapshot("doc", "b2", Some(&first), json!({})))["type"], "snapshot-saved");
}

#[test]
fn an_outdated_snapshot_gets_the_chain_only_where_it_is_more_than_one_behind() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (peer, first) = with_snapshot(&host, &a);
    let second = a.snapshot("doc", "s2", Some(&first), json!({}));
    let third = a.snapshot("doc", "s3", Some(&second), json!({}));
    peer.send(&second);
    peer.send(&third);
    peer.send(&a.update("doc", "s3", 0, "x"));
    let chain_of = |parent: Option<&Json>, id: &str| {
        let reply = peer.ask(&a.snapshot("doc", id, parent, json!({})));
        assert_eq!((&reply["snapshot"], reply["updates"].as_array().unwrap().len()), (&third, 1));
        reply["snapshotProofChain"].as_array().unwrap().iter().map(|entry| entry["snapshotId"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(chain_of(Some(&second), "x1"), Vec::<Json>::new());
    assert_eq!(chain_of(Some(&first), "x2"), ["s2", "s3"]);
    assert_eq!(chain_of(None, "x3"), Vec::<Json>::new());
}

#[test]
fn a_snapshot_that_misses_updates_gets_them_and_no_snapshot() {
    let host = TestHost::new(json!({}));
    let (a, b) = (Author::new(1), Author::new(2));
    let (peer, first) = with_snapshot(&host, &a);
    let (a0, b0, a1) = (a.update("doc", "s", 0, "a0"), b.update("doc", "s", 0, "b0"), a.update("doc", "s", 1, "a1"));
    [&a0, &b0, &a1].into_iter().for_each(|update| peer.send(update));
    let mut attempt = 0;
    let mut reply_to = |clocks: Json| {
        attempt += 1;
        peer.ask(&a.snapshot("doc", &format!("x{attempt}"), Some(&first), clocks))
    };
    assert_eq!(reply_to(json!({})), json!({"type": "snapshot-save-failed", "updates": [a0, b0, a1]}));
    assert_eq!(reply_to(json!({a.pub_key.clone(): 0})), json!({"type": "snapshot-save-failed", "updates": [b0, a1]}));
    // More than there is does not fit either.
    let too_many = json!({a.pub_key.clone(): 1, b.pub_key.clone(): 0, "stranger": 0});
    assert_eq!(reply_to(too_many), json!({"type": "snapshot-save-failed", "updates": []}));
    let exact = json!({a.pub_key.clone(): 1.0, b.pub_key.clone(): 0});
    assert_eq!(reply_to(exact)["type"], "snapshot-saved");
}

#[test]
fn a_used_snapshot_id_is_refused_in_every_document_and_also_when_sent_again() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (peer, first) = with_snapshot(&host, &a);
    assert_eq!(peer.ask(&first), failed());
    assert_eq!(host.join("other", "w").ask(&a.snapshot("other", "s", None, json!({}))), failed());
}

#[test]
fn a_snapshot_must_prove_its_parent_unless_that_is_switched_off() {
    for (parent_proof, first_ok, child_ok) in [("off", true, true), ("on", true, false), ("strict", false, false)] {
        let host = TestHost::new(json!({"verify": {"parent_proof": parent_proof}}));
        let a = Author::new(1);
        let mut wrong = a.snapshot("doc", "x", None, json!({}))["publicData"].clone();
        wrong["parentSnapshotProof"] = crate::secsync::verify::hash("something else").into();
        let peer = host.join("doc", "w");
        let reply = peer.ask(&a.sign("secsync_snapshot", &ciphertext("x"), wrong.clone()));
        assert_eq!(reply["type"] == "snapshot-saved", first_ok, "{parent_proof}");

        let host = TestHost::new(json!({"verify": {"parent_proof": parent_proof}}));
        let (peer, _) = with_snapshot(&host, &a);
        wrong["parentSnapshotId"] = "s".into();
        let reply = peer.ask(&a.sign("secsync_snapshot", &ciphertext("x"), wrong));
        assert_eq!(reply["type"] == "snapshot-saved", child_ok, "{parent_proof}");
        assert!(child_ok || reply == failed());
    }
}

#[test]
fn a_first_snapshot_may_name_any_parent_unless_checks_are_strict() {
    let orphan = |host: &TestHost| {
        let a = Author::new(1);
        let elsewhere = a.snapshot("doc", "unknown", None, json!({}));
        host.join("doc", "w").ask(&a.snapshot("doc", "s", Some(&elsewhere), json!({"gone": 3})))
    };
    assert_eq!(orphan(&TestHost::new(json!({})))["type"], "snapshot-saved");
    assert_eq!(orphan(&TestHost::new(json!({"verify": {"parent_proof": "strict"}}))), failed());
}

#[test]
fn additional_server_data_is_stored_and_shown_to_nobody() {
    let host = TestHost::new(json!({}));
    let (writer, reader) = (host.join("doc", "w"), host.join("doc", "r"));
    reader.take();
    let mut snapshot = Author::new(1).snapshot("doc", "s", None, json!({}));
    let plain = snapshot.clone();
    snapshot["additionalServerData"] = json!({"secret": [1, 2]});
    snapshot["unknownField"] = json!("not relayed");
    writer.send(&snapshot);
    assert_eq!(reader.one(), json!({"type": "snapshot", "snapshot": plain}));
    assert_eq!(host.join("doc", "k").one()["snapshot"], plain);
    assert_eq!(host.sql("SELECT server_data FROM t_ss_snapshots"), [[Value::Text(r#"{"secret":[1,2]}"#.into())]]);
}

#[test]
fn clocks_of_an_author_have_no_hole_and_no_repetition() {
    let host = TestHost::new(json!({"quiet_pipelined_refusals": false}));
    let (a, b) = (Author::new(1), Author::new(2));
    let (peer, _) = with_snapshot(&host, &a);
    assert_eq!(peer.ask(&a.update("doc", "s", 1, "x")), refused("s", 1));
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "x")), saved("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "other content")), refused("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 2, "x")), refused("s", 2));
    assert_eq!(peer.ask(&b.update("doc", "s", 0, "x")), saved("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 1, "x")), saved("s", 1));
    assert_eq!(peer.ask(&a.update("doc", "unknown", 0, "x")), refused("unknown", 0));
}

#[test]
fn an_update_before_any_snapshot_is_refused() {
    let host = TestHost::new(json!({}));
    assert_eq!(host.join("doc", "w").ask(&Author::new(1).update("doc", "s", 0, "x")), refused("s", 0));
}

#[test]
fn the_same_update_again_is_acknowledged_but_not_broadcast_even_after_a_newer_snapshot() {
    let host = TestHost::new(json!({"max_updates_per_snapshot": 1}));
    let a = Author::new(1);
    let (peer, first) = with_snapshot(&host, &a);
    let update = a.update("doc", "s", 0, "x");
    assert_eq!(peer.ask(&update), saved("s", 0));
    let reader = host.join("doc", "r");
    reader.take();
    assert_eq!(peer.ask(&update), saved("s", 0), "also at the limit");
    assert!(reader.take().is_empty());
    let second = a.snapshot("doc", "s2", Some(&first), json!({a.pub_key.clone(): 0}));
    assert_eq!(peer.ask(&second)["type"], "snapshot-saved");
    assert_eq!(peer.ask(&update), saved("s", 0));
    assert_eq!(reader.one()["type"], "snapshot");
}

#[test]
fn at_the_limit_a_new_snapshot_is_required_and_that_is_always_said() {
    let host = TestHost::new(json!({"max_updates_per_snapshot": {"do*": 2, "*": 0}}));
    let a = Author::new(1);
    let (peer, first) = with_snapshot(&host, &a);
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "x")), saved("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 1, "x")), saved("s", 1));
    for clock in [2, 3, 3] {
        let required = json!({"type": "update-save-failed", "snapshotId": "s", "clock": clock, "requiresNewSnapshot": true});
        assert_eq!(peer.ask(&a.update("doc", "s", clock, "x")), required);
    }
    let second = a.snapshot("doc", "s2", Some(&first), json!({a.pub_key.clone(): 1}));
    assert_eq!(peer.ask(&second)["type"], "snapshot-saved");
    assert_eq!(peer.ask(&a.update("doc", "s2", 0, "x")), saved("s2", 0));
}

#[test]
fn refusals_right_behind_a_refusal_stay_unsaid() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (peer, _) = with_snapshot(&host, &a);
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "first")), saved("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "again")), refused("s", 0));
    assert_eq!(peer.ask(&a.update("doc", "s", 1, "right")), saved("s", 1), "one above, but acceptable");
    assert_eq!(peer.ask(&a.update("doc", "s", 5, "x")), refused("s", 5));
    peer.take();
    peer.send(&a.update("doc", "s", 6, "x"));
    peer.send(&a.update("doc", "s", 7, "x"));
    assert!(peer.take().is_empty());
    assert_eq!(peer.ask(&a.update("doc", "s", 7, "x")), refused("s", 7));
    let other_connection = host.join("doc", "w");
    assert_eq!(other_connection.ask(&a.update("doc", "s", 8, "x")), refused("s", 8));
}

#[test]
fn after_a_delta_reconnect_clock_zero_is_refused_and_the_right_one_is_taken() {
    let host = TestHost::new(json!({}));
    let b = Author::new(2);
    let (peer, _) = with_snapshot(&host, &b);
    peer.send(&b.update("doc", "s", 0, "x"));
    let url = format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId=s&knownSnapshotUpdateClocks=%7B%22{}%22%3A0%7D", b.pub_key);
    let again = host.open(&url);
    assert_eq!(again.one(), json!({"type": "document", "updates": []}));
    assert_eq!(again.ask(&b.update("doc", "s", 0, "new")), refused("s", 0));
    assert_eq!(again.ask(&b.update("doc", "s", 1, "new")), saved("s", 1));
}

#[test]
fn everything_saved_is_one_row_of_sequence_numbers_per_document() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (peer, first) = with_snapshot(&host, &a);
    peer.send(&a.update("doc", "s", 0, "x"));
    peer.send(&a.update("doc", "s", 0, "refused"));
    peer.send(&a.snapshot("doc", "s2", Some(&first), json!({a.pub_key.clone(): 0})));
    let publications = host.mount().refill(host.imports(), "ss:doc", "ss:doc", 0);
    let orders: Vec<_> =
        publications.iter().map(|publication| publication.order.clone().unwrap()).map(|order| (order.after, order.sequence)).collect();
    assert_eq!(orders, [(0, 1), (1, 2), (2, 3)]);
    let types: Vec<Json> = publications.iter().map(|one| serde_json::from_slice::<Json>(&one.message).unwrap()["type"].clone()).collect();
    assert_eq!(types, ["snapshot", "update", "snapshot"]);
    assert_eq!(host.mount().refill(host.imports(), "ss:doc", "ss:doc", 2).len(), 1);
    assert!(host.mount().refill(host.imports(), "ss:doc", "ss:doc", 3).is_empty());
    let UpgradeStart { seen } = upgrade_start(&host);
    assert_eq!(seen, [("ss:doc".to_owned(), 3)]);
}

struct UpgradeStart {
    seen: Vec<(String, u64)>,
}

fn upgrade_start(host: &TestHost) -> UpgradeStart {
    let head = TestHost::head("/secsync/doc", "sessionKey=k");
    let crate::registry::UpgradeResult::Accept(accept) = host.mount().upgrade(host.imports(), 99, head) else { panic!("refused") };
    host.pubsub.subscriptions.borrow_mut().retain(|(id, _), _| *id != 99);
    UpgradeStart { seen: accept.start.seen }
}

#[test]
fn ephemeral_messages_are_relayed_in_order_and_never_stored() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (sender, receiver) = (host.join("doc", "a"), host.join("doc", "b"));
    [sender, receiver].iter().for_each(|peer| drop(peer.take()));
    let (begun, reads) = (host.executor.begun.get(), host.steps.borrow().len());
    let messages = [a.ephemeral_message("doc", "1"), a.ephemeral_message("doc", "2")];
    sender.send_frames(messages.iter().map(|message| Frame::Text(message.to_string())).collect());
    let relayed = receiver.take();
    assert_eq!(relayed.len(), 2);
    for (message, relayed) in messages.iter().zip(relayed) {
        let mut expected = message.clone();
        expected["type"] = "ephemeral-message".into();
        assert_eq!(relayed, expected);
    }
    assert!(sender.take().is_empty());
    assert_eq!((host.executor.begun.get(), host.steps.borrow().len()), (begun, reads), "no database");
}

#[test]
fn what_is_saved_must_arrive_and_what_is_ephemeral_may_be_left_out() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let connection = |peer: &Peer<'_>| crate::registry::Connection {
        id: peer.id,
        attachment: peer.attachment().encode(),
        cursors: Vec::new(),
        failure: None,
    };
    let peer = host.join("doc", "a");
    for frame in [a.snapshot("doc", "s", None, json!({})), a.ephemeral_message("doc", "1")] {
        host.mount().receive(host.imports(), connection(&peer), vec![crate::registry::Input::Frame(Frame::Text(frame.to_string()))]);
    }
    let published = host.pubsub.published.take();
    assert_eq!((&published[0].class, &published[0].except), (&Class::MustDeliver, &Some(peer.id)));
    assert_eq!(published[0].order.as_ref().map(|order| (order.key.as_str(), order.after, order.sequence)), Some(("ss:doc", 0, 1)));
    assert_eq!((&published[1].class, &published[1].order), (&Class::Droppable, &None));
}

#[test]
fn binary_frames_of_json_count_as_text() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    peer.take();
    peer.send_frames(vec![Frame::Binary(Author::new(1).snapshot("doc", "s", None, json!({})).to_string().into_bytes())]);
    assert_eq!(peer.one()["type"], "snapshot-saved");
}

#[test]
fn large_bodies_lie_in_objects_and_refused_ones_leave_none() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let peer = host.join("doc", "w");
    let large = ciphertext(&"x".repeat(300 << 10));
    let public = |id: &str| {
        let snapshot = a.snapshot("doc", id, None, json!({}));
        a.sign("secsync_snapshot", &large, snapshot["publicData"].clone())
    };
    let snapshot = public("s");
    assert_eq!(peer.ask(&snapshot)["type"], "snapshot-saved");
    assert_eq!(host.storage.objects.borrow().len(), 1);
    assert_eq!(peer.ask(&snapshot), failed());
    assert_eq!(peer.ask(&public("s2"))["snapshot"], snapshot);
    let update = a.sign("secsync_update", &large, json!({"docId": "doc", "refSnapshotId": "s", "clock": 0}));
    assert_eq!(peer.ask(&update), saved("s", 0));
    assert_eq!(peer.ask(&update), saved("s", 0));
    assert_eq!(host.storage.objects.borrow().len(), 2);
    assert_eq!(
        host.join("doc", "r").one(),
        json!({"type": "document", "snapshot": snapshot, "updates": [update], "snapshotProofChain": []})
    );
}

#[test]
fn with_grace_the_updates_of_others_wait_for_the_retry_of_a_snapshot() {
    let host = TestHost::new(json!({"snapshot_grace_ms": 200}));
    let (a, b) = (Author::new(1), Author::new(2));
    let (peer, first) = with_snapshot(&host, &a);
    let other = host.join("doc", "b");
    peer.send(&b.update("doc", "s", 0, "x"));
    assert!(peer.ask(&a.snapshot("doc", "x", Some(&first), json!({})))["updates"].is_array());
    assert_eq!(peer.ask(&a.update("doc", "s", 0, "own")), saved("s", 0), "the author's own go on");
    host.now_ms.set(host.now_ms.get() + 50);
    other.take();
    let frames = || vec![Frame::Text(b.ephemeral_message("doc", "e").to_string()), Frame::Text(b.update("doc", "s", 1, "y").to_string())];
    assert_eq!(other.send_frames(frames()), Some((1, 150)));
    assert!(other.take().is_empty());
    let retry = a.snapshot("doc", "s2", Some(&first), json!({a.pub_key.clone(): 0, b.pub_key.clone(): 0}));
    assert_eq!(peer.ask(&retry)["type"], "snapshot-saved");
    let mut frames = frames();
    assert_eq!(other.send_frames(frames.split_off(1)), None);
    let replies = other.take();
    assert_eq!(replies.last(), Some(&refused("s", 1)), "the snapshot is another one now");
}

#[test]
fn grace_ends_by_itself_and_does_not_follow_on_itself() {
    let host = TestHost::new(json!({"snapshot_grace_ms": 200}));
    let (a, b) = (Author::new(1), Author::new(2));
    let (peer, first) = with_snapshot(&host, &a);
    let put_off = |clock| peer.send_frames(vec![Frame::Text(b.update("doc", "s", clock, "x").to_string())]);
    assert_eq!(put_off(0), None);
    peer.send(&a.snapshot("doc", "x1", Some(&first), json!({})));
    assert_eq!(put_off(1), Some((0, 200)));
    host.now_ms.set(host.now_ms.get() + 200);
    assert_eq!(put_off(1), None);
    peer.send(&a.snapshot("doc", "x2", Some(&first), json!({})));
    assert_eq!(put_off(2), None, "no second grace right behind the first");
    host.now_ms.set(host.now_ms.get() + 200);
    peer.send(&a.snapshot("doc", "x3", Some(&first), json!({})));
    assert_eq!(put_off(3), Some((0, 200)));
}
