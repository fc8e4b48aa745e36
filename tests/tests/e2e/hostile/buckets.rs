//! Rates: whoever sends faster is read more slowly, and loses nothing.

use std::time::{Duration, Instant};

use serde_json::json;
use syncline::server::limits::Limits;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};

use super::{Honest, raw_member};
use crate::raw::{self, FIN, PING, RawConnection, TEXT, get};
use crate::support::*;

async fn server(limits: Limits) -> TestServer {
    TestServer::with(Setup { limits, ..Setup::default() }).await
}

#[tokio::test]
async fn frames_beyond_the_rate_wait_and_none_is_lost() {
    let server = server(Limits { frames_per_second: 100, burst_seconds: 1, ..Limits::default() }).await;
    let author = Author::new(1);
    let (mut eager, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut honest = Honest::join(server.address).await;
    let started = Instant::now();
    for clock in 0..200 {
        eager.send(&author.update("doc", &snapshot.id, clock, b"x")).await;
    }
    honest.is_served().await;
    for clock in 0..200 {
        assert_eq!(eager.json().await, update_saved(&snapshot.id, clock));
    }
    // Frames that were read together are taken together: the last read may run into debt that nobody waits for.
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    let stored = load(&server, &place("doc", "k")).await;
    assert_eq!(stored["updates"].as_array().map(Vec::len), Some(200));
    honest.lost_nothing().await;
}

#[tokio::test]
async fn bytes_and_control_frames_count_and_so_do_requests() {
    let pings = raw::frame(FIN | PING, b"x").repeat(300);
    let padded = format!(r#"{{"publicData":{{"refSnapshotId":"x","clock":5}}}}{}"#, " ".repeat(150_000));
    let large = raw::frame(FIN | TEXT, padded.as_bytes());
    let requests = b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n".repeat(150);
    let by_frames = Limits { frames_per_second: 100, burst_seconds: 1, ..Limits::default() };
    let by_bytes = Limits { bytes_per_second: 50_000, burst_seconds: 1, ..Limits::default() };
    for (name, limits, sent) in [("pings", &by_frames, pings), ("bytes", &by_bytes, large)] {
        let server = server(limits.clone()).await;
        let mut honest = Honest::join(server.address).await;
        let mut flood = raw_member(server.address, "doc").await;
        let started = Instant::now();
        flood.send(&sent).await;
        flood.send(&raw::frame(FIN | PING, b"behind it all")).await;
        honest.is_served().await;
        while flood.message().await.expect("it stays open").payload != b"behind it all" {}
        assert!(started.elapsed() >= Duration::from_millis(500), "{name}: {:?}", started.elapsed());
        honest.lost_nothing().await;
    }
    let server = server(by_frames).await;
    let mut honest = Honest::join(server.address).await;
    let mut flood = RawConnection::connect(server.address).await;
    let started = Instant::now();
    flood.send(&requests).await;
    for _ in 0..150 {
        assert_eq!(flood.response(false).await.status, 200);
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "requests: {:?}", started.elapsed());
    honest.lost_nothing().await;
}

#[tokio::test]
async fn all_connections_of_an_address_share_its_bucket_and_others_do_not() {
    let limits = Limits { frames_per_second_per_address: 100, burst_seconds: 1, ..Limits::default() };
    let server = server(limits).await;
    let elsewhere = std::net::Ipv4Addr::new(127, 8, 8, 8);
    let started = Instant::now();
    let mut floods = Vec::new();
    for number in 0..4 {
        let mut flood = RawConnection::connect_from(elsewhere, server.address).await;
        flood.upgrade(&place(&format!("doc-{number}"), "k")).await;
        flood.send(&raw::frame(FIN | PING, b"x").repeat(75)).await;
        flood.send(&raw::frame(FIN | PING, b"behind it all")).await;
        floods.push(flood);
    }
    // This one has a bucket of its own.
    let mut honest = Honest::join(server.address).await;
    honest.lost_nothing().await;
    assert_eq!(get(server.address, "/healthz").await.status, 200);
    for flood in &mut floods {
        while flood.message().await.expect("it stays open").payload != b"behind it all" {}
    }
    let mut last = RawConnection::connect_from(elsewhere, server.address).await;
    assert_eq!(last.request("GET", "/healthz", &[]).await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(1000), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_is_not_read_for_a_while_is_not_taken_for_silent() {
    let limits = Limits { frames_per_second: 20, burst_seconds: 1, ..Limits::default() };
    let mounts = vec![syncline_tests::server::secsync_mount("secsync", json!({"ping_interval_ms": 200}))];
    let server = TestServer::with(Setup { limits, mounts, ..Setup::default() }).await;
    let mut eager = raw_member(server.address, "doc").await;
    eager.send(&raw::frame(FIN | PING, b"x").repeat(60)).await;
    eager.send(&raw::frame(FIN | PING, b"behind it all")).await;
    // It answers every ping; that nobody reads its answers for two seconds is not its fault.
    loop {
        let frame = eager.frame().await.expect("it is not dropped");
        if frame.first == FIN | PING {
            eager.send(&raw::frame(FIN | raw::PONG, &frame.payload)).await;
        }
        if frame.payload == b"behind it all" {
            break;
        }
    }
}
