//! Section 6: access, broadcasts, additional public data.

use serde_json::{Value as Json, json};

use crate::imports::{Frame, Level};
use crate::secsync::test_support::*;

fn unauthorized() -> Json {
    json!({"type": "unauthorized"})
}

/// Author 6 may write with the key "bykey"; "reader" and "muted" only read, "quiet" sends no ephemeral messages.
fn policy() -> Json {
    json!({
        "auto_create": ["pol-*"],
        "access": "policy",
        "broadcast_access": "policy",
        "policy": [
            {"session_keys": ["writer"], "documents": ["pol-*", "nope-*"], "actions": ["read", "write-snapshot", "write-update", "send-ephemeral-message"], "broadcast": true},
            {"session_keys": ["reader"], "documents": ["pol-*"], "actions": ["read"], "broadcast": true},
            {"session_keys": ["muted"], "documents": ["pol-*"], "actions": ["read"], "broadcast": false},
            {"session_keys": ["quiet"], "documents": ["pol-*"], "actions": ["read", "write-snapshot", "write-update"], "broadcast": true},
            {"session_keys": ["bykey"], "documents": ["pol-*"], "actions": ["read"], "broadcast": true},
            {"session_keys": ["bykey"], "documents": ["pol-*"], "actions": ["write-snapshot", "write-update", "send-ephemeral-message"], "public_keys": [Author::new(6).pub_key], "broadcast": true}
        ],
        "max_updates_per_snapshot": {"pol-limit-*": 3},
        "additional_public_data": {"snapshot": {"title": "string?"}, "update": {"tag": "string?"}, "ephemeral_message": {"room": "string?"}}
    })
}

#[test]
fn without_read_access_there_is_unauthorized_and_a_close_even_before_not_found() {
    let host = TestHost::new(policy());
    for (doc_id, key, message) in [
        ("pol-1", "stranger", "unauthorized"),
        ("secret", "writer", "unauthorized"),
        ("nope-1", "writer", "document-not-found"),
        ("nope-1", "reader", "unauthorized"),
    ] {
        let peer = host.join(doc_id, key);
        assert_eq!(peer.one(), json!({"type": message}), "{doc_id} {key}");
        assert_eq!(peer.closed(), Some(1005));
    }
    assert!(host.pubsub.subscriptions.borrow().is_empty());
}

#[test]
fn each_way_of_writing_is_denied_alone() {
    let host = TestHost::new(policy());
    let a = Author::new(1);
    let snapshot = a.snapshot("pol-1", "s", None, json!({}));
    assert_eq!(host.join("pol-1", "writer").ask(&snapshot)["type"], "snapshot-saved");
    let frames = [a.snapshot("pol-1", "s2", Some(&snapshot), json!({})), a.update("pol-1", "s", 0, "x"), a.ephemeral_message("pol-1", "x")];
    for frame in &frames {
        let peer = host.join("pol-1", "reader");
        assert_eq!(peer.ask(frame), unauthorized());
        assert_eq!(peer.closed(), Some(1005));
    }
    let quiet = host.join("pol-1", "quiet");
    assert_eq!(quiet.ask(&frames[1]), saved("s", 0));
    assert_eq!(quiet.ask(&frames[2]), unauthorized());
}

#[test]
fn a_rule_with_public_keys_lets_only_these_authors_write() {
    let host = TestHost::new(policy());
    let peer = host.join("pol-1", "bykey");
    assert_eq!(peer.ask(&Author::new(6).snapshot("pol-1", "s", None, json!({})))["type"], "snapshot-saved");
    assert_eq!(peer.ask(&Author::new(1).update("pol-1", "s", 0, "x")), unauthorized());
}

#[test]
fn what_came_behind_a_denied_frame_is_not_handled() {
    let host = TestHost::new(policy());
    let peer = host.join("pol-1", "quiet");
    peer.take();
    let a = Author::new(1);
    let frames = [a.ephemeral_message("pol-1", "x"), a.snapshot("pol-1", "s", None, json!({}))];
    peer.send_frames(frames.iter().map(|frame| Frame::Text(frame.to_string())).collect());
    assert_eq!(peer.one(), unauthorized());
    assert!(host.sql("SELECT id FROM t_ss_snapshots").is_empty());
}

#[test]
fn denied_ephemeral_messages_may_be_dropped_instead() {
    let mut settings = policy();
    settings["deny_ephemeral"] = "drop".into();
    let host = TestHost::new(settings);
    let peer = host.join("pol-1", "reader");
    peer.take();
    peer.send(&Author::new(1).ephemeral_message("pol-1", "x"));
    assert_eq!((peer.take(), peer.closed()), (Vec::new(), None));
}

