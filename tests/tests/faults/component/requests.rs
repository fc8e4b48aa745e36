//! HTTP requests: what they are answered when calls fail, data is lost, or the client goes away.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use syncline_tests::DEADLINE;
use syncline_tests::server::{Setup, TestServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Client, server, server_over, setup};
use crate::commits::{Commits, Fate};

/// Sends a request with commands as its body.
async fn start(address: SocketAddr, commands: &str) -> TcpStream {
    start_at(address, "/faulty", commands).await
}

async fn start_at(address: SocketAddr, path: &str, commands: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", commands.len());
    stream.write_all(format!("{head}{commands}").as_bytes()).await.expect("the request can be sent");
    stream
}

/// Status and body.
pub async fn finish(mut stream: TcpStream) -> (u16, String) {
    let mut answer = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
    read.expect("the request is answered within the deadline").expect("the answer can be read");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.expect("a status"), body.expect("a body"))
}

pub async fn ask(address: SocketAddr, commands: &str) -> (u16, String) {
    finish(start(address, commands).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_gets_the_fallbacks_of_the_plan() {
    let server = server(json!({"call_deadline_ms": 300})).await;
    assert_eq!(ask(server.address, "write k 1\necho done").await, (200, "done".into()));
    assert_eq!(ask(server.address, "trap").await, (200, "failure trapped".into()));
    assert_eq!(ask(server.address, "loop").await, (200, "failure timed-out".into()));
    assert_eq!(ask(server.address, "again\ntrap").await, (500, "failed".into()));
    assert_eq!(ask(server.address, "again\nloop").await, (500, "failed".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_when_its_data_is_durable() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    commits.hold();
    let waiting = start(server.address, "write k 1\necho done").await;
    commits.held().await;
    assert_eq!(ask(server.address, "view k").await, (200, "view k=nothing".into()));
    commits.settle(Fate::Kept).await;
    assert_eq!(finish(waiting).await, (200, "done".into()));
    let lost = start(server.address, "write k 2\npublish t lost\necho done").await;
    commits.settle(Fate::Lost).await;
    assert_eq!(finish(lost).await, (503, "unavailable".into()));
    assert_eq!(ask(server.address, "view k").await, (200, "view k=1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_during_its_request_holds_up_nobody() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let mut other = Client::connect(server.address).await;
    commits.hold();
    // The second transaction waits for the writer, the first has a place in the order of all commits.
    let gone = start(server.address, "write k 1\nkeep between\nwrite k 2\nkeep over").await;
    commits.held().await;
    other.ask_until("count between", "count between=1").await;
    drop(gone);
    for _ in 0..50 {
        assert_eq!(other.ask("echo meanwhile").await, "meanwhile");
    }
    commits.settle(Fate::Kept).await;
    commits.release();
    assert_eq!(other.ask("write l 1\necho done").await, "done");
    assert_eq!(ask(server.address, "write m 1\necho done").await, (200, "done".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_requests_wait_for_each_other_and_hold_up_no_other() {
    let commits = Commits::of("faulty");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = Arc::new(commits.executor(folder.path()).await);
    let mut setup = Setup { executor: Some(executor), folder: Some(folder), ..setup(json!({}), None) };
    setup.runtime.heavy_calls_per_mount = 1;
    let server = TestServer::with(setup).await;
    commits.hold();
    // One that runs as long as its commit is held, those that may wait for it, and one too many, whichever that is.
    let streams = join_all((0..18).map(|_| start_at(server.address, "/faulty/heavy", "write k 1\necho done"))).await;
    let mut asked: FuturesUnordered<_> = streams.into_iter().map(finish).collect();
    assert_eq!(asked.next().await, Some((503, "unavailable".into())));
    commits.held().await;
    assert_eq!(ask(server.address, "echo usual").await, (200, "usual".into()));
    commits.release();
    while let Some(answer) = asked.next().await {
        assert_eq!(answer, (200, "done".into()));
    }
}
