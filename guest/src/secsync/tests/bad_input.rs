//! Section 7: whatever comes, the server answers or ignores it, and lives on.

use serde_json::{Value as Json, json};

use crate::imports::Frame;
use crate::secsync::test_support::*;

fn text(text: &str) -> Frame {
    Frame::Text(text.into())
}

fn bad_frames() -> Vec<Frame> {
    let mut frames: Vec<_> = ["", "{", "null", "3", "\"x\"", "[]", "[{}]", "true", "{}", r#"{"publicData":null}"#, r#"{"publicData":[]}"#]
        .into_iter()
        .map(text)
        .collect();
    frames.push(text(&format!(r#"{{"publicData":{}1{}}}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000))));
    frames.push(text(&"[".repeat(100_000)));
    frames.push(text(r#"{"publicData":{"docId":"\ud800"}}"#));
    frames.push(Frame::Binary(vec![0xff, 0xfe]));
    frames
}

#[test]
fn what_is_no_message_is_ignored() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    peer.take();
    for frame in bad_frames() {
        peer.send_frames(vec![frame]);
        assert_eq!((peer.take(), peer.closed()), (Vec::new(), None));
    }
}

#[test]
fn too_many_bad_frames_in_a_row_close_the_connection() {
    let host = TestHost::new(json!({"max_bad_frames": 3}));
    let peer = host.join("doc", "w");
    peer.send_frames(vec![text("x"), text("x")]);
    peer.send(&json!({"publicData": {}}));
    peer.send_frames(vec![text("x"), text("x")]);
    assert_eq!(peer.closed(), None, "an empty ephemeral message is dropped, but a message");
    peer.send_frames(vec![text("null")]);
    assert_eq!(peer.closed(), Some(1008));
    let unlimited = TestHost::new(json!({"max_bad_frames": 0}));
    let patient = unlimited.join("doc", "w");
    patient.send_frames(vec![text("x"); 100]);
    assert_eq!(patient.closed(), None);
}

/// A frame with one thing changed.
fn changed(frame: &Json, path: &str, value: Json) -> Json {
    let mut frame = frame.clone();
    *frame.pointer_mut(path).unwrap() = value;
    frame
}

fn without(frame: &Json, object: &str, key: &str) -> Json {
    let mut frame = frame.clone();
    frame.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    frame
}

/// Every way in which a field of the envelope or of all public data can be wrong.
fn spoilt(frame: &Json) -> Vec<Json> {
    let mut spoilt = Vec::new();
    for key in ["ciphertext", "nonce", "signature"] {
        spoilt.push(without(frame, "", key));
        let good = frame[key].as_str().unwrap();
        let padded = format!("{good}=");
        let cut = good[1..].to_owned();
        let other_alphabet = format!("+{}", &good[1..]);
        for value in
            [json!(null), json!(3), json!({}), json!(""), json!(padded), json!(cut), json!(other_alphabet), json!(format!(" {good}"))]
        {
            spoilt.push(changed(frame, &format!("/{key}"), value));
        }
    }
    for key in ["docId", "pubKey"] {
        spoilt.push(without(frame, "/publicData", key));
        for value in [json!(null), json!(3), json!([]), json!("other")] {
            spoilt.push(changed(frame, &format!("/publicData/{key}"), value));
        }
    }
    spoilt
}

#[test]
fn a_spoilt_snapshot_gets_a_bare_failure() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let good = Author::new(1).snapshot("doc", "s", None, json!({}));
    let mut frames = spoilt(&good);
    for key in ["parentSnapshotId", "parentSnapshotProof", "parentSnapshotUpdateClocks"] {
        frames.push(without(&good, "/publicData", key));
        frames.push(changed(&good, &format!("/publicData/{key}"), json!(3)));
    }
    frames.push(changed(&good, "/publicData/parentSnapshotUpdateClocks", json!({"a": "0"})));
    frames.push(changed(&good, "/publicData/parentSnapshotProof", json!("short")));
    frames.extend([json!(3), json!(["x"]), json!(true)].into_iter().map(|id| changed(&good, "/publicData/snapshotId", id)));
    for frame in frames {
        assert_eq!(peer.ask(&frame), failed(), "{frame}");
    }
    assert_eq!(peer.ask(&good)["type"], "snapshot-saved");
}

#[test]
fn a_spoilt_update_gets_back_what_was_sent_of_it() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let a = Author::new(1);
    peer.send(&a.snapshot("doc", "s", None, json!({})));
    let good = a.update("doc", "s", 0, "x");
    for frame in spoilt(&good) {
        assert_eq!(peer.ask(&frame), refused("s", 0), "{frame}");
    }
    for clock in [json!("0"), json!(-1), json!(0.5), json!(null), json!(9007199254740992u64), json!({"a": 1})] {
        let expected = json!({"type": "update-save-failed", "snapshotId": "s", "clock": clock, "requiresNewSnapshot": false});
        assert_eq!(peer.ask(&changed(&good, "/publicData/clock", clock)), expected);
    }
    let no_clock = json!({"type": "update-save-failed", "snapshotId": "s", "requiresNewSnapshot": false});
    assert_eq!(peer.ask(&without(&good, "/publicData", "clock")), no_clock);
    let odd_id = json!({"type": "update-save-failed", "snapshotId": 7, "clock": 0, "requiresNewSnapshot": false});
    assert_eq!(peer.ask(&changed(&good, "/publicData/refSnapshotId", json!(7))), odd_id);
    assert_eq!(peer.ask(&good), saved("s", 0));
}

#[test]
fn a_spoilt_ephemeral_message_is_dropped() {
    let host = TestHost::new(json!({}));
    let (peer, reader) = (host.join("doc", "w"), host.join("doc", "r"));
    [peer, reader].iter().for_each(|peer| drop(peer.take()));
    for frame in spoilt(&Author::new(1).ephemeral_message("doc", "x")) {
        peer.send(&frame);
        assert_eq!((peer.take(), reader.take(), peer.closed()), (Vec::new(), Vec::new(), None), "{frame}");
    }
}

#[test]
fn nothing_can_be_written_into_another_document() {
    let host = TestHost::new(json!({}));
    let a = Author::new(1);
    let (peer, victim) = (host.join("doc", "w"), host.join("victim", "v"));
    victim.send(&a.snapshot("victim", "v", None, json!({})));
    victim.take();
    assert_eq!(peer.ask(&a.snapshot("victim", "s", None, json!({}))), failed());
    assert_eq!(peer.ask(&a.update("victim", "v", 0, "x")), refused("v", 0));
    peer.send(&a.ephemeral_message("victim", "x"));
    assert!(victim.take().is_empty());
    // Not even with a foreign snapshot named from inside the own document.
    assert_eq!(peer.ask(&a.update("doc", "v", 0, "x")), refused("v", 0));
}

#[test]
fn a_signature_of_another_kind_of_frame_does_not_count() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let a = Author::new(1);
    let snapshot = a.snapshot("doc", "s", None, json!({}));
    let other = a.sign("secsync_update", snapshot["ciphertext"].as_str().unwrap(), snapshot["publicData"].clone());
    assert_eq!(peer.ask(&other), failed());
}

#[test]
fn a_field_that_nobody_configured_breaks_the_signature_and_is_never_stored() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let a = Author::new(1);
    let mut public_data = a.snapshot("doc", "s", None, json!({}))["publicData"].clone();
    public_data["extra"] = json!(1);
    assert_eq!(peer.ask(&a.sign("secsync_snapshot", &ciphertext("x"), public_data)), failed());
    // Not signed over, it is cut off.
    let mut snapshot = a.snapshot("doc", "s", None, json!({}));
    let plain = snapshot.clone();
    snapshot["publicData"]["extra"] = json!(1);
    assert_eq!(peer.ask(&snapshot)["type"], "snapshot-saved");
    assert_eq!(host.join("doc", "r").one()["snapshot"], plain);
}

#[test]
fn numbers_are_what_javascript_takes_them_for() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let a = Author::new(1);
    peer.send(&a.snapshot("doc", "s", None, json!({})));
    for (clock, written) in ["-0", "1e0", "20E-1", "3.0"].into_iter().enumerate() {
        let frame = a.update("doc", "s", clock as u64, "x").to_string();
        let rewritten = frame.replace(&format!("\"clock\":{clock}"), &format!("\"clock\":{written}"));
        assert_ne!(frame, rewritten);
        peer.take();
        peer.send_frames(vec![text(&rewritten)]);
        assert_eq!(peer.one(), saved("s", clock as u64), "{written}");
    }
}

#[test]
fn of_repeated_keys_the_last_counts() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    peer.take();
    let frame = Author::new(1).snapshot("doc", "s", None, json!({})).to_string();
    peer.send_frames(vec![text(&frame.replacen('{', r#"{"nonce":3,"publicData":[],"#, 1))]);
    assert_eq!(peer.one()["type"], "snapshot-saved");
}

#[test]
fn switched_off_checks_let_unsigned_and_odd_frames_through() {
    let host = TestHost::new(json!({"verify": {"signatures": false, "shape": false, "parent_proof": "off"}}));
    let (peer, reader) = (host.join("doc", "w"), host.join("doc", "r"));
    reader.take();
    let public_data = json!({"docId": "doc", "pubKey": "me", "snapshotId": "s", "parentSnapshotId": "", "parentSnapshotProof": "", "parentSnapshotUpdateClocks": {}});
    let frame = json!({"ciphertext": "quote\" \\ \u{1} ü", "nonce": "n", "signature": "", "publicData": public_data});
    assert_eq!(peer.ask(&frame)["type"], "snapshot-saved");
    assert_eq!(reader.one()["snapshot"], frame);
}
