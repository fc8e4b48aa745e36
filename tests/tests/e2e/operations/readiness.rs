//! `/readyz` when something does not work.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use syncline::pubsub::{PubSub, PubSubError, Publication, Receiver};
use syncline_tests::server::{Setup, TestServer};

use crate::raw::get;

/// Takes publications and never brings one back.
struct Silent;

#[async_trait]
impl PubSub for Silent {
    fn attach(&self, _process: u64, _receiver: Arc<dyn Receiver>) {}
    fn detach(&self, _process: u64) {}
    fn publish(&self, _process: u64, _mount: &str, _publication: &Publication) {}
    async fn ready(&self) -> Result<(), PubSubError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_backend_that_never_answers_is_named_while_the_others_work() {
    let server = TestServer::with(Setup { pubsub: Some(Arc::new(Silent)), ..Setup::default() }).await;
    // Several at once: none waits for another one.
    let asked = futures_util::future::join_all((0..4).map(|_| get(server.address, "/readyz"))).await;
    for response in asked {
        assert_eq!(response.status, 503);
        let said: Value = serde_json::from_str(&response.body).expect("JSON");
        assert_eq!(said, json!({"status": "unavailable", "failed": ["pubsub"]}));
    }
    // The process lives all the same.
    assert_eq!(get(server.address, "/healthz").await.status, 200);
}
