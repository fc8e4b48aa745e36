//! Tables that several servers read and write.

use serde_json::json;
use syncline_tests::plasma::{admin, alice, bob, mutation};
use syncline_tests::socket::Socket;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_both_get_what_is_written_at_either() {
    let pair = Pair::start(tables(NEVER_MS)).await;
    let (all, addresses) = (written(2, 12), pair.addresses());
    let readers = [read_at(addresses[0], "first", all).await, read_at(addresses[1], "second", all).await];
    tokio::join!(write_at(&addresses, 12), join_all(readers));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_announced_is_noticed_all_the_same() {
    let pair = Pair::with(tables(40), false).await;
    let (all, addresses) = (written(2, 6), pair.addresses());
    let readers = [read_at(addresses[0], "first", all).await, read_at(addresses[1], "second", all).await];
    tokio::join!(write_at(&addresses, 6), join_all(readers));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_another_program_wrote_is_noticed() {
    let pair = Pair::with(tables(40), false).await;
    let [address, _] = pair.addresses();
    alice(address).push("g", &[mutation("c", 1, "inc", json!({"id": "k", "by": 1}))]).await;
    let mut events = bob(address).events("").await;
    assert_eq!(events.next_of("hello").await.json()["cookie"], 1);
    let reserved = admin(address).post("/admin/reserve", &json!({"count": 1})).await.json();
    assert_eq!(reserved["first"], 2, "{reserved}");
    assert_eq!(events.poke_at(2).await, 2);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_revoked_at_one_loses_the_connections_to_the_other() {
    let pair = Pair::start(tables(NEVER_MS)).await;
    let [here, there] = pair.addresses();
    // Also one whose server does not hear of it at first.
    for is_deaf in [false, true] {
        let mut socket = Socket::connect(there, "/sync/ws?auth=tok-bob").await;
        socket.json_of("hello").await;
        let mut events = bob(there).events("").await;
        events.next_of("hello").await;
        if is_deaf {
            assert_eq!(pair.deafen(), 2);
        }
        assert_eq!(admin(here).post("/admin/revoke", &json!({"userId": "bob"})).await.status, 200);
        assert_eq!(socket.closed().await, 4401);
        while events.next().await.is_some() {}
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pulls_at_one_and_listens_at_the_other_is_told_of_the_next_page() {
    let pair = Pair::start(tables(NEVER_MS)).await;
    let [here, there] = pair.addresses();
    let todos: Vec<_> = (1..=3).map(|id| mutation("c", id, "createTodo", json!({"id": format!("t{id}"), "title": "x"}))).collect();
    alice(here).push("g", &todos).await;
    for query in ["?clientGroupID=g", ""] {
        let mut events = alice(there).events(query).await;
        events.next_of("hello").await;
        let page = alice(here).post("/pull?limit=2", &pull_body("g", &serde_json::Value::Null)).await.json();
        assert_eq!(page["hasMore"], true);
        assert_eq!(events.next_of("poke").await.json(), json!({"cookie": page["cookie"]["v"].as_u64().unwrap_or(2), "hasMore": true}));
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_say_whether_they_hear_of_each_other() {
    let pair = Pair::start(tables(NEVER_MS)).await;
    for address in pair.addresses() {
        assert_eq!(crate::raw::get(address, "/readyz").await.status, 200);
    }
    assert_eq!(pair.deafen(), 2);
    for address in pair.addresses() {
        syncline_tests::eventually("it hears again", async || (crate::raw::get(address, "/readyz").await.status == 200).then_some(()))
            .await;
    }
    pair.stop().await;
}
