//! Streams of changes whose clients do not read (docs/protocols/plasma.md, section 8.2): they cost little, and hold up nobody.

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};
use syncline::server::limits::Limits;
use syncline_tests::plasma::{Events, Replica, User, alice, fixture, plasma_mount};
use syncline_tests::server::{Setup, TestServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{create_todo, pull, pull_all};

/// Streams that nobody reads.
const STREAMS: u64 = 60;
/// Bytes of each change, of which the server sends as many as a line takes without being read.
const CHANGE_BYTES: usize = 120_000;
/// More than all buffers of one line hold together.
const CHANGES: u64 = 100;
/// What may wait for one stream, in its queue and on the way from there to its line; a sixth of all changes.
const WAITING_BYTES_MAX: u64 = 2 << 20;

/// Opens a stream and reads only as far as its greeting.
async fn open_unread(address: SocketAddr, cookie: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let target = format!("/sync/poke?mode=data&clientGroupID=reader&cookie={cookie}");
    let head = format!("GET {target} HTTP/1.1\r\nhost: test\r\nauthorization: tok-alice\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the request can be sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("it is answered");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

async fn change(user: User, id: u64) {
    let todo = json!({"id": format!("t{id}"), "title": "x".repeat(CHANGE_BYTES), "shared": true});
    user.push("writer", &[syncline_tests::plasma::mutation("w1", id, "createTodo", todo)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_cost_little_and_are_cut_off() {
    let limits = Limits { stall_timeout_ms: 3000, ..Limits::default() };
    let server = TestServer::with(Setup { mounts: vec![plasma_mount(fixture())], limits, ..Setup::default() }).await;
    let user = alice(server.address);
    user.push("reader", &[create_todo("r1", 1, "first", true)]).await;
    let mut replica = Replica::new();
    pull(user, "reader", &mut replica).await;
    let unread = join_all((0..STREAMS).map(|_| open_unread(server.address, &replica.cookie))).await;
    let mut read: Events = user.events(&format!("?mode=data&clientGroupID=reader&cookie={}", replica.cookie)).await;
    read.next_of("hello").await;
    let runtime = server.server().handle().runtime();
    let connections = || runtime.status().iter().map(|mount| mount.connections).sum::<u64>();
    assert_eq!(connections(), STREAMS + 1);
    // Whoever reads has it all.
    let reading = tokio::spawn(async move {
        while replica.rows.len() <= CHANGES as usize {
            let patch = read.next_of("patch").await.json();
            assert_eq!(patch["baseCookie"], replica.cookie);
            let mut answer = patch["pullResponse"].clone();
            answer["hasMore"] = false.into();
            replica.apply(&answer).expect("the patch fits");
        }
        replica
    });
    for id in 1..=CHANGES {
        change(user, id).await;
        let metrics = runtime.metrics_text().await.expect("metrics can be written");
        let waiting = metrics.lines().find_map(|line| line.strip_prefix("syncline_waiting_bytes{mount=\"plasma\"} ")?.parse::<u64>().ok());
        assert!(waiting.expect("a number") <= WAITING_BYTES_MAX * STREAMS, "{waiting:?} bytes wait after {id} changes");
    }
    let replica = reading.await.expect("the reader is content");
    let mut anew = Replica::new();
    pull_all(user, "anew", &mut anew).await;
    assert_eq!(anew.rows, replica.rows);
    syncline_tests::eventually("those who do not read are cut off", || async { (connections() <= 1).then_some(()) }).await;
    drop(unread);
}
