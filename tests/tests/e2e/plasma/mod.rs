//! plasma through the shipped component in the real host.

mod access;
mod administration;
mod bad_input;
mod blobs;
mod growing;
mod lagging;
mod live;
mod pokes;
mod pull;
mod push;
mod triggers;
mod visibility;

use serde_json::{Value, json};
use syncline_tests::plasma::{Pulled, Replica, User, fixture, fixture_with, mutation, plasma_mount};
use syncline_tests::server::{Setup, TestServer};

/// A server with the fixture at `/sync`.
async fn serve() -> TestServer {
    serve_with(json!({})).await
}

/// The same with some keys changed.
async fn serve_with(changes: Value) -> TestServer {
    TestServer::with(Setup { mounts: vec![plasma_mount(fixture_with(changes))], ..Setup::default() }).await
}

/// One page for a replica.
async fn pull(user: User, client_group_id: &str, replica: &mut Replica) -> Pulled {
    let answer = user.pull(client_group_id, &replica.cookie).await;
    replica.apply(&answer).unwrap_or_else(|broken| panic!("{broken}"))
}

/// All there is for a replica.
async fn pull_all(user: User, client_group_id: &str, replica: &mut Replica) {
    while pull(user, client_group_id, replica).await.has_more {}
}

/// A todo that its owner alone sees, unless it is shared.
fn create_todo(client_id: &str, id: u64, todo: &str, shared: bool) -> Value {
    mutation(client_id, id, "createTodo", json!({"id": todo, "title": todo, "shared": shared}))
}

/// Counts up.
fn increment(client_id: &str, id: u64, counter: &str, by: i64) -> Value {
    mutation(client_id, id, "inc", json!({"id": counter, "by": by}))
}

/// The rows of a fresh client of a user.
async fn everything(user: User) -> Replica {
    let mut replica = Replica::new();
    pull_all(user, "everything", &mut replica).await;
    replica
}

#[tokio::test]
async fn the_fixture_is_served_as_it_is() {
    let server = TestServer::with(Setup { mounts: vec![plasma_mount(fixture())], ..Setup::default() }).await;
    let health = syncline_tests::http::request(server.address, &http::Method::GET, "/sync/health", &[], "").await;
    assert_eq!(health.json(), json!({"ok": true, "protocolVersion": 1, "schemaVersion": "7", "version": 0}));
}