#[test]
fn a_session_without_broadcast_access_hears_nothing_any_more_and_stays_open() {
    let host = TestHost::new(policy());
    let (writer, reader, muted) = (host.join("pol-1", "writer"), host.join("pol-1", "reader"), host.join("pol-1", "muted"));
    [reader, muted].iter().for_each(|peer| drop(peer.take()));
    writer.send(&Author::new(1).snapshot("pol-1", "s", None, json!({})));
    assert_eq!(reader.one()["type"], "snapshot");
    assert_eq!((muted.take(), muted.closed()), (Vec::new(), None));
    assert!(!host.pubsub.subscriptions.borrow().keys().any(|(id, _)| *id == muted.id));
    assert!(host.pubsub.subscriptions.borrow().keys().any(|(id, _)| *id == reader.id));
}

#[test]
fn or_it_is_told_and_closed() {
    let mut settings = policy();
    settings["on_broadcast_denied"] = "close".into();
    let host = TestHost::new(settings);
    let (writer, muted) = (host.join("pol-1", "writer"), host.join("pol-1", "muted"));
    muted.take();
    writer.send(&Author::new(1).snapshot("pol-1", "s", None, json!({})));
    assert_eq!((muted.take(), muted.closed()), (vec![unauthorized()], Some(1005)));
}

#[test]
fn additional_fields_must_be_known_and_fit() {
    let host = TestHost::new(json!({"additionalAuthenticationDataValidations": {
        "snapshot": {"title": "string", "clock": "number?"},
        "update": {"tag": "string?", "pubKey": "number"},
        "ephemeralMessage": "any"
    }}));
    let a = Author::new(1);
    let peer = host.join("doc", "w");
    let base = a.snapshot("doc", "s", None, json!({}))["publicData"].clone();
    let snapshot_with = |fields: Json| {
        let mut public_data = base.clone();
        public_data.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        peer.ask(&a.sign("secsync_snapshot", &ciphertext("x"), public_data))
    };
    assert_eq!(snapshot_with(json!({})), failed(), "title is missing");
    assert_eq!(snapshot_with(json!({"title": 3})), failed());
    assert_eq!(snapshot_with(json!({"title": "t", "clock": "3"})), failed());
    assert_eq!(snapshot_with(json!({"title": "t", "unknown": 1})), failed());
    assert_eq!(snapshot_with(json!({"title": "t", "clock": 1e21}))["type"], "snapshot-saved");
    let loaded = host.join("doc", "r").one();
    assert_eq!((&loaded["snapshot"]["publicData"]["title"], &loaded["snapshot"]["publicData"]["clock"]), (&json!("t"), &json!(1e21)));

    let update_with = |clock: u64, extra: Json| {
        let mut public_data = json!({"docId": "doc", "refSnapshotId": "s", "clock": clock});
        public_data.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        peer.ask(&a.sign("secsync_update", &ciphertext("x"), public_data))
    };
    assert_eq!(update_with(0, json!({"tag": "t"})), saved("s", 0), "a base field named in the schema stays the base field");
    assert_eq!(update_with(1, json!({"other": "t"})), refused("s", 1));
    assert_eq!(update_with(1, json!({})), saved("s", 1));

    let reader = host.join("doc", "r");
    reader.take();
    let anything = json!({"docId": "doc", "nested": {"b": [1.5, -0.0, null], "a": "\u{1}\u{20ac}"}});
    peer.send(&a.sign("secsync_ephemeral_message", &ciphertext("x"), anything));
    assert_eq!(reader.one()["publicData"]["nested"]["a"], "\u{1}\u{20ac}");
}

#[test]
fn the_log_names_refusals_at_error_nothing_at_off_and_secrets_never() {
    for (logging, expected) in [("off", false), ("error", true), ("debug", true)] {
        let mut settings = policy();
        settings["logging"] = logging.into();
        let host = TestHost::new(settings);
        let a = Author::new(1);
        let frame = a.update("pol-1", "s", 3, "hidden");
        host.join("pol-1", "writer").send(&frame);
        host.join("pol-1", "reader").send(&frame);
        host.open("/secsync/pol-1?sessionKey=stranger-key");
        let lines = host.effects.lines.borrow();
        assert_eq!(lines.iter().filter(|(level, _)| *level == Level::Error).count(), if expected { 3 } else { 0 });
        assert_eq!(lines.iter().any(|(level, _)| *level == Level::Debug), logging == "debug");
        for (_, line) in lines.iter() {
            let ciphertext = frame["ciphertext"].as_str().unwrap();
            assert!(!line.contains(ciphertext) && !line.contains("writer") && !line.contains("stranger-key"), "{line}");
        }
        assert!(!expected || lines.iter().any(|(_, line)| line.contains("/secsync/pol-1") && line.contains("origin")));
    }
}

#[test]
fn the_start_says_so_where_anybody_may_do_everything() {
    let says_so = |settings: Json| TestHost::new(settings).effects.lines.borrow().iter().any(|(_, line)| line.contains("allow-all"));
    assert!(says_so(json!({})));
    assert!(!says_so(policy()));
}
