//! What may wait in all queues of a mount together.

use serde_json::json;
use syncline::server::limits::Limits;
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::{Received, Socket};

use super::{Honest, Victim, close_code_of, metric, raw_member};
use crate::raw::{self, CLOSE, FIN, RawConnection, TEXT};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_do_not_read_cost_no_more_than_the_budget() {
    let head = "[limits]\nmount_queue_bytes = 16000000";
    let victim = Victim::start(head, "max_backlog_bytes = 200000000, ping_interval_ms = 0").await;
    let mut honest = Honest::join(victim.address()).await;
    let mut deaf = Vec::new();
    for _ in 0..10 {
        let mut reader = RawConnection::connect_narrow(victim.address()).await;
        reader.upgrade(&place("honest", "k")).await;
        deaf.push(reader);
    }
    let mut present = Socket::connect(victim.address(), &place("honest", "k")).await;
    present.json_of("document").await;
    honest.is_served().await;
    present.json_of("update").await;
    let before = victim.resident_bytes();
    let content = vec![5; 300 << 10];
    let mut written = 0;
    // Each would be let wait for 200 MB: it is the budget that ends them, and who reads is not among them.
    while metric(victim.address(), "syncline_slow_readers_total{").await < 10 {
        assert!(written < 400 << 20, "{written} bytes were written, and they still wait");
        honest.saved += 1;
        let update = honest.author.update("honest", &honest.snapshot.id, honest.saved - 1, &content);
        save(&mut honest.socket, &update).await;
        assert_eq!(present.json_of("update").await["publicData"], update["publicData"]);
        written += content.len();
    }
    let grown = victim.resident_bytes().saturating_sub(before);
    println!("{grown} bytes more after {written} bytes for 10 readers that do not read");
    assert!(grown < 160 << 20, "{grown} bytes");
    // They are told, if they look.
    let code = loop {
        let message = deaf[0].message().await.expect("a close frame comes before the end");
        if message.first == FIN | CLOSE {
            break message.close_code();
        }
    };
    assert_eq!(code, 1013);
    honest.is_served().await;
    assert!(matches!(present.receive().await, Received::Json(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_that_are_not_complete_count_and_do_not_lock_the_others_out() {
    let limits = Limits { mount_queue_bytes: 8_000_000, ..Limits::default() };
    let server = TestServer::with(Setup { limits, ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut halves = Vec::new();
    let half = [raw::header_of(FIN | TEXT, 2_000_000), vec![b' '; 1_900_000]].concat();
    for _ in 0..12 {
        let mut member = raw_member(server.address, "doc").await;
        member.try_send(&half).await;
        halves.push(member);
        honest.is_served().await;
    }
    let slow = metric(server.address, "syncline_slow_readers_total{").await;
    assert!((8..=12).contains(&slow), "{slow} of 12 had to go");
    honest.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_budget_only_the_limits_of_each_connection_hold() {
    let limits = Limits { mount_queue_bytes: 0, ..Limits::default() };
    let mounts = vec![secsync_mount("secsync", json!({"max_backlog_bytes": 500_000}))];
    let server = TestServer::with(Setup { limits, mounts, ..Setup::default() }).await;
    let mut honest = Honest::join(server.address).await;
    let mut member = Socket::connect(server.address, &place("doc", "k")).await;
    member.json_of("document").await;
    member.send_message(text(&"[".repeat(4_000_000))).await;
    nothing_waits(&mut member).await;
    honest.lost_nothing().await;
    server.stop().await;
    assert_eq!(close_code_of(&mut member).await, 1001);
}
