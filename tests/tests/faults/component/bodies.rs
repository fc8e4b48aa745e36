//! Answers that are not whole at once: parked requests, generated bodies; what the host answers or bounds by itself.

use serde_json::{Value, json};
use syncline_tests::stream::{Chunk, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::requests::{ask, finish};
use super::{Client, server, server_over};
use crate::commits::{Commits, Fate};

/// Begins a request with commands to a path below the mount.
async fn begin(server: &syncline_tests::server::TestServer, path: &str, commands: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let head = format!("GET /faulty/{path}?{commands} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the request can be sent");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_request_goes_on_when_something_new_is_published_or_its_time_is_up() {
    let server = server(Value::Null).await;
    let mut other = Client::connect(server.address).await;
    assert_eq!(finish(begin(&server, "parked", "park+0+t+0+echo_at:echo_once").await).await, (200, "at,once".into()));
    assert_eq!(finish(begin(&server, "parked", "subscribe+t;park+50+t+0+echo_late").await).await, (200, "late".into()));
    let waiting = begin(&server, "parked", "subscribe+t;park+60000+t+2+keep_resumed:view_k").await;
    other.ask_until("members t", "members 1").await;
    // What is covered by the cut-off wakes nobody.
    assert_eq!(other.ask("numbered t 1 old\nnumbered t 2 old\nwrite k 1\ncount resumed").await, "count resumed=0");
    assert_eq!(other.ask("numbered t 3 new\necho done").await, "done");
    assert_eq!(finish(waiting).await, (200, "view k=1".into()));
    assert_eq!(other.ask("members t").await, "members 0");
    assert_eq!(other.ask("count resumed").await, "count resumed=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_park_again_and_misses_nothing_published_while_it_is_served() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let mut other = Client::connect(server.address).await;
    // Published before it is parked, while its answer waits for the disk.
    commits.hold();
    let waiting = begin(&server, "parked", "subscribe+t;write+a+1;keep+ran;park+60000+t+0+echo_woken").await;
    commits.held().await;
    other.ask_until("count ran", "count ran=1").await;
    assert_eq!(other.ask("publish t p\necho done").await, "done");
    commits.settle(Fate::Kept).await;
    assert_eq!(finish(waiting).await, (200, "woken".into()));
    let lost = begin(&server, "parked", "subscribe+t;write+a+2;park+60000+t+0+echo_never").await;
    commits.settle(Fate::Lost).await;
    commits.release();
    assert_eq!(finish(lost).await, (503, "unavailable".into()));
    assert_eq!(other.ask("members t").await, "members 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_request_whose_client_goes_away_or_whose_server_stops_is_not_resumed() {
    let server = server(Value::Null).await;
    let mut other = Client::connect(server.address).await;
    let gone = begin(&server, "parked", "subscribe+t;park+60000+t+0+keep_resumed").await;
    other.ask_until("members t", "members 1").await;
    drop(gone);
    other.ask_until("members t", "members 0").await;
    assert_eq!(finish(begin(&server, "parked", "park+0+t+0+trap").await).await, (500, "failed".into()));
    let waiting = begin(&server, "parked", "subscribe+t;park+60000+t+0+keep_resumed").await;
    other.ask_until("members t", "members 1").await;
    assert_eq!(other.ask("count resumed").await, "count resumed=0");
    let stopping = tokio::spawn(server.stop());
    assert_eq!(finish(waiting).await, (503, "unavailable".into()));
    stopping.await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_body_shows_one_state_and_is_made_as_it_is_taken() {
    let server = server(Value::Null).await;
    assert_eq!(ask(server.address, "write a 1\nwrite b 1").await.0, 200);
    let mut body = Stream::get(server.address, "/faulty/generated?row+a;write+b+2;row+b;echo+last").await;
    assert_eq!(body.status, 200);
    body.hears(&["1"]).await;
    body.hears(&["1", "last"]).await;
    assert_eq!(body.next().await, Chunk::End);
    let mut broken = Stream::get(server.address, "/faulty/generated?echo+first;fail+because").await;
    broken.hears(&["first"]).await;
    assert_eq!(broken.next().await, Chunk::Cut);
    let mut trapped = Stream::get(server.address, "/faulty/generated?echo+first;trap").await;
    trapped.hears(&["first"]).await;
    assert_eq!(trapped.next().await, Chunk::Cut);
    // A client that takes nothing holds up the making of it.
    let pieces: String = (0..64).map(|_| "huge+1000000;").collect();
    let slow = Stream::get_narrow(server.address, &format!("/faulty/generated?{pieces}keep+made")).await;
    assert_eq!(ask(server.address, "count made").await.1, "count made=0");
    drop(slow);
    let mut whole = Stream::get(server.address, "/faulty/generated?huge+1000000;huge+1000000;keep+made").await;
    assert_eq!(whole.rest().await, Chunk::End);
    assert_eq!(ask(server.address, "count made").await.1, "count made=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_answers_pings_of_a_protocol_by_itself() {
    let server = server(Value::Null).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("ping").await, "pong");
    client.say("spin 300\necho slow").await;
    client.say("ping").await;
    client.hears(&["pong", "slow"]).await;
    assert_eq!(client.ask("ping ").await, "error no command ping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_may_stay_open_as_long_as_the_plan_says() {
    let short = server(json!({"transaction_ms": 100})).await;
    assert_eq!(ask(short.address, "begin\nput k 1\nspin 200\ncommit").await.1, "error limit");
    let long = server(json!({"transaction_ms": 3000})).await;
    assert_eq!(ask(long.address, "begin\nput k 1\nspin 1200\ncommit\nview k").await.1, "view k=1");
}
