//! A component that is exchanged for one that does not know what the old one left.

use serde_json::{Value, json};
use syncline::runtime::{GUEST_COMPONENT, MountSettings};
use syncline_tests::server::{Setup, TestServer};

use super::{Client, FAULTY, mount, setup};

#[tokio::test]
async fn an_attachment_of_another_component_closes_its_connection_and_no_other() {
    let as_secsync = |settings: Value| MountSettings { protocol: "secsync".into(), ..mount(settings, None) };
    let other = MountSettings { name: "other".into(), ..as_secsync(json!({"path": "/other"})) };
    let settings = setup(Value::Null, None);
    let server = TestServer::with(Setup { mounts: vec![as_secsync(json!({"path": "/faulty"}))], ..settings }).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("id").await, format!("id {}", client.id));
    server.reload(GUEST_COMPONENT, &[as_secsync(json!({"path": "/faulty"}))]).await.expect("the component is whole");
    client.say("id").await;
    client.closed(1013).await;
    // The code that it was written for understands what it finds, whatever ran meanwhile.
    server.reload(FAULTY, &[as_secsync(json!({"path": "/faulty"})), other]).await.expect("the component is whole");
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("echo here").await, "here");
}
