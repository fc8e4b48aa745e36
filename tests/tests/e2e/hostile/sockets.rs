//! WebSockets: floods, messages that never end, and clients that do not read.

use std::time::Duration;

use serde_json::json;
use syncline::server::limits::Limits;
use syncline_tests::scale;
use syncline_tests::server::{Setup, TestServer, secsync_mount};

use super::{Honest, Victim, raw_member};
use crate::raw::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawConnection, TEXT, UPGRADE_HEADERS};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_frames_announce_costs_no_memory_and_large_messages_leave_none_behind() {
    let victim = Victim::start("", "").await;
    let mut honest = Honest::join(victim.address()).await;
    let mut members = Vec::new();
    for _ in 0..20 {
        members.push(raw_member(victim.address(), "doc").await);
    }
    let before = victim.resident_bytes();
    for member in &mut members {
        // 16 MiB may come, and a hundred bytes do.
        member.send(&[raw::header_of(FIN | BINARY, 16 << 20), vec![0; 100]].concat()).await;
    }
    for _ in 0..20 {
        let mut refused = raw_member(victim.address(), "doc").await;
        refused.send(&raw::header_of(FIN | BINARY, 100 << 20)).await;
        assert_eq!(refused.closed().await, 1009);
    }
    honest.is_served().await;
    let announced = victim.resident_bytes().saturating_sub(before);
    assert!(announced < 48 << 20, "{announced} bytes for 2.3 GiB that were only announced");
    // Large messages that are none, one after the other on sockets that stay open.
    let large = raw::frame(FIN | TEXT, &vec![b'['; 6 << 20]);
    let mut after_first = 0;
    for round in 0..20 {
        let mut member = raw_member(victim.address(), "doc").await;
        member.send(&large).await;
        member.send(&raw::frame(FIN | PING, b"through")).await;
        assert_eq!(member.message().await.expect("a pong").payload, b"through");
        honest.is_served().await;
        if round == 3 {
            after_first = victim.resident_bytes();
        }
        members.push(member);
    }
    let kept = victim.resident_bytes().saturating_sub(after_first);
    assert!(kept < 48 << 20, "{kept} bytes are kept for 96 MiB that are over");
    honest.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_pings_is_answered_or_merged_and_fills_nothing() {
    let victim = Victim::start("", "").await;
    let mut honest = Honest::join(victim.address()).await;
    let before = victim.resident_bytes();
    let pings = raw::frame(FIN | PING, &[7; 125]).repeat(1000);
    // One that reads nothing: pongs wait for nobody, so the flood goes on until both buffers between are full.
    let mut deaf = RawConnection::connect_narrow(victim.address()).await;
    deaf.upgrade(&place("doc", "k")).await;
    for _ in 0..50 * scale() {
        deaf.send(&pings).await;
        honest.is_served().await;
    }
    let grown = victim.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for pings");
    // The last of them is answered.
    deaf.send(&raw::frame(FIN | PING, b"the last")).await;
    let mut pongs = 0;
    loop {
        let frame = deaf.message().await.expect("pongs come");
        if frame.first == FIN | PONG {
            pongs += 1;
            if frame.payload == b"the last" {
                break;
            }
        }
    }
    assert!(pongs < 50_000 * u64::from(scale()) + 1, "of pings that wait only the last is answered");
    honest.lost_nothing().await;
}

#[tokio::test]
async fn a_message_that_never_ends_is_given_up_and_one_that_gets_on_is_not() {
    let limits = Limits { stall_timeout_ms: 300, ..Limits::default() };
    let server = TestServer::with(Setup { limits, ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    for start in [
        raw::frame(TEXT, b"{"),
        raw::header_of(FIN | TEXT, 5000),
        vec![FIN | TEXT],
        [raw::frame(TEXT, b"{"), raw::frame(CONTINUATION, b"").repeat(1000)].concat(),
    ] {
        let mut endless = raw_member(server.address, "doc").await;
        endless.send(&start).await;
        // Pings are no progress of the message.
        endless.send(&raw::frame(FIN | PING, b"x")[..1]).await;
        assert_eq!(endless.closed().await, 1001);
        honest.is_served().await;
    }
    honest.lost_nothing().await;
    let limits = Limits { stall_timeout_ms: 1500, ..Limits::default() };
    let server = TestServer::with(Setup { limits, ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut steady = raw_member(server.address, "doc").await;
    let message = [&br#"{"publicData":{"refSnapshotId":"x","clock":5}}"#[..], &vec![b' '; 350_000]].concat();
    let bytes = raw::frame(FIN | TEXT, &message);
    for piece in bytes.chunks(10_000) {
        steady.send(piece).await;
        assert!(!steady.ended_within(Duration::from_millis(50)).await, "it sends enough");
    }
    assert!(steady.message().await.expect("an answer").text().contains(r#""clock":5"#));
    honest.lost_nothing().await;
}

#[tokio::test]
async fn extensions_are_not_negotiated_so_there_is_nothing_to_inflate() {
    let server = TestServer::start().await;
    let mut honest = Honest::join(server.address).await;
    let offers = ["permessage-deflate", "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame", "permessage-bzip2"];
    for offer in offers {
        let mut headers = UPGRADE_HEADERS.to_vec();
        headers.push(("sec-websocket-extensions", offer));
        let mut connection = RawConnection::connect(server.address).await;
        let response = connection.request("GET", &place("doc", "k"), &headers).await;
        assert_eq!(response.status, 101);
        assert!(!response.headers.contains_key("sec-websocket-extensions"));
        connection.message().await.expect("a document");
        // A frame that claims to be compressed.
        connection.send(&raw::frame(FIN | 0x40 | TEXT, &[0xab, 0x56, 0x4a])).await;
        assert_eq!(connection.closed().await, 1002);
        honest.is_served().await;
    }
    // A body that says so is given to the component as it is: here, where no request has a body, it is not found.
    let mut connection = RawConnection::connect(server.address).await;
    connection.send(b"POST /secsync/doc HTTP/1.1\r\nhost: t\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b").await;
    assert_eq!(connection.response(false).await.status, 404);
    honest.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_socket_that_takes_nothing_ends_even_where_no_ping_asks_for_it() {
    let limits = Limits { stall_timeout_ms: 500, ..Limits::default() };
    let settings = json!({"ping_interval_ms": 0, "max_backlog_bytes": 100_000_000});
    let server = TestServer::with(Setup { limits, mounts: vec![secsync_mount("secsync", settings)], ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut deaf = RawConnection::connect_narrow(server.address).await;
    deaf.upgrade(&place("honest", "k")).await;
    let content = vec![5; 300 << 10];
    for _ in 0..20 {
        honest.saved += 1;
        let update = honest.author.update("honest", &honest.snapshot.id, honest.saved - 1, &content);
        save(&mut honest.socket, &update).await;
    }
    eventually("the end of who does not read", || async {
        (super::metric(server.address, r#"syncline_closes_total{code="1006""#).await == 1).then_some(())
    })
    .await;
    honest.lost_nothing().await;
}

#[tokio::test]
async fn after_a_close_frame_nothing_counts() {
    let server = TestServer::start().await;
    let mut honest = Honest::join(server.address).await;
    let mut leaving = raw_member(server.address, "doc").await;
    let update = br#"{"publicData":{"refSnapshotId":"x","clock":5}}"#;
    leaving.send(&[raw::frame(FIN | CLOSE, &1000_u16.to_be_bytes()), raw::frame(FIN | TEXT, update), vec![0xff; 100]].concat()).await;
    assert_eq!(leaving.closed().await, 1000);
    honest.lost_nothing().await;
}
