//! Faults in each export: a mount that cannot start is refused by name, any other call costs only its caller.

use serde_json::{Value, json};
use syncline_tests::DEADLINE;
use syncline_tests::server::{Setup, TestServer};

use super::requests::ask;
use super::{Client, mount, server, setup};

/// A deadline that loops run into soon.
const SHORT_MS: u64 = 300;

fn faults(faults: Value) -> Value {
    json!({"call_deadline_ms": SHORT_MS, "faults": faults})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_falls_while_it_starts_is_refused_by_name() {
    for (export, how) in [
        ("check", "trap"),
        ("check", "eat"),
        ("check", "recurse"),
        ("check", "loop"),
        ("configure", "trap"),
        ("configure", "recurse"),
        ("configure", "loop"),
        ("start", "trap"),
        ("start", "eat"),
        ("start", "loop"),
    ] {
        let starting = TestServer::try_with(setup(faults(json!({export: how})), None));
        let started = tokio::time::timeout(DEADLINE, starting).await.expect("it is refused within the deadline");
        let Err(error) = started else { panic!("{export} {how}: it started") };
        let said = error.to_string();
        assert!(said.contains("\"faulty\" does not start"), "{export} {how}: {said}");
        if export != "start" {
            assert!(said.contains(export), "{export} {how}: {said}");
        }
        assert!(!said.contains('\n'), "one line: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_when_its_client_has_gone_concerns_nobody_else() {
    for how in ["trap", "loop", "eat"] {
        let server = server(faults(json!({"closed": how}))).await;
        let mut other = Client::connect(server.address).await;
        for _ in 0..3 {
            Client::connect(server.address).await.socket.close().await;
        }
        // Each is told twice: the call is made again after its failure.
        other.ask_until("count closed", "count closed=6").await;
        assert_eq!(other.ask("write k 1\necho done").await, "done");
        tokio::time::timeout(DEADLINE, server.stop()).await.expect("the server stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_falls_before_its_body_is_answered_and_concerns_nobody_else() {
    for how in ["trap", "eat", "recurse", "loop"] {
        let server = server(faults(json!({"admit": how}))).await;
        let mut other = Client::connect(server.address).await;
        for _ in 0..2 {
            assert_eq!(ask(server.address, "echo never").await, (500, "failed".into()), "{how}");
        }
        assert_eq!(other.ask("write k 1\necho done").await, "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_falls_does_not_keep_the_server_from_stopping() {
    for how in ["trap", "loop", "recurse"] {
        let server = server(faults(json!({"stop": how}))).await;
        let mut client = Client::connect(server.address).await;
        assert_eq!(client.ask("write k 1\necho done").await, "done");
        tokio::time::timeout(DEADLINE, server.stop()).await.expect("the server stops");
        client.closed(4012).await;
    }
}

/// A deadline that no loop of these tests runs into: what waits for one would wait too long.
const LONG_MS: u64 = 120_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_loops_holds_up_its_own_topic_only() {
    let server = server(json!({"call_deadline_ms": LONG_MS})).await;
    let mut publisher = Client::connect(server.address).await;
    let (mut one, mut elsewhere) = (Client::connect(server.address).await, Client::connect(server.address).await);
    assert_eq!(one.ask("subscribe t deliver g\necho listening").await, "listening");
    assert_eq!(elsewhere.ask("subscribe u deliver g\necho listening").await, "listening");
    assert_eq!(publisher.ask("publish t !keep+looping;loop\necho done").await, "done");
    publisher.ask_until("count looping", "count looping=1").await;
    assert_eq!(publisher.ask("publish u 1\npublish u 2\necho done").await, "done");
    elsewhere.hears(&["g of 1: 1 since 0", "g of 1: 2 since 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_looped_is_followed_by_the_next_of_its_topic() {
    let server = server(json!({"call_deadline_ms": SHORT_MS})).await;
    let mut publisher = Client::connect(server.address).await;
    let mut one = Client::connect(server.address).await;
    assert_eq!(one.ask("subscribe t deliver g\necho listening").await, "listening");
    assert_eq!(publisher.ask("publish t !loop\necho done").await, "done");
    one.closed(4011).await;
    let mut next = Client::connect(server.address).await;
    assert_eq!(next.ask("subscribe t deliver g\necho listening").await, "listening");
    publisher.say("publish t 3").await;
    next.hears(&["g of 1: 3 since 0"]).await;
}

/// Two mounts of the component: `/faulty`, and `/beside`.
async fn two_mounts(settings: Value) -> TestServer {
    let mut second = mount(json!({"path": "/beside"}), None);
    second.name = "beside".into();
    let first = setup(settings, None);
    TestServer::with(Setup { mounts: vec![first.mounts[0].clone(), second], ..first }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_loops_does_not_hold_up_other_jobs() {
    let server = two_mounts(json!({"call_deadline_ms": LONG_MS})).await;
    let mut client = Client::connect(server.address).await;
    let mut other_mount = Client::connect_at(server.address, "/beside").await;
    for client in [&mut client, &mut other_mount] {
        assert_eq!(client.ask("subscribe jobs\necho listening").await, "listening");
    }
    assert_eq!(client.ask("schedule a 0 keep+looping;loop\nschedule b 0 keep+looping;loop\necho done").await, "done");
    client.ask_until("count looping", "count looping=2").await;
    client.say("schedule good 0 steps+1").await;
    client.hears(&["good step 0", "good step 1"]).await;
    other_mount.say("schedule good 0 steps+0").await;
    other_mount.hears(&["good step 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_whose_calls_all_loop_does_not_stop_another_mount() {
    let server = two_mounts(json!({"call_deadline_ms": LONG_MS})).await;
    let mut other = Client::connect_at(server.address, "/beside").await;
    let mut callers = Vec::new();
    // More than a mount may have calls at once.
    for _ in 0..70 {
        callers.push(Client::connect(server.address).await);
    }
    for caller in &mut callers {
        caller.say("loop").await;
    }
    for number in 0..5 {
        assert_eq!(other.ask(&format!("write {number} 1\necho {number}")).await, number.to_string());
    }
}

/// A loop that nobody waits for any more ends at its deadline, also when the server is gone: nothing keeps the process.
#[test]
fn a_loop_that_outlives_the_server_ends_at_its_deadline() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = server(json!({"call_deadline_ms": 1000})).await;
        let mut client = Client::connect(server.address).await;
        client.say("keep looping\nloop").await;
        drop(server);
    });
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    end.recv_timeout(DEADLINE).expect("the threads of the runtime end");
}
