//! Calls that trap, loop or take too much: they cost their caller and nobody else, and nothing of them leaves.

use futures_util::FutureExt as _;
use serde_json::json;
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;

use super::{Client, server, server_over, text};
use crate::commits::{Commits, Fate};

async fn two(server: &TestServer) -> (Client, Client) {
    (Client::connect(server.address).await, Client::connect(server.address).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_traps_is_made_once_more_with_the_failure() {
    let server = server(json!({})).await;
    let (mut caller, mut other) = two(&server).await;
    for fault in ["trap", "recurse", "eat"] {
        assert_eq!(caller.ask(fault).await, "failure trapped", "{fault}");
        assert_eq!(caller.ask("echo still here").await, "still here");
        assert_eq!(other.ask("echo not concerned").await, "not concerned");
    }
    assert_eq!(caller.ask("once k trap\necho never").await, "failure trapped");
    assert_eq!(caller.ask("again\nonce l trap\necho second time").await, "failure trapped");
    caller.hears(&["second time"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_twice_closes_its_connection() {
    let server = server(json!({})).await;
    let mut other = Client::connect(server.address).await;
    for fault in ["again\ntrap", "again\nrecurse", "again\neat"] {
        let mut caller = Client::connect(server.address).await;
        caller.say(fault).await;
        caller.closed(4011).await;
        assert_eq!(other.ask("echo not concerned").await, "not concerned");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_loop_let_others_run_and_end_at_their_deadline() {
    let server = server(json!({"call_deadline_ms": 1000})).await;
    let mut other = Client::connect(server.address).await;
    let mut callers = Vec::new();
    for _ in 0..3 {
        let mut caller = Client::connect(server.address).await;
        caller.say("loop").await;
        callers.push(caller);
    }
    for number in 0..10 {
        let echoed = format!("echo {number}");
        assert_eq!(other.ask(&echoed).await, number.to_string());
    }
    for caller in &mut callers {
        assert!(caller.hear().now_or_never().is_none(), "the loop goes on meanwhile");
    }
    for caller in &mut callers {
        assert_eq!(caller.hear().await, "failure timed-out");
        assert_eq!(caller.ask("echo still here").await, "still here");
    }
    callers[0].say("again\nloop").await;
    callers[0].closed(4011).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_failed_call_leaves() {
    let server = server(json!({})).await;
    let (mut caller, mut other) = two(&server).await;
    assert_eq!(other.ask("subscribe t\necho listening").await, "listening");
    let effects =
        format!("publish t lost\nsend {} lost\nset k lost\nalarm 1\ntask echo lost\nschedule kept 600000 x\necho lost\ntrap", other.id);
    assert_eq!(caller.ask(&effects).await, "failure trapped");
    // Whatever would have left is there before this.
    assert_eq!(caller.ask("get k").await, "get k=nothing");
    assert_eq!(caller.ask("publish t kept\necho done").await, "done");
    other.hears(&["kept"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_call_leaves_what_it_committed_and_no_more() {
    let server = server(json!({})).await;
    let (mut caller, mut other) = two(&server).await;
    assert_eq!(other.ask("subscribe t\necho listening").await, "listening");
    assert_eq!(caller.ask("begin\nput a lost\ntrap").await, "failure trapped");
    assert_eq!(caller.ask("view a").await, "view a=nothing");
    assert_eq!(
        caller.ask("publish t with-b\nwrite b kept\npublish t after-b\necho lost\nbegin\nput b2 lost\npublish t lost\ntrap").await,
        "failure trapped"
    );
    // What rests on a commit leaves with it: others must not miss it.
    other.hears(&["with-b", "after-b"]).await;
    assert_eq!(other.ask("view b").await, "view b=kept");
    assert_eq!(caller.ask("write c kept\nbegin\nput c lost\ntrap").await, "failure trapped");
    assert_eq!(other.ask("view c").await, "view c=kept");
    // The writer is free again, and later effects do not wait for the failed calls.
    assert_eq!(caller.ask("write d kept\npublish t kept\necho done").await, "done");
    other.hears(&["kept"]).await;
}

/// Whoever is called again asks the database what became of the first attempt, and must not be told too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_made_again_sees_what_the_first_attempt_committed() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut caller, mut other) = two(&server).await;
    commits.hold();
    caller.say("again\nkeep attempt\nview k\nonce w write k kept\nonce t trap").await;
    commits.held().await;
    // The second attempt waits until the commit of the first is durable; others go on.
    for _ in 0..50 {
        assert_eq!(other.ask("echo meanwhile").await, "meanwhile");
    }
    commits.settle(Fate::Kept).await;
    commits.release();
    caller.hears(&["failure trapped", "view k=kept"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_fails_gets_the_answer_of_the_plan() {
    let server = server(json!({"call_deadline_ms": 2000})).await;
    for (query, last, code) in [("trap", "upgrade failed", 4013), ("eat", "upgrade failed", 4013), ("loop", "upgrade timed out", 4014)] {
        let mut socket = Socket::connect(server.address, &format!("/faulty?{query}")).await;
        assert_eq!(text(socket.receive().await), last);
        assert_eq!(socket.closed().await, code);
    }
    let mut socket = Socket::connect(server.address, "/faulty?once+u+trap;echo+second").await;
    assert!(text(socket.receive().await).starts_with("hello "));
    assert_eq!(text(socket.receive().await), "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_answers_arrive_whole() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    for bytes in [1_usize << 16, 1 << 20, 8 << 20] {
        assert_eq!(client.ask(&format!("huge {bytes}\necho after")).await.len(), bytes);
        client.hears(&["after"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_that_trap_do_not_use_up_the_instances() {
    let server = server(json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(server.address).await);
    }
    for round in 0..20 {
        for client in &mut clients {
            client.say(if round % 2 == 0 { "trap" } else { "eat" }).await;
        }
        for client in &mut clients {
            assert_eq!(client.hear().await, "failure trapped");
        }
    }
}
