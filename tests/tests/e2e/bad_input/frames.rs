//! Messages that are none.

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::TestServer;
use tokio_tungstenite::tungstenite::Message;

use crate::raw::{self, BINARY, CONTINUATION, FIN, RawConnection, TEXT};
use crate::support::*;

fn no_messages() -> Vec<(&'static str, Message)> {
    let deep_data = format!(r#"{{"publicData":{}1{}}}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000));
    vec![
        ("nothing", text("")),
        ("no JSON", text("hello")),
        ("half of an object", text(r#"{"publicData":"#)),
        ("an object and more", text(r#"{"publicData":{}} {"publicData":{}}"#)),
        ("an object after a byte order mark", text("\u{feff}{\"publicData\":{}}")),
        ("JSON with a comment", text(r#"{"publicData":{} /* yes */}"#)),
        ("single quotes", text("{'publicData':{}}")),
        ("a raw line feed in a string", text("{\"publicData\":{\"docId\":\"a\nb\"}}")),
        ("binary that is no UTF-8", Message::binary(vec![0xff, 0xfe, b'{', b'}'])),
        ("binary with half of a character", Message::binary(b"{\"publicData\":{\"docId\":\"\xc3\"}}".to_vec())),
        ("empty binary", Message::binary(Vec::new())),
        ("null", text("null")),
        ("a number", text("3")),
        ("a string", text(r#""publicData""#)),
        ("true", text("true")),
        ("an empty array", text("[]")),
        ("an array of objects", text(r#"[{"publicData":{}}]"#)),
        ("an empty object", text("{}")),
        ("public data that is null", text(r#"{"publicData":null}"#)),
        ("public data that is a number", text(r#"{"publicData":3}"#)),
        ("public data that is a string", text(r#"{"publicData":"{}"}"#)),
        ("public data that is an array", text(r#"{"publicData":[]}"#)),
        ("public data under another name", text(r#"{"publicdata":{"snapshotId":"s"}}"#)),
        ("deep arrays", text(&"[".repeat(100_000))),
        ("deep public data", text(&deep_data)),
        ("deep data under a name that nobody reads", text(&format!(r#"{{"x":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)))),
    ]
}

#[tokio::test]
async fn what_is_no_message_is_ignored_and_the_next_one_is_not() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut other = join(&server, "doc").await;
    for (clock, (name, message)) in (0..).zip(no_messages()) {
        println!("{name}");
        socket.send_message(message).await;
        let update = author.update("doc", &snapshot.id, clock, name.as_bytes());
        save(&mut socket, &update).await;
        assert_eq!(other.json().await, relayed("update", &update), "nothing else reached the others after {name}");
    }
}

#[tokio::test]
async fn a_binary_message_with_json_is_a_message_and_answers_are_text() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut other = RawConnection::websocket(server.address, &place("doc", "k")).await;
    assert!(other.message().await.expect("a document").text().starts_with(r#"{"type":"document""#));
    let update = author.update("doc", &snapshot.id, 0, b"binary");
    socket.send_message(Message::binary(update.to_string().into_bytes())).await;
    assert_eq!(socket.json().await, update_saved(&snapshot.id, 0));
    let relayed_text = other.message().await.expect("an update").text().to_owned();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&relayed_text).expect("JSON"), relayed("update", &update));
}

#[tokio::test]
async fn twenty_bad_frames_in_a_row_close_and_nineteen_do_not() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, _) = with_snapshot(&server, "doc", &author).await;
    for round in 0..3 {
        for number in 0..19 {
            let message = if number % 2 == 0 { text("null") } else { Message::binary(vec![0xff]) };
            socket.send_message(message).await;
        }
        // A bad ephemeral message is ignored, and is no bad frame.
        match round {
            0 => socket.send(&json!({"publicData": {}})).await,
            _ => nothing_waits(&mut socket).await,
        }
    }
    nothing_waits(&mut socket).await;
    for _ in 0..20 {
        socket.send_message(text("{")).await;
    }
    assert_eq!(socket.closed().await, 1008);
    nothing_waits(&mut join(&server, "doc").await).await;
}

#[tokio::test]
async fn the_number_of_bad_frames_can_be_set_and_zero_is_no_limit() {
    for (max_bad_frames, sent, closed) in [(1, 1, true), (3, 3, true), (3, 2, false), (0, 100, false)] {
        let server = TestServer::with_settings(json!({"max_bad_frames": max_bad_frames})).await;
        let mut socket = join(&server, "doc").await;
        for _ in 0..sent {
            socket.send_message(text("x")).await;
        }
        if closed {
            assert_eq!(socket.closed().await, 1008);
        } else {
            nothing_waits(&mut socket).await;
        }
    }
}

#[tokio::test]
async fn a_message_may_come_in_any_number_of_fragments() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (_first, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut raw = RawConnection::websocket(server.address, &place("doc", "k")).await;
    assert!(raw.message().await.expect("a document").text().contains(&snapshot.id));
    for (clock, opcode, piece_bytes) in [(0, TEXT, 1), (1, TEXT, 100), (2, BINARY, 7)] {
        let update = author.update("doc", &snapshot.id, clock, "ä€😀".as_bytes()).to_string();
        let mut bytes = raw::frame(opcode, b"");
        for piece in update.as_bytes().chunks(piece_bytes) {
            bytes.extend(raw::frame(CONTINUATION, piece));
        }
        bytes.extend(raw::frame(FIN | CONTINUATION, b""));
        raw.send(&bytes).await;
        let answer = raw.message().await.expect("an answer");
        assert_eq!(answer.text(), format!(r#"{{"type":"update-saved","snapshotId":"{}","clock":{clock}}}"#, snapshot.id));
    }
}

#[tokio::test]
async fn a_character_may_be_split_between_fragments() {
    let server = TestServer::start().await;
    let mut raw = RawConnection::websocket(server.address, &place("doc", "k")).await;
    raw.message().await.expect("a document");
    let message = "{\"publicData\":{\"refSnapshotId\":\"ä€😀\",\"clock\":7}}".as_bytes();
    let mut bytes = raw::frame(TEXT, &message[..0]);
    for byte in message {
        bytes.extend(raw::frame(CONTINUATION, &[*byte]));
    }
    bytes.extend(raw::frame(FIN | CONTINUATION, b""));
    raw.send(&bytes).await;
    let expected = r#"{"type":"update-save-failed","snapshotId":"ä€😀","clock":7,"requiresNewSnapshot":false}"#;
    assert_eq!(raw.message().await.expect("an answer").text(), expected);
}

#[tokio::test]
async fn of_a_repeated_key_the_last_one_counts() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let update = author.update("doc", &snapshot.id, 0, b"x");
    let rest = update.to_string();
    let repeated = format!(r#"{{"publicData":{{"snapshotId":"other"}},"nonce":3,{}"#, &rest[1..]);
    socket.send_message(text(&repeated)).await;
    assert_eq!(socket.json().await, update_saved(&snapshot.id, 0));
    let again = author.update("doc", &snapshot.id, 1, b"x").to_string();
    let inside = again.replace(r#""clock":1"#, r#""clock":5,"clock":1"#);
    assert_ne!(again, inside);
    socket.send_message(text(&inside)).await;
    assert_eq!(socket.json().await, update_saved(&snapshot.id, 1));
    let stored = load(&server, &place("doc", "k")).await;
    assert_eq!(stored["updates"][0], update);
}

#[tokio::test]
async fn unknown_fields_beside_public_data_are_neither_stored_nor_relayed() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let snapshot = author.first_snapshot("doc", b"s");
    let extra = |frame: &serde_json::Value| changed(frame, "/extra", json!({"secret": [1, {"a": null}]}));
    let with_server_data = changed(&extra(&snapshot.frame), "/additionalServerData", json!({"mine": "x"}));
    assert_eq!(ask(&mut socket, &with_server_data).await, snapshot_saved(&snapshot));
    assert_eq!(other.json().await, relayed_snapshot(&snapshot));
    let update = author.update("doc", &snapshot.id, 0, b"u");
    save(&mut socket, &extra(&update)).await;
    assert_eq!(other.json().await, relayed("update", &update));
    let ephemeral = author.ephemeral("doc", b"e");
    socket.send(&extra(&ephemeral)).await;
    assert_eq!(other.json().await, relayed("ephemeral-message", &ephemeral));
    let stored = load(&server, &place("doc", "k")).await;
    let expected = json!({"type": "document", "snapshot": snapshot.frame, "updates": [update], "snapshotProofChain": []});
    assert_eq!(stored, expected);
}
