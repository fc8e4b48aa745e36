//! Section 2: URL, refusals, the `document` frame, no gap.

use serde_json::json;

use crate::contract::exports::syncline::sync::http::Admission;
use crate::imports::Header;
use crate::secsync::connect::Request;
use crate::secsync::test_support::*;

#[test]
fn without_a_session_key_or_a_document_id_there_is_a_document_error() {
    let host = TestHost::new(json!({}));
    for url in ["/secsync/doc", "/secsync/doc?mode=delta", "/secsync/?sessionKey=k", "/secsync?sessionKey=k", "/secsync/%00?sessionKey=k"] {
        let peer = host.open(url);
        assert_eq!(peer.one(), json!({"type": "document-error"}), "{url}");
        assert_eq!(peer.closed(), Some(1005));
    }
    assert!(host.pubsub.subscriptions.borrow().is_empty());
}

#[test]
fn the_empty_session_key_is_a_key() {
    let host = TestHost::new(json!({}));
    let peer = host.open("/secsync/doc?sessionKey=");
    assert_eq!(peer.one(), empty_document());
    assert_eq!((peer.closed(), peer.attachment().session_key), (None, String::new()));
}

#[test]
fn a_document_that_may_not_be_created_is_not_found() {
    let host = TestHost::new(json!({"auto_create": ["yes-*"]}));
    assert_eq!(host.join("yes-1", "k").one(), empty_document());
    let peer = host.join("no-1", "k");
    assert_eq!(peer.one(), json!({"type": "document-not-found"}));
    assert_eq!(peer.closed(), Some(1005));
    assert!(!host.pubsub.subscriptions.borrow().keys().any(|(id, _)| *id == peer.id));
    assert!(host.sql("SELECT id FROM t_ss_documents WHERE id = 'no-1'").is_empty());
}

#[test]
fn opening_a_document_again_writes_nothing() {
    let host = TestHost::new(json!({}));
    host.join("doc", "a");
    let begun = host.executor.begun.get();
    assert_eq!(host.join("doc", "b").one(), empty_document());
    assert_eq!(host.executor.begun.get(), begun);
}

#[test]
fn a_connection_is_subscribed_before_the_document_is_read() {
    let host = TestHost::new(json!({}));
    host.join("a/b", "k");
    assert_eq!(*host.steps.borrow(), ["subscribe ss:a/b", "read"]);
}

#[test]
fn the_url_is_read_as_clients_write_it() {
    let read = |path: &str, query: &str| Request::read("/secsync", path, query).unwrap();
    assert_eq!(read("/secsync/a/b", "sessionKey=x").doc_id, "a/b");
    assert_eq!(read("/secsync/gr%C3%BC%C3%9Fe", "sessionKey=x").doc_id, "grüße");
    assert_eq!(read("/secsync/%ff", "sessionKey=x").doc_id, "%ff");
    let keys = read("/secsync/a", "sessionKey=a+b%2B&sessionKey=other");
    assert_eq!(keys.session_key, "a b+");
    assert!(read("/secsync/a", "mode=delta&sessionKey=x").delta);
    assert!(!read("/secsync/a", "mode=Delta&sessionKey=x").delta);
    assert_eq!(read("/secsync/a", "knownSnapshotId=a+b%20c&sessionKey=x").known_snapshot_id.as_deref(), Some("a+b c"));
    assert_eq!(read("/secsync/a", "knownSnapshotId=&sessionKey=x").known_snapshot_id, None);
    assert_eq!(Request::read("", "/a//b", "sessionKey=x").unwrap().doc_id, "a//b");
    assert_eq!(Request::read("/my sync", "/my%20sync/a", "sessionKey=x").unwrap().doc_id, "a");
    assert!(Request::read("/secsync", &format!("/secsync/{}", "x".repeat(2001)), "sessionKey=x").is_err());
}

#[test]
fn known_clocks_may_be_encoded_once_or_twice_and_anything_else_counts_as_absent() {
    let clocks = |value: &str| {
        let query = format!("sessionKey=x&knownSnapshotUpdateClocks={value}");
        Request::read("/secsync", "/secsync/a", &query).unwrap().known_snapshot_update_clocks
    };
    for written in ["%7B%22A%22%3A3%7D", "%257B%2522A%2522%253A3%257D", "{%22A%22:3.0}"] {
        assert_eq!(clocks(written).into_iter().collect::<Vec<_>>(), [("A".to_owned(), 3.0)], "{written}");
    }
    for written in ["", "%7B", "%5B1%5D", "null", "3", "%7B%22A%22%3A%22x%22%7D", "%ff"] {
        assert!(clocks(written).is_empty(), "{written}");
    }
}

