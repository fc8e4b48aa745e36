//! Upgrades that are refused in band (section 2.2), and addresses that look odd (section 2.1).

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::Socket;

use crate::support::*;

async fn refused(server: &TestServer, place: &str, message_type: &str) {
    let mut socket = Socket::connect(server.address, place).await;
    assert_eq!(socket.json().await, json!({"type": message_type}), "{place}");
    closed_without_code(&mut socket).await;
}

/// One document may be read by `reader`, another one may be created by nobody.
async fn guarded() -> TestServer {
    TestServer::with_settings(json!({
        "access": "policy", "auto_create": ["open-*"],
        "policy": [{"session_keys": ["reader", ""], "documents": ["open-*", "closed-*"], "actions": ["read"]}],
    }))
    .await
}

#[tokio::test]
async fn each_refusal_of_an_upgrade_is_a_frame_and_a_close_without_a_code() {
    let server = guarded().await;
    let long = "x".repeat(2001);
    for place in [
        // No session key, or no document.
        "/secsync/open-1",
        "/secsync/open-1?mode=complete",
        "/secsync/open-1?sessionkey=reader",
        "/secsync/open-1?mode=delta&knownSnapshotId=x",
        "/secsync?sessionKey=reader",
        "/secsync/?sessionKey=reader",
        "/secsync/",
        // The first condition wins, also where access would be denied.
        "/secsync/secret",
        "/secsync/?sessionKey=stranger",
        // Ids that no database could hold.
        "/secsync/open-%00?sessionKey=reader",
        &format!("/secsync/open-{long}?sessionKey=reader"),
    ] {
        refused(&server, place, "document-error").await;
    }
    for place in [
        "/secsync/open-1?sessionKey=stranger",
        "/secsync/open-1?sessionKey=Reader",
        "/secsync/open-1?sessionKey=reader+",
        "/secsync/open-1?sessionKey=stranger&sessionKey=reader",
        "/secsync/secret?sessionKey=reader",
        "/secsync/xopen-1?sessionKey=reader",
        // Access is asked for before existence.
        "/secsync/secret-that-does-not-exist?sessionKey=reader",
    ] {
        refused(&server, place, "unauthorized").await;
    }
    refused(&server, "/secsync/closed-1?sessionKey=reader", "document-not-found").await;
    for place in [
        "/secsync/open-1?sessionKey=reader",
        "/secsync/open-1?sessionKey=",
        "/secsync/open-1?sessionKey",
        "/secsync/open-1?sessionKey=reader&sessionKey=stranger",
        "/secsync/open-1?x=y&mode=none&sessionKey=%72eader&z",
    ] {
        open(&server, place).await.0.close().await;
    }
}

#[tokio::test]
async fn a_document_that_may_not_be_created_can_be_opened_once_it_exists() {
    let folder = {
        let server = TestServer::start().await;
        with_snapshot(&server, "old", &Author::new(1)).await.0.close().await;
        server.stop().await
    };
    let mounts = vec![secsync_mount("secsync", json!({"auto_create": false}))];
    let server = TestServer::with(Setup { mounts, folder: Some(folder), ..Setup::default() }).await;
    assert!(load(&server, &place("old", "k")).await["snapshot"].is_object());
    refused(&server, &place("new", "k"), "document-not-found").await;
    refused(&server, &place("new", "k"), "document-not-found").await;
}

#[tokio::test]
async fn a_session_key_is_form_decoded_and_compared_whole() {
    let keys = ["a b", "ä€", "100%", "a+b", "k&x=y", "*"];
    for key in keys {
        let server = TestServer::with_settings(json!({
            "access": "policy", "policy": [{"session_keys": [key, "other"], "documents": ["*"], "actions": ["read"]}],
        }))
        .await;
        open(&server, &format!("/secsync/doc?sessionKey={}", encode(key))).await.0.close().await;
        if key == "a b" {
            open(&server, "/secsync/doc?sessionKey=a+b").await.0.close().await;
        }
        let expected = if key == "*" { "document" } else { "unauthorized" };
        let mut socket = Socket::connect(server.address, &format!("/secsync/doc?sessionKey={}x", encode(key))).await;
        socket.json_of(expected).await;
    }
}

#[tokio::test]
async fn malformed_knowledge_counts_as_none_and_never_as_an_error() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let update = author.update("doc", &snapshot.id, 0, b"u");
    save(&mut socket, &update).await;
    let key = author.public_key();
    let twice = encode(&encode(&json!({&key: 0}).to_string()));
    for (clocks, updates) in [
        (encode("["), json!([update])),
        (encode("null"), json!([update])),
        (encode("0"), json!([update])),
        (encode("[0]"), json!([update])),
        (encode(&format!(r#"{{"{key}":"0"}}"#)), json!([update])),
        (encode(&format!(r#"{{"{key}":null}}"#)), json!([update])),
        (encode(&format!(r#"{{"{key}":0,"x":"0"}}"#)), json!([update])),
        (encode(&format!(r#"{{"{key}":0"#)), json!([update])),
        ("%".into(), json!([update])),
        ("%FF%FE".into(), json!([update])),
        (String::new(), json!([update])),
        (encode(&format!(r#"{{"{key}":-1}}"#)), json!([update])),
        (encode(&format!(r#"{{"{key}":0.0}}"#)), json!([])),
        (encode(&format!(r#"{{"{key}":1e300}}"#)), json!([])),
        (encode(&format!(r#"{{"x":7,"{key}":3}}"#)), json!([])),
        (twice, json!([])),
    ] {
        let place = format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId={}&knownSnapshotUpdateClocks={clocks}", snapshot.id);
        assert_eq!(load(&server, &place).await, json!({"type": "document", "updates": updates}), "{clocks}");
    }
    let all = load(&server, &place("doc", "k")).await;
    for known in ["", "unknown", "%00", "a%20b", "%FF", &"x".repeat(3000)] {
        let place = format!("/secsync/doc?sessionKey=k&mode=delta&knownSnapshotId={known}");
        assert_eq!(load(&server, &place).await, all, "{known}");
    }
}
