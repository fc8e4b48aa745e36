//! The bridge to the app: whatever it does, for the component it is an import that failed.

use serde_json::json;
use syncline_tests::server::TestServer;

use super::{Client, server, setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_app_nothing_is_implemented() {
    let server = server(json!({})).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("app describe").await, "app {}");
    assert_eq!(client.ask("app mutate anything").await, "app not-implemented false");
    assert_eq!(client.ask("app authorize anything").await, "app [false, false]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_falls_is_an_import_that_failed() {
    let server = TestServer::with(setup(json!({}), Some(env!("SYNCLINE_BAD_APP")))).await;
    let (mut client, mut other) = (Client::connect(server.address).await, Client::connect(server.address).await);
    for (name, answer) in [
        ("trap", "app trapped true"),
        ("eat", "app trapped true"),
        ("recurse", "app trapped true"),
        ("huge", "app trapped true"),
        ("loop", "app timed-out true"),
    ] {
        client.say(&format!("begin\nput {name} kept\napp mutate {name}\ncommit")).await;
        for number in 0..5 {
            assert_eq!(other.ask(&format!("echo {number}")).await, number.to_string());
        }
        client.hears(&[answer]).await;
        assert_eq!(client.ask(&format!("view {name}")).await, format!("view {name}=kept"));
        assert_eq!(client.ask("app mutate fine").await, "app ok {}");
    }
    assert_eq!(client.ask("app authorize trap").await, "app []");
    assert_eq!(client.ask("app authorize fine").await, "app [true, true]");
    assert_eq!(client.ask("app describe").await, r#"app {"functions":["mutate"]}"#);
}