/// Two snapshots, updates on both: A wrote 0 and 1, B wrote 0 on the second one.
fn furnished(host: &TestHost) -> (Author, Author, Vec<serde_json::Value>) {
    let (a, b) = (Author::new(1), Author::new(2));
    let peer = host.join("doc", "w");
    let first = a.snapshot("doc", "s1", None, json!({}));
    let old = a.update("doc", "s1", 0, "old");
    let second = b.snapshot("doc", "s2", Some(&first), json!({a.pub_key.clone(): 0}));
    let updates = [a.update("doc", "s2", 0, "a0"), b.update("doc", "s2", 0, "b0"), a.update("doc", "s2", 1, "a1")];
    let frames: Vec<_> = [vec![first, old, second], updates.to_vec()].concat();
    for frame in &frames {
        let reply = peer.ask(frame);
        assert!(reply["type"].as_str().unwrap().ends_with("-saved"), "{reply}");
    }
    (a, b, frames)
}

#[test]
fn without_known_state_everything_on_the_active_snapshot_is_sent() {
    let host = TestHost::new(json!({}));
    let (.., frames) = furnished(&host);
    let everything = json!({"type": "document", "snapshot": frames[2], "updates": frames[3..], "snapshotProofChain": []});
    for url in [
        "/secsync/doc?sessionKey=k",
        "/secsync/doc?sessionKey=k&mode=delta",
        "/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId=nobody-has-this",
        "/secsync/doc?sessionKey=k&mode=sideways&knownSnapshotId=",
    ] {
        assert_eq!(host.open(url).one(), everything, "{url}");
    }
}

