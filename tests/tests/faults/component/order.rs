//! In which order effects leave.

use std::sync::Arc;

use syncline_tests::server::{Setup, TestServer};

use super::{Client, server_over, setup};
use crate::commits::{Commits, Fate};
use syncline_tests::faulty_executor::{FaultyExecutor, Verdict};

async fn two(server: &TestServer) -> (Client, Client) {
    (Client::connect(server.address).await, Client::connect(server.address).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_comes_before_the_frames_of_the_call_that_made_it() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("subscribe t\necho listening").await, "listening");
    client.say("echo r\npublish t p").await;
    client.hears(&["p", "r"]).await;
    client.say("write k 1\necho r\npublish t p").await;
    client.hears(&["p", "r"]).await;
    let own = format!("echo r\nsend {} s", client.id);
    client.say(&own).await;
    client.hears(&["s", "r"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_comes_before_the_frames_of_its_call_also_when_the_next_call_runs() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    assert_eq!(client.ask("subscribe t\necho listening").await, "listening");
    commits.hold();
    client.say("write k 1\npublish t p\necho r1").await;
    commits.held().await;
    client.say("keep second\necho r2").await;
    other.ask_until("count second", "count second=1").await;
    commits.settle(Fate::Kept).await;
    commits.release();
    client.hears(&["p", "r1", "r2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_of_two_transactions_leave_in_the_order_of_all_commits() {
    let commits = Commits::of("faulty");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = FaultyExecutor::new(commits.executor(folder.path()).await, |_| Verdict::Pass);
    let mut begun = executor.begun();
    let setup = Setup { executor: Some(Arc::new(executor)), folder: Some(folder), ..setup(serde_json::Value::Null, None) };
    let server = TestServer::with(setup).await;
    let (mut filler, mut reader) = two(&server).await;
    let (mut first, mut second) = two(&server).await;
    assert_eq!(reader.ask("subscribe t\necho listening").await, "listening");
    commits.hold();
    filler.say("write f 1\necho filled").await;
    commits.held().await;
    let before = begun.count();
    first.say("publish t 0\nwrite a 1\npublish t 1\nwrite b 1\npublish t 3\necho first").await;
    begun.reach(before + 1).await;
    second.say("write c 1\npublish t 2\necho second").await;
    begun.reach(before + 2).await;
    commits.settle(Fate::Kept).await;
    filler.hears(&["filled"]).await;
    commits.settle(Fate::Kept).await;
    commits.release();
    reader.hears(&["0", "1", "2", "3"]).await;
    first.hears(&["first"]).await;
    second.hears(&["second"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_offs_drop_what_was_read_and_leave_the_rest_behind_the_answer() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    assert_eq!(client.ask("subscribe t\nsubscribe u\necho listening").await, "listening");
    commits.hold();
    client.say("write k 1\nseen t 2\necho answer").await;
    commits.held().await;
    let publications = "numbered t 1 one\npublish t plain\nnumbered u 1 elsewhere\nnumbered t 2 two\nnumbered t 3 three\necho done";
    assert_eq!(other.ask(publications).await, "done");
    commits.settle(Fate::Kept).await;
    commits.release();
    client.hears(&["plain", "elsewhere", "answer", "three"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_offs_hold_for_publications_that_leave_later() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    assert_eq!(client.ask("subscribe t\necho listening").await, "listening");
    commits.hold();
    other.say("write k 1\nnumbered t 1 one\nnumbered t 2 two\nnumbered t 3 three\necho done").await;
    commits.held().await;
    assert_eq!(client.ask("seen t 2\necho answer").await, "answer");
    commits.settle(Fate::Kept).await;
    commits.release();
    other.hears(&["done"]).await;
    client.hears(&["three"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_on_a_new_subscription_follows_the_answer_that_made_it() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    commits.hold();
    client.say("subscribe t\nwrite k 1\necho answer").await;
    commits.held().await;
    assert_eq!(other.ask("publish t p\necho done").await, "done");
    commits.settle(Fate::Kept).await;
    commits.release();
    client.hears(&["answer", "p"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_ends_drops_what_waits_for_it() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    assert_eq!(client.ask("subscribe t\nsubscribe u\necho listening").await, "listening");
    commits.hold();
    client.say("write k 1\necho answer").await;
    commits.held().await;
    assert_eq!(other.ask("publish t dropped\npublish u kept\necho done").await, "done");
    client.say("unsubscribe t\nkeep unsubscribed\necho second").await;
    other.ask_until("count unsubscribed", "count unsubscribed=1").await;
    commits.settle(Fate::Kept).await;
    commits.release();
    client.hears(&["kept", "answer", "second"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_set_when_the_data_of_their_call_is_durable() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = two(&server).await;
    client.say("set k own\nget k\necho done").await;
    client.hears(&["get k=own", "done"]).await;
    other.ask_until("get k", "get k=own").await;
    commits.hold();
    client.say("write a 1\nset k late\necho set").await;
    commits.held().await;
    assert_eq!(other.ask("get k").await, "get k=own");
    commits.settle(Fate::Kept).await;
    client.hears(&["set"]).await;
    other.ask_until("get k", "get k=late").await;
    client.say("write a 2\nset k lost\necho lost").await;
    commits.settle(Fate::Lost).await;
    client.closed(4011).await;
    assert_eq!(other.ask("get k").await, "get k=late");
    commits.release();
    other.ask_until("set k last\nget k", "get k=last").await;
}
