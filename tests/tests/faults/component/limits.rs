//! Limits that the plan of a component sets, and how bodies must come.

use serde_json::{Value, json};
use syncline::server::limits::Limits;
use syncline_tests::DEADLINE;
use syncline_tests::server::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Client, server, setup};

/// A message of so many bytes, and what comes back for it.
fn long(bytes: usize) -> (Message, String) {
    let text = "x".repeat(bytes - "echo ".len());
    (Message::text(format!("echo {text}")), text)
}

#[tokio::test]
async fn a_small_limit_holds_until_the_first_frame_was_taken_and_the_large_one_after_it() {
    let server = server(json!({"max_frame_bytes_before_auth": 1000})).await;
    let mut honest = Client::connect(server.address).await;
    let mut hasty = Client::connect(server.address).await;
    hasty.socket.send_message(long(1001).0).await;
    hasty.closed(4010).await;
    let mut client = Client::connect(server.address).await;
    for bytes in [1000, 1001, 1 << 20] {
        let (message, echoed) = long(bytes);
        client.socket.send_message(message).await;
        assert!(client.hear().await == echoed, "{bytes} bytes are taken");
    }
    client.socket.send_message(long((1 << 20) + 1).0).await;
    client.closed(4010).await;
    assert_eq!(honest.ask("echo still here").await, "still here");
}

/// What comes back for a request that is sent in pieces, until the end.
async fn answer_to(server: &TestServer, head: &str, drip: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    let mut answer = String::new();
    let asking = async {
        let (mut reading, mut writing) = stream.split();
        let dripping = async {
            // A byte now and then, as long as somebody takes it.
            while !drip.is_empty() && writing.write_all(drip.as_bytes()).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            _ = reading.read_to_string(&mut answer) => {}
            () = dripping => {}
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("the server ends it");
    answer
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up_with_408_and_one_that_is_too_large_is_not_read() {
    let limits = Limits { stall_timeout_ms: 300, ..Limits::default() };
    let server = TestServer::with(syncline_tests::server::Setup { limits, ..setup(Value::Null, None) }).await;
    let mut honest = Client::connect(server.address).await;
    let head = |fields: &str| format!("POST /faulty HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\n");
    for (fields, drip) in [
        ("content-length: 1000", ""),
        ("content-length: 1000", "x"),
        ("transfer-encoding: chunked", "1\r\nx\r\n"),
        ("transfer-encoding: chunked", ""),
    ] {
        let answer = answer_to(&server, &head(fields), drip).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{fields} {drip:?}: {answer}");
        assert_eq!(honest.ask("echo served").await, "served");
    }
    // The component says what to answer; the body stays unread, and the connection ends.
    let large = answer_to(&server, &head("content-length: 2000000\r\nconnection: close"), "").await;
    assert!(large.starts_with("HTTP/1.1 200 "), "{large}");
    assert_eq!(honest.ask("echo served").await, "served");
}
