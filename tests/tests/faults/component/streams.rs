//! Event streams: connections without frames.

use serde_json::{Value, json};
use syncline::runtime::in_process::ConnectRequest;
use syncline::server::limits::Limits;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::stream::{Chunk, Stream};

use super::requests::ask;
use super::{Client, FAULTY, mount, server, server_over, setup};
use crate::commits::{Commits, Fate};

/// A stream that begins with commands, greeted.
async fn stream(server: &TestServer, commands: &str) -> (Stream, u64) {
    let mut stream = Stream::get(server.address, &format!("/faulty/stream?{commands}")).await;
    assert_eq!(stream.status, 200);
    let hello = stream.hear().await;
    let id = hello.strip_prefix("hello ").and_then(|id| id.parse().ok());
    (stream, id.unwrap_or_else(|| panic!("{hello}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_gets_its_first_frames_and_what_is_published_later_in_every_mode() {
    let server = server(Value::Null).await;
    let mut other = Client::connect(server.address).await;
    let (mut stream, id) = stream(&server, "subscribe+t;subscribe+d+deliver+g;subscribe+c+deliver-by-cursor+h+4;echo+first").await;
    stream.hears(&["first"]).await;
    assert_eq!(other.ask("members d").await, "members 1");
    assert_eq!(other.ask(&format!("publish t one\npublish d two\nnumbered c 5 three\nsend {id} four\necho done")).await, "done");
    stream.hears(&["one", "g of 1: two since 0", "h of 1: three since 4", "four"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_tasks_pages_and_attachments_work_as_on_sockets_and_a_close_ends_the_response() {
    let server = server(Value::Null).await;
    let (mut stream, _) = stream(&server, "alarm+1;echo+set").await;
    stream.hears(&["set", "wake"]).await;
    let (mut stream, _) = self::stream(&server, "pace;echo+page").await;
    stream.hears(&["page", "drained"]).await;
    let (mut stream, _) = self::stream(&server, "task+echo+worked;echo+asked").await;
    stream.hears(&["asked", "done worked"]).await;
    let (mut stream, _) = self::stream(&server, "echo+bye;close+4000").await;
    stream.hears(&["bye"]).await;
    assert_eq!(stream.next().await, Chunk::End);
    let mut other = Client::connect(server.address).await;
    other.ask_until("count closed", "count closed=1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_when_its_data_is_durable_and_misses_nothing_meanwhile() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let mut other = Client::connect(server.address).await;
    commits.hold();
    let starting = tokio::spawn(Stream::get(server.address, "/faulty/stream?subscribe+t;write+k+1;keep+ran;echo+answer"));
    commits.held().await;
    other.ask_until("count ran", "count ran=1").await;
    assert_eq!(other.ask("publish t meanwhile\necho done").await, "done");
    commits.settle(Fate::Kept).await;
    let mut stream = starting.await.expect("it is answered");
    assert!(stream.hear().await.starts_with("hello "));
    stream.hears(&["answer", "meanwhile"]).await;
    let lost = tokio::spawn(Stream::get(server.address, "/faulty/stream?subscribe+u;write+k+2;echo+answer"));
    commits.settle(Fate::Lost).await;
    assert_eq!(lost.await.expect("it is answered").status, 503);
    assert_eq!(other.ask("members u").await, "members 0");
    commits.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_is_noticed_and_the_component_is_told() {
    let server = server(Value::Null).await;
    let mut other = Client::connect(server.address).await;
    let (stream, _) = stream(&server, "subscribe+t").await;
    assert_eq!(other.ask("members t").await, "members 1");
    drop(stream);
    other.ask_until("members t", "members 0").await;
    other.ask_until("count closed", "count closed=1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_a_request_that_is_no_stream_end_with_its_answer() {
    let server = server(Value::Null).await;
    let mut other = Client::connect(server.address).await;
    assert_eq!(ask(server.address, "subscribe t\nmembers t").await, (200, "members 1".into()));
    assert_eq!(other.ask("members t").await, "members 0");
    assert_eq!(ask(server.address, "subscribe t\nagain\ntrap").await.0, 200);
    assert_eq!(ask(server.address, "again\nsubscribe t\ntrap").await, (500, "failed".into()));
    assert_eq!(other.ask("members t").await, "members 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalives_come_when_nothing_else_does() {
    let server = server(Value::Null).await;
    let (mut stream, _) = stream(&server, "keepalive+100+:;echo+first").await;
    stream.hears(&["first", ":", ":"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_keep_up_is_cut_off_and_others_go_on() {
    let server = server(json!({"queue_bytes": 100_000})).await;
    let mut other = Client::connect(server.address).await;
    let (mut keeps_up, _) = stream(&server, "subscribe+t").await;
    let mut slow = Stream::get_narrow(server.address, "/faulty/stream?subscribe+t;subscribe+slow").await;
    let text = "x".repeat(50_000);
    // Until the pipes are full and the queue is beyond its limit.
    while other.ask("members slow").await == "members 1" {
        other.say(&format!("publish t {text}\necho done")).await;
        assert_eq!(keeps_up.hear().await, text);
        assert_eq!(other.hear().await, "done");
    }
    // Where it reads now, it may still come to the end in time.
    other.ask_until("count closed", "count closed=1").await;
    assert_eq!(slow.rest().await, Chunk::Cut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_count_as_connections_of_the_mount_and_of_their_address() {
    let limited = server(json!({"max_connections": 2})).await;
    let _socket = Client::connect(limited.address).await;
    let (stream, _) = stream(&limited, "subscribe+t").await;
    assert_eq!(Stream::get(limited.address, "/faulty/stream").await.status, 503);
    assert_eq!(ask(limited.address, "echo requests are no connections").await.0, 200);
    drop(stream);
    let accepted = || async { (Stream::get(limited.address, "/faulty/stream").await.status == 200).then_some(()) };
    syncline_tests::eventually("there is room again", accepted).await;

    let limits = Limits { connections_per_address: Some(1), ..Limits::default() };
    let server = TestServer::with(Setup { limits, ..setup(Value::Null, None) }).await;
    let (_stream, _) = self::stream(&server, "echo+here").await;
    assert_eq!(Stream::get(server.address, "/faulty/stream").await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_a_reload_and_end_whole_when_the_server_stops() {
    let server = server(Value::Null).await;
    let (mut stream, id) = stream(&server, "subscribe+t").await;
    server.reload(FAULTY, &[mount(json!({"max_tasks": 3}), None)]).await.expect("the settings are fine");
    let mut other = Client::connect(server.address).await;
    assert_eq!(other.ask(&format!("publish t after\nsend {id} it\necho done")).await, "done");
    stream.hears(&["after", "it"]).await;
    let stopping = tokio::spawn(server.stop());
    assert_eq!(stream.next().await, Chunk::End);
    stopping.await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_streams_work_from_within_the_process() {
    let server = server(Value::Null).await;
    let runtime = server.server().handle().runtime().clone();
    let at = |path: &str, query: &str| ConnectRequest { path: path.into(), query: Some(query.into()), ..ConnectRequest::default() };
    let mut answer = runtime.request("faulty", "POST", at("/faulty", ""), b"echo posted".to_vec()).await.expect("it is answered");
    assert_eq!((answer.status, answer.body.next().await), (200, Some(Ok("posted".into()))));
    assert_eq!(answer.body.next().await, None);
    let large = runtime.request("faulty", "POST", at("/faulty", ""), vec![b'x'; (1 << 20) + 1]).await.expect("it is answered");
    assert_eq!(large.status, 200, "the component says what to answer");
    let mut stream =
        runtime.request("faulty", "GET", at("/faulty/stream", "subscribe+t;echo+first"), Vec::new()).await.expect("it is answered");
    assert!(stream.body.next().await.is_some_and(|hello| hello.is_ok_and(|hello| hello.starts_with(b"hello "))));
    assert_eq!(stream.body.next().await, Some(Ok("first".into())));
    let mut other = Client::connect(server.address).await;
    assert_eq!(other.ask("publish t later\necho done").await, "done");
    assert_eq!(stream.body.next().await, Some(Ok("later".into())));
    drop(stream);
    other.ask_until("members t", "members 0").await;
    assert!(runtime.request("nobody", "GET", at("/", ""), Vec::new()).await.is_err());
}
