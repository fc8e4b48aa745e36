//! What RFC 6455 forbids, byte by byte, and what it demands of a server.

use serde_json::json;
use syncline_tests::secsync::Author;
use syncline_tests::server::TestServer;

use crate::raw::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawConnection, TEXT};
use crate::support::*;

/// A connection whose `document` frame has been read.
async fn connected(server: &TestServer) -> RawConnection {
    let mut connection = RawConnection::websocket(server.address, &place("doc", "k")).await;
    assert!(connection.message().await.expect("a document").text().starts_with(r#"{"type":"document""#));
    connection
}

fn broken_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut table = vec![
        ("an unmasked text", [&[FIN | TEXT, 2][..], b"{}"].concat(), 1002),
        ("an unmasked ping", vec![FIN | PING, 0], 1002),
        ("a ping of 126 bytes", raw::frame(FIN | PING, &[0; 126]), 1002),
        ("a ping in fragments", raw::frame(PING, b"x"), 1002),
        ("a continuation of nothing", raw::frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message within a message", [raw::frame(TEXT, b"{"), raw::frame(FIN | TEXT, b"{}")].concat(), 1002),
        ("a close with half of a code", raw::frame(FIN | CLOSE, &[3]), 1002),
        ("a text that is no UTF-8", raw::frame(FIN | TEXT, &[b'{', 0xff, b'}']), 1007),
        ("a text with an overlong character", raw::frame(FIN | TEXT, &[0xc0, 0xaf]), 1007),
        ("a text with a surrogate", raw::frame(FIN | TEXT, &[0xed, 0xa0, 0x80]), 1007),
        ("a text that ends within a character", raw::frame(FIN | TEXT, &[b'a', 0xe2, 0x82]), 1007),
        ("fragments that are no UTF-8", [raw::frame(TEXT, &[0xe2]), raw::frame(FIN | CONTINUATION, b"x")].concat(), 1007),
    ];
    for reserved in [0x40, 0x20, 0x10] {
        table.push(("a reserved bit", raw::frame(FIN | reserved | TEXT, b"{}"), 1002));
    }
    for opcode in [3, 7, 11, 15] {
        table.push(("an unknown opcode", raw::frame(FIN | opcode, b"x"), 1002));
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        table.push(("a close code that is none", raw::frame(FIN | CLOSE, &code.to_be_bytes()), 1002));
    }
    table
}

#[tokio::test]
async fn a_broken_frame_closes_its_connection_with_the_code_of_the_rule() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut witness, snapshot) = with_snapshot(&server, "doc", &author).await;
    for (clock, (name, bytes, code)) in (0..).zip(broken_frames()) {
        println!("{name}: {bytes:?}");
        let mut connection = connected(&server).await;
        connection.send(&bytes).await;
        assert_eq!(connection.closed().await, code, "{name}: {bytes:?}");
        // The others go on, and a new connection works.
        save(&mut witness, &author.update("doc", &snapshot.id, clock, b"x")).await;
    }
}

#[tokio::test]
async fn what_came_before_a_broken_frame_is_saved() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (_witness, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut connection = connected(&server).await;
    let update = author.update("doc", &snapshot.id, 0, b"x");
    let bytes = [raw::frame(FIN | TEXT, update.to_string().as_bytes()), raw::frame(FIN | 3, b"x")].concat();
    connection.send(&bytes).await;
    loop {
        match connection.message().await.expect("a close frame") {
            frame if frame.first == FIN | TEXT => assert!(frame.text().contains("update-saved")),
            frame => break assert_eq!(frame.close_code(), 1002),
        }
    }
    let stored = eventually("the update", || async {
        let document = load(&server, &place("doc", "k")).await;
        document["updates"].as_array().is_some_and(|updates| !updates.is_empty()).then_some(document)
    });
    assert_eq!(stored.await["updates"], json!([update]));
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_from_its_header_alone() {
    let server = TestServer::with_settings(json!({"max_message_bytes": 10_000})).await;
    for first in [FIN | TEXT, FIN | BINARY, TEXT] {
        for length in [10_001, 1 << 30, 1 << 62] {
            let mut connection = connected(&server).await;
            connection.send(&raw::header_of(first, length)).await;
            // The body never comes: only the header can have been the reason.
            let close = connection.message().await.expect("a close frame");
            assert_eq!(close.close_code(), 1009, "{first} {length}");
        }
    }
    let mut connection = connected(&server).await;
    connection.send(&raw::header_of(FIN | TEXT, 1 << 63)).await;
    assert!([1002, 1009].contains(&connection.message().await.expect("a close frame").close_code()));
}

#[tokio::test]
async fn with_the_defaults_one_gibibyte_is_refused_from_its_header_alone() {
    let server = TestServer::start().await;
    let mut connection = connected(&server).await;
    connection.send(&raw::header_of(FIN | TEXT, 1 << 30)).await;
    assert_eq!(connection.message().await.expect("a close frame").close_code(), 1009);
    connected(&server).await;
}

#[tokio::test]
async fn fragments_that_add_up_to_too_much_are_refused_and_just_enough_is_not() {
    let server = TestServer::with_settings(json!({"max_message_bytes": 10_000})).await;
    let mut connection = connected(&server).await;
    let piece = raw::frame(CONTINUATION, &[b' '; 4000]);
    connection.send(&[raw::frame(TEXT, &[b' '; 4000]), piece.clone()].concat()).await;
    connection.try_send(&piece).await;
    assert_eq!(connection.message().await.expect("a close frame").close_code(), 1009);

    let mut connection = connected(&server).await;
    let mut message = r#"{"publicData":{"refSnapshotId":"x","clock":5}}"#.to_owned();
    message.push_str(&" ".repeat(10_000 - message.len()));
    let (head, tail) = message.as_bytes().split_at(6000);
    connection.send(&[raw::frame(TEXT, head), raw::frame(FIN | CONTINUATION, tail)].concat()).await;
    assert!(connection.message().await.expect("an answer").text().contains(r#""clock":5"#));
    connection.send(&raw::frame(FIN | TEXT, message.as_bytes())).await;
    assert!(connection.message().await.expect("an answer").text().contains(r#""clock":5"#));
    message.push(' ');
    connection.send(&raw::frame(FIN | TEXT, message.as_bytes())).await;
    assert_eq!(connection.message().await.expect("a close frame").close_code(), 1009);
}

#[tokio::test]
async fn a_ping_gets_its_payload_back_also_between_fragments() {
    let server = TestServer::start().await;
    let mut connection = connected(&server).await;
    for payload in [&b""[..], b"x", &[7; 125]] {
        connection.send(&raw::frame(FIN | PING, payload)).await;
        let pong = connection.message().await.expect("a pong");
        assert_eq!((pong.first, pong.payload.as_slice()), (FIN | PONG, payload));
    }
    let message = br#"{"publicData":{"refSnapshotId":"x","clock":5}}"#;
    let (head, tail) = message.split_at(20);
    let bytes = [raw::frame(TEXT, head), raw::frame(FIN | PING, b"mid"), raw::frame(FIN | CONTINUATION, tail)].concat();
    connection.send(&bytes).await;
    let pong = connection.message().await.expect("a pong");
    assert_eq!((pong.first, pong.payload.as_slice()), (FIN | PONG, &b"mid"[..]));
    assert!(connection.message().await.expect("an answer").text().contains("update-save-failed"));
    // Pongs that nobody asked for say nothing.
    connection.send(&[raw::frame(FIN | PONG, b"late"), raw::frame(FIN | PING, b"still there")].concat()).await;
    assert_eq!(connection.message().await.expect("a pong").payload, b"still there");
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_or_without_one() {
    let server = TestServer::start().await;
    let mut connection = connected(&server).await;
    connection.send(&raw::frame(FIN | CLOSE, b"")).await;
    assert_eq!(connection.closed().await, 1005);
    for code in [1000_u16, 1001, 1011, 3000, 4999] {
        let mut connection = connected(&server).await;
        connection.send(&raw::frame(FIN | CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        assert_eq!(connection.closed().await, code);
    }
    let gone = connected(&server).await;
    drop(gone);
    nothing_waits(&mut join(&server, "doc").await).await;
}