#[test]
fn a_delta_on_the_active_snapshot_is_exactly_what_each_author_lacks() {
    let host = TestHost::new(json!({}));
    let (a, b, frames) = furnished(&host);
    let delta = |clocks: serde_json::Value| {
        let encoded: String = form_urlencoded::byte_serialize(clocks.to_string().as_bytes()).collect();
        host.open(&format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId=s2&knownSnapshotUpdateClocks={encoded}")).one()
    };
    let expected = |updates: &[&serde_json::Value]| json!({"type": "document", "updates": updates});
    assert_eq!(delta(json!({})), expected(&[&frames[3], &frames[4], &frames[5]]));
    assert_eq!(delta(json!("malformed")), expected(&[&frames[3], &frames[4], &frames[5]]));
    // A newer one of A is known, an older one of B is not: it is sent all the same.
    assert_eq!(delta(json!({a.pub_key.clone(): 1})), expected(&[&frames[4]]));
    assert_eq!(delta(json!({a.pub_key.clone(): 0.5, b.pub_key.clone(): 0})), expected(&[&frames[5]]));
    assert_eq!(delta(json!({a.pub_key.clone(): 1, b.pub_key.clone(): 7})), expected(&[]));
    assert_eq!(delta(json!({a.pub_key.clone(): 1, b.pub_key.clone(): -1e300})), expected(&[&frames[4]]));
}

#[test]
fn complete_with_the_active_snapshot_known_sends_it_again_with_what_is_lacking() {
    let host = TestHost::new(json!({}));
    let (a, _, frames) = furnished(&host);
    let url = format!("/secsync/doc?sessionKey=k&mode=complete&knownSnapshotId=s2&knownSnapshotUpdateClocks=%7B%22{}%22%3A1%7D", a.pub_key);
    assert_eq!(host.open(&url).one(), json!({"type": "document", "snapshot": frames[2], "updates": [frames[4]], "snapshotProofChain": []}));
}

#[test]
fn a_known_ancestor_gets_the_chain_from_its_child_to_the_active_snapshot() {
    let host = TestHost::new(json!({}));
    let (a, b, frames) = furnished(&host);
    let third = a.snapshot("doc", "s3", Some(&frames[2]), json!({a.pub_key.clone(): 1, b.pub_key.clone(): 0}));
    assert_eq!(host.join("doc", "w").ask(&third)["type"], "snapshot-saved");
    let entry = |frame: &serde_json::Value| {
        json!({"snapshotId": frame["publicData"]["snapshotId"], "parentSnapshotProof": frame["publicData"]["parentSnapshotProof"],
            "snapshotCiphertextHash": crate::secsync::verify::hash(frame["ciphertext"].as_str().unwrap())})
    };
    for mode in ["delta", "complete"] {
        let document = host.open(&format!("/secsync/doc?sessionKey=k&mode={mode}&knownSnapshotId=s1")).one();
        let chain = json!([entry(&frames[2]), entry(&third)]);
        assert_eq!(document, json!({"type": "document", "snapshot": third, "updates": [], "snapshotProofChain": chain}));
    }
}

#[test]
fn a_snapshot_of_another_document_counts_as_unknown() {
    let host = TestHost::new(json!({}));
    furnished(&host);
    let a = Author::new(1);
    let other = a.snapshot("other", "o1", None, json!({}));
    assert_eq!(host.join("other", "w").ask(&other)["type"], "snapshot-saved");
    let document = host.open("/secsync/other?sessionKey=k&mode=delta&knownSnapshotId=s2").one();
    assert_eq!(document, json!({"type": "document", "snapshot": other, "updates": [], "snapshotProofChain": []}));
    let still_empty = host.open("/secsync/empty?sessionKey=k&mode=delta&knownSnapshotId=s2").one();
    assert_eq!(still_empty, empty_document());
}

#[test]
fn a_document_of_many_updates_and_authors_is_read_in_pages() {
    let host = TestHost::new(json!({}));
    let peer = host.join("doc", "w");
    let snapshot = Author::new(0).snapshot("doc", "s", None, json!({}));
    peer.send(&snapshot);
    let mut sent = Vec::new();
    for author in 0..40 {
        let author = Author::new(author);
        for clock in 0..5 {
            sent.push(author.update("doc", "s", clock, "x"));
        }
    }
    peer.send_frames(sent.iter().map(|frame| crate::imports::Frame::Text(frame.to_string())).collect());
    assert_eq!(host.join("doc", "k").one()["updates"], json!(sent));
    let delta = || host.open("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId=s").one();
    assert_eq!(delta(), json!({"type": "document", "updates": sent}));
    host.limit_answers(4000);
    assert_eq!(delta(), json!({"type": "document", "updates": sent}), "pages that are too large are asked for in smaller ones");
}

#[test]
fn ids_outside_ascii_work_from_the_url_to_the_broadcast() {
    let host = TestHost::new(json!({}));
    let (writer, reader) = (host.join("gr%C3%BC%C3%9Fe", "w"), host.join("gr%C3%BC%C3%9Fe", "r"));
    reader.take();
    let snapshot = Author::new(1).snapshot("grüße", "s", None, json!({}));
    assert_eq!(writer.ask(&snapshot)["type"], "snapshot-saved");
    assert_eq!(reader.one()["snapshot"], snapshot);
}

#[test]
fn plain_http_has_nothing_but_cors() {
    let host = TestHost::new(json!({}));
    let ask = |method: &str| {
        let mut head = TestHost::head("/secsync/doc", "");
        head.method = method.into();
        head.headers.push(Header { name: "access-control-request-headers".into(), value: b"x-a, x-b".to_vec() });
        let Admission::Refuse(response) = host.mount().admit(host.imports(), 1, head) else { panic!("admitted") };
        let headers: Vec<_> =
            response.headers.iter().map(|header| (header.name.clone(), String::from_utf8_lossy(&header.value).into_owned())).collect();
        (response.status, headers)
    };
    let cors =
        [("access-control-allow-origin".to_owned(), "*".to_owned()), ("access-control-allow-credentials".to_owned(), "true".to_owned())];
    assert_eq!(ask("GET"), (404, cors.to_vec()));
    let (status, headers) = ask("OPTIONS");
    assert_eq!(status, 204);
    assert!(headers.starts_with(&cors));
    assert!(headers.contains(&("access-control-allow-headers".to_owned(), "x-a, x-b".to_owned())));
    assert!(headers.iter().any(|(name, _)| name == "access-control-allow-methods"));
}
