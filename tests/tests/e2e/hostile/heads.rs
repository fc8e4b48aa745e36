//! HTTP: what no client sends that means well.

use syncline::server::limits::Limits;
use syncline_tests::server::{Setup, TestServer};

use super::Honest;
use crate::raw::{RawConnection, UPGRADE_HEADERS, get};
use crate::support::*;

/// What must come back: one of these status codes, or, where there is none, nothing but the end.
struct Case {
    name: &'static str,
    sent: Vec<u8>,
    answers: &'static [&'static str],
}

fn case(name: &'static str, sent: impl Into<Vec<u8>>, answers: &'static [&'static str]) -> Case {
    Case { name, sent: sent.into(), answers }
}

/// A request that hides in the body of another.
const HIDDEN: &str = "GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n";

fn smuggling() -> Vec<Case> {
    let post = |fields: &str, body: &str| format!("POST /secsync/doc HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\n{body}");
    vec![
        // The chunks count, and the connection ends with them: what hides behind is never looked at.
        case("length and chunks", post("content-length: 4\r\ntransfer-encoding: chunked", &format!("0\r\n\r\n{HIDDEN}")), &["404", "400"]),
        case("chunks and length", post("transfer-encoding: chunked\r\ncontent-length: 4", &format!("0\r\n\r\n{HIDDEN}")), &["404", "400"]),
        case("two lengths", post("content-length: 0\r\ncontent-length: 34", HIDDEN), &["400"]),
        case("a list of lengths", post("content-length: 0, 34", HIDDEN), &["400"]),
        case("a negative length", post("content-length: -1", HIDDEN), &["400"]),
        case("a signed length", post("content-length: +0", HIDDEN), &["400"]),
        case("a length that is no number", post("content-length: 0x0", HIDDEN), &["400"]),
        case("a length beyond all numbers", post("content-length: 99999999999999999999999999", ""), &["400"]),
        case("an unknown coding", post("transfer-encoding: xchunked", &format!("0\r\n\r\n{HIDDEN}")), &["400"]),
        case("chunks that are not last", post("transfer-encoding: chunked, gzip", &format!("0\r\n\r\n{HIDDEN}")), &["400"]),
        case("a body of compressed chunks", post("transfer-encoding: gzip, chunked", &format!("0\r\n\r\n{HIDDEN}")), &["501"]),
        case("a line feed in a name", post("x\nlength: 3", ""), &["400"]),
        case("a space before the colon", post("transfer-encoding : chunked", &format!("0\r\n\r\n{HIDDEN}")), &["400"]),
        case("a field on two lines", post("x: a\r\n b", ""), &["400"]),
        case("chunks in HTTP/1.0", "POST /secsync/doc HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &["400"]),
    ]
}

fn garbage() -> Vec<Case> {
    let websocket: String = UPGRADE_HEADERS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let upgrade = |fields: &str| format!("GET {} HTTP/1.1\r\n{fields}\r\n", place("doc", "k"));
    let without_key = websocket.replace("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
    let keyed = |key: &str| upgrade(&format!("host: t\r\n{without_key}sec-websocket-key: {key}\r\n"));
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 500]].concat();
    vec![
        case("a TLS hello", hello, &["400"]),
        case("zeros", vec![0; 1000], &["400"]),
        case("an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        case("a frame without an upgrade", crate::raw::frame(0x81, b"{}"), &["400"]),
        case("no host", "GET /healthz HTTP/1.1\r\n\r\n", &["400"]),
        case("two hosts", "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &["400"]),
        case("an upgrade without a host", upgrade(&websocket), &["400"]),
        case("a key that is too short", keyed("c2hvcnQ="), &["400"]),
        case("a key that is no base64", keyed("!!!!!!!!!!!!!!!!!!!!!!=="), &["400"]),
        case("two keys", keyed("dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="), &["400"]),
        case("a hundred and one fields", format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", "x: y\r\n".repeat(101)), &["431"]),
        case("fields of 70,000 bytes", format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(70_000)), &["431"]),
        case("a URL of 70,000 bytes", format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "y".repeat(70_000)), &["414"]),
    ]
}

#[tokio::test]
async fn broken_and_forged_requests_are_refused_and_nothing_hides_in_them() {
    let server = TestServer::start().await;
    let mut honest = Honest::join(server.address).await;
    for Case { name, sent, answers } in smuggling().into_iter().chain(garbage()) {
        let mut connection = RawConnection::connect(server.address).await;
        connection.try_send(&sent).await;
        connection.finish().await;
        let everything = connection.everything().await;
        let statuses: Vec<_> = everything.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
        assert!(statuses.iter().all(|status| answers.contains(status)), "{name}: {everything}");
        // One answer at most: no second request was found in it. Only to another protocol there is none.
        assert_eq!(statuses.len(), usize::from(!answers.is_empty()), "{name}: {everything:?}");
        honest.is_served().await;
    }
    honest.lost_nothing().await;
}

#[tokio::test]
async fn heads_are_limited_to_the_byte() {
    let server = TestServer::start().await;
    let mut connection = RawConnection::connect(server.address).await;
    // `host: test` and `x: …`, each with a colon, a space and the end of the line.
    let rest = "host".len() + 4 + "test".len() + 1 + 4;
    let fitting = "y".repeat((64 << 10) - rest);
    assert_eq!(connection.request("GET", "/healthz", &[("x", &fitting)]).await.status, 200);
    assert_eq!(connection.request("GET", "/healthz", &[("x", &format!("{fitting}y"))]).await.status, 431);
    let mut connection = RawConnection::connect(server.address).await;
    let longest = format!("/{}", "y".repeat(65_533));
    assert_eq!(connection.request("GET", &longest, &[]).await.status, 404);
    let mut connection = RawConnection::connect(server.address).await;
    assert_eq!(connection.request("GET", &format!("{longest}y"), &[]).await.status, 414);
    // Both at once fit, and what never ends is refused before it does.
    let fitting = &fitting[..60_000];
    let mut connection = RawConnection::connect(server.address).await;
    assert_eq!(connection.request("GET", &longest, &[("x", fitting)]).await.status, 404);
    let mut endless = RawConnection::connect(server.address).await;
    endless.try_send(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(128 << 10)).as_bytes()).await;
    assert_eq!(endless.response(false).await.status, 431);
}

fn impatient() -> Limits {
    Limits { head_timeout_ms: 300, stall_timeout_ms: 300, ..Limits::default() }
}

#[tokio::test]
async fn whoever_never_sends_a_byte_or_never_ends_a_head_is_dropped() {
    let server = TestServer::with(Setup { limits: impatient(), ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut silent = RawConnection::connect(server.address).await;
    assert_eq!(silent.everything().await, "");
    for start in ["G", "GET /healthz HTTP/1.1\r\nhost: t\r\nx: "] {
        let mut slow = RawConnection::connect(server.address).await;
        // A byte now and then does not buy more time.
        while slow.try_send(if slow.sent == 0 { start.as_bytes() } else { b"x" }).await {
            if slow.ended_within(std::time::Duration::from_millis(20)).await {
                break;
            }
        }
        assert_eq!(slow.everything().await, "");
    }
    // An idle connection between two requests is no better.
    let mut idle = RawConnection::connect(server.address).await;
    assert_eq!(idle.request("GET", "/healthz", &[]).await.status, 200);
    assert_eq!(idle.everything().await, "");
    honest.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_requests_on_one_connection_is_answered_in_order_and_stops_nobody() {
    let server = TestServer::with(Setup { limits: impatient(), ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut flood = RawConnection::connect(server.address).await;
    let pair = "GET /healthz HTTP/1.1\r\nhost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: t\r\n\r\n";
    flood.send(pair.repeat(100).as_bytes()).await;
    for _ in 0..100 {
        assert_eq!([flood.response(false).await.status, flood.response(false).await.status], [200, 404]);
        honest.is_served().await;
    }
    // Who never reads the answers is dropped when nothing more fits in between.
    let mut deaf = RawConnection::connect_narrow(server.address).await;
    while deaf.try_send(pair.repeat(100).as_bytes()).await {
        honest.is_served().await;
    }
    assert_eq!(get(server.address, "/healthz").await.status, 200);
    honest.lost_nothing().await;
}
