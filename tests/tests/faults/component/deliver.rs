//! Publications that the component encodes.

use serde_json::json;
use syncline_tests::server::TestServer;

use super::{Client, server};

async fn listener(server: &TestServer, subscription: &str) -> Client {
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask(&format!("subscribe {subscription}\necho listening")).await, "listening");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_asked_for_once_per_publication() {
    let server = server(json!({})).await;
    let mut publisher = Client::connect(server.address).await;
    let mut listeners = Vec::new();
    for group in ["g", "g", "h", "skip"] {
        listeners.push(listener(&server, &format!("t deliver {group}")).await);
    }
    assert_eq!(publisher.ask("publish t 1\npublish t 2\necho done").await, "done");
    for message in ["1", "2"] {
        for (index, group) in ["g", "g", "h"].iter().enumerate() {
            listeners[index].hears(&[&format!("{group} of 3: {message} since 0")]).await;
        }
    }
    assert_eq!(publisher.ask("count deliver t").await, "count deliver t=2");
    assert_eq!(listeners[3].ask("echo skipped").await, "skipped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_part_of_the_group_where_they_are_asked_for() {
    let server = server(json!({})).await;
    let mut publisher = Client::connect(server.address).await;
    let (mut one, mut other) = (listener(&server, "t deliver-by-cursor g 4").await, listener(&server, "t deliver-by-cursor g 4").await);
    let mut ahead = listener(&server, "t deliver-by-cursor g 6").await;
    publisher.say("numbered t 5 five\nnumbered t 7 seven").await;
    one.hears(&["g of 2: five since 4", "g of 2: seven since 5"]).await;
    other.hears(&["g of 2: five since 4", "g of 2: seven since 5"]).await;
    // What is behind a cursor is not sent again.
    ahead.hears(&["g of 2: seven since 6"]).await;
    publisher.say("numbered t 8 eight").await;
    for client in [&mut one, &mut other, &mut ahead] {
        client.hears(&["g of 1: eight since 7"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_by_cursor_are_for_quiet_connections_and_others_look_for_themselves() {
    let server = server(json!({})).await;
    let mut publisher = Client::connect(server.address).await;
    let mut busy = listener(&server, "t deliver-by-cursor g 4").await;
    let mut quiet = listener(&server, "t deliver-by-cursor g 4").await;
    // The publication comes while a call of its own is under way, which may have read what it tells of.
    busy.say("numbered t 5 five\necho said").await;
    busy.hears(&["said", "wake"]).await;
    quiet.hears(&["g of 1: five since 4"]).await;
    publisher.say("numbered t 6 six").await;
    busy.hears(&["g of 2: six since 4"]).await;
    quiet.hears(&["g of 2: six since 5"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_may_be_left_out_or_thrown_out() {
    let server = server(json!({})).await;
    let mut publisher = Client::connect(server.address).await;
    let (mut left, mut thrown) = (listener(&server, "t deliver leave").await, listener(&server, "t deliver bye").await);
    let mut stays = listener(&server, "t deliver g").await;
    publisher.say("publish t 1").await;
    stays.hears(&["g of 3: 1 since 0"]).await;
    thrown.hears(&["bye"]).await;
    thrown.closed(4001).await;
    publisher.say("publish t 2").await;
    stays.hears(&["g of 1: 2 since 0"]).await;
    assert_eq!(left.ask("echo still here").await, "still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_traps_is_tried_again_and_then_closes_who_would_miss_it() {
    let server = server(json!({})).await;
    let mut publisher = Client::connect(server.address).await;
    let (mut one, mut elsewhere) = (listener(&server, "t deliver g").await, listener(&server, "u deliver g").await);
    publisher.say("publish t !once+d+trap\npublish t second").await;
    one.hears(&["g of 1: !once+d+trap since 0", "g of 1: second since 0"]).await;
    publisher.say("publish t !trap\npublish u other").await;
    one.closed(4011).await;
    elsewhere.hears(&["g of 1: other since 0"]).await;
    assert_eq!(publisher.ask("echo still here").await, "still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_loops_does_not_stop_the_calls_of_others() {
    let server = server(json!({"call_deadline_ms": 300})).await;
    let mut publisher = Client::connect(server.address).await;
    let (mut one, mut elsewhere) = (listener(&server, "t deliver g").await, listener(&server, "u forward x").await);
    assert_eq!(publisher.ask("publish t !loop\npublish u other\necho done").await, "done");
    elsewhere.hears(&["other"]).await;
    one.closed(4011).await;
}
