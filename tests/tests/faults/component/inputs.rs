//! Alarms, inputs that are put off, pages, readers that fall behind.

use serde_json::json;
use syncline_tests::socket::Received;
use syncline_tests::{DEADLINE, scale};

use super::{Client, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_goes_off_once_at_its_last_setting() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("alarm 5").await, "wake");
    client.say("alarm 600000").await;
    assert_eq!(client.ask("alarm 5").await, "wake");
    assert_eq!(client.ask("alarm 30\necho set").await, "set");
    assert_eq!(client.ask("alarm stop\necho stopped").await, "stopped");
    assert_eq!(client.ask("alarm 60\necho set").await, "set");
    client.hears(&["wake"]).await;
    assert_eq!(client.ask("echo nothing more").await, "nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_are_put_off_come_again_in_order() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    client.say("echo before").await;
    client.say("defer a 50\necho a").await;
    client.say("echo b").await;
    client.say("defer c 1\necho c").await;
    client.say("echo d").await;
    client.hears(&["before", "a", "b", "c", "d"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_are_put_off_for_no_time_are_not_forgotten() {
    let server = server(json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(server.address).await);
    }
    for round in 0..100 * scale() {
        for client in &mut clients {
            client.say(&format!("defer <{round}> 0\necho {round}")).await;
        }
        for client in &mut clients {
            client.hears(&[&round.to_string()]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_component_is_told_when_a_page_has_been_taken() {
    let server = server(json!({"queue_bytes": 100_000})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("pace\nhuge 3000000").await.len(), 3_000_000);
    client.hears(&["drained"]).await;
    assert_eq!(client.ask("echo after").await, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_closed_and_holds_up_nobody() {
    let server = server(json!({"queue_bytes": 100_000})).await;
    let (mut slow, mut reader) = (Client::connect(server.address).await, Client::connect(server.address).await);
    let mut writer = Client::connect(server.address).await;
    for client in [&mut slow, &mut reader] {
        assert_eq!(client.ask("subscribe t\necho listening").await, "listening");
    }
    let page = "x".repeat(60_000);
    let writing = async {
        // Until the slow one is not a subscriber any more.
        while writer.ask(&format!("publish t {page}\nmembers t")).await != "members 1" {
            assert_eq!(reader.hear().await.len(), page.len());
        }
    };
    tokio::time::timeout(DEADLINE, writing).await.expect("the slow one is closed");
    // It gets what was on its way, and the close if there was room for it.
    loop {
        match slow.socket.receive().await {
            Received::Other(_) => {}
            Received::Close(code) => assert_eq!(code, 4008),
            last => return assert_eq!(last, Received::End),
        }
    }
}
