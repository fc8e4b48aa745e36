//! Transactions and views of one call and of calls behind each other.

use super::{Client, server, server_over};
use crate::commits::{Commits, Fate};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_begin_is_a_savepoint() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    let commands =
        "begin\nput a 1\nbegin\nput b 1\nread b\nrollback\nread b\nbegin\nput c 1\nbegin\nput d 1\ncommit\ncommit\ncommit\nview a";
    client.say(&format!("{commands}\nview b\nview c\nview d")).await;
    client.hears(&["read b=1", "read b=nothing", "view a=1", "view b=nothing", "view c=1", "view d=1"]).await;
    // The outermost decides.
    client.say("begin\nput a 2\nbegin\nput b 2\ncommit\nrollback\nview a\nview b").await;
    client.hears(&["view a=1", "view b=nothing"]).await;
    // A view within a transaction is refused; it can be read in it.
    client.say("begin\nput a 3\nread a\nview a").await;
    client.hears(&["read a=3", "error invalid-statement"]).await;
    assert_eq!(client.ask("view a").await, "view a=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_sees_what_earlier_calls_of_its_connection_wrote() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    commits.hold();
    client.say("write k 1\necho written").await;
    client.say("keep second\nview k").await;
    commits.held().await;
    other.ask_until("count second", "count second=1").await;
    // Others see what is durable, and do not wait.
    assert_eq!(other.ask("view k").await, "view k=nothing");
    commits.settle(Fate::Kept).await;
    client.hears(&["written", "view k=1"]).await;
    // Within one call too.
    client.say("write k 2\nview k\nwrite k 3\nview k").await;
    for _ in 0..2 {
        commits.settle(Fate::Kept).await;
    }
    client.hears(&["view k=2", "view k=3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_waits_for_a_lost_group_ends_with_its_connection() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    commits.hold();
    client.say("write k 1\necho written").await;
    client.say("keep second\nview k").await;
    commits.held().await;
    other.ask_until("count second", "count second=1").await;
    commits.settle(Fate::Lost).await;
    commits.release();
    client.closed(4011).await;
    assert_eq!(other.ask("view k").await, "view k=nothing");
}

/// The first transaction of a call is lost while the second waits for its turn: it must not be carried out as if the
/// first had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_behind_a_lost_one_of_its_call_does_not_happen() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    commits.hold();
    client.say("write a 1\nkeep between\nwrite b 1\nkeep behind").await;
    commits.held().await;
    other.ask_until("count between", "count between=1").await;
    commits.settle(Fate::Lost).await;
    commits.release();
    client.closed(4011).await;
    // Behind whatever the other may still write.
    assert_eq!(other.ask("write c 1\necho written").await, "written");
    other.say("view a\nview b\ncount behind").await;
    other.hears(&["view a=nothing", "view b=nothing", "count behind=0"]).await;
}

/// The same for the next call of the connection, which waits for its turn meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_behind_a_lost_one_of_its_connection_does_not_happen() {
    let commits = Commits::of("faulty");
    let server = server_over(&commits).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    assert_eq!(other.ask("subscribe t\necho listening").await, "listening");
    commits.hold();
    client.say("write a 1\necho lost").await;
    commits.held().await;
    client.say("keep second\nwrite b 1\npublish t b\necho lost").await;
    other.ask_until("count second", "count second=1").await;
    commits.settle(Fate::Lost).await;
    commits.release();
    client.closed(4011).await;
    // Written without a word to anybody it would be a hole for those who listen.
    assert_eq!(other.ask("write c 1\necho written").await, "written");
    assert_eq!(other.ask("view b").await, "view b=nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_within_a_transaction_shares_its_fate() {
    let server = server(json!({})).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    assert_eq!(other.ask("subscribe t\necho listening").await, "listening");
    // Rolled back as a whole; then a part of it; then all of it is kept.
    client.say("begin\nput a 1\npublish t undone\nrollback\npublish t after").await;
    client
        .say("begin\npublish t first\nbegin\npublish t undone\nbegin\npublish t undone\ncommit\nrollback\npublish t second\ncommit")
        .await;
    client.say("begin\npublish t third\nbegin\npublish t fourth\ncommit\ncommit").await;
    client.say(&format!("begin\nsend {} undone\nrollback\nsend {} sent", other.id, other.id)).await;
    other.hears(&["after", "first", "second", "third", "fourth", "sent"]).await;
    // A call that dies after its commit takes nothing with it that others must know of, and nothing else gets out.
    assert_eq!(
        client.ask("begin\nput a 2\npublish t kept\ncommit\npublish t with it\nbegin\npublish t undone\ntrap").await,
        "failure trapped"
    );
    other.hears(&["kept", "with it"]).await;
    assert_eq!(client.ask("publish t last\nview a").await, "view a=2");
    other.hears(&["last"]).await;
}
