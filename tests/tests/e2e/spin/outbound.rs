//! Requests of the component's own.

use serde_json::json;

use super::{Probe, fails};

#[tokio::test]
async fn a_component_may_ask_others() {
    let (asking, asked) = (Probe::start().await, Probe::start().await);
    let fetch = |authority: String| json!({"do": "fetch", "authority": authority, "path": "/stream?x"});
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it has one");
    let results = asking.run(json!([fetch(asked.spin.address().to_string()), fetch(nobody.to_string())])).await;
    assert_eq!(results[0], json!({"status": 200, "body": "first\nsecond\n"}));
    fails(&results[1], "Connect");
}
