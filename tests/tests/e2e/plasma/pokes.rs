//! Pokes by server-sent events and WebSocket (docs/protocols/plasma.md, section 8).

use serde_json::json;
use syncline_tests::plasma::{Replica, admin, alice, bob, push_body};
use syncline_tests::socket::Socket;

use super::{create_todo, increment, pull, serve, serve_with};

#[tokio::test]
async fn a_commit_pokes_those_who_listen() {
    let server = serve().await;
    let (writer, reader) = (alice(server.address), bob(server.address));
    let mut events = reader.events("?clientGroupID=g2").await;
    let hello = events.next().await.expect("a hello");
    assert_eq!((hello.name.as_str(), hello.json()), ("hello", json!({"cookie": 0, "pingIntervalMs": 25000})));
    writer.push("g1", &[increment("c1", 1, "k", 1)]).await;
    let poke = events.next().await.expect("a poke");
    assert_eq!((poke.name.as_str(), poke.id.as_str(), poke.json()), ("poke", "1", json!({"cookie": 1})));
    writer.push("g1", &[increment("c1", 1, "k", 1)]).await;
    writer.push("g1", &[increment("c1", 2, "k", 1)]).await;
    assert_eq!(events.next().await.expect("a poke").json(), json!({"cookie": 2}), "duplicates poke nobody");
}

#[tokio::test]
async fn a_stream_that_comes_back_is_told_at_once_that_it_missed_something() {
    let server = serve().await;
    alice(server.address).push("g1", &[increment("c1", 1, "k", 1)]).await;
    let headers = [("authorization", "tok-bob"), ("last-event-id", "0")];
    let mut events = syncline_tests::plasma::Events::open(server.address, "/sync/poke", &headers).await;
    assert_eq!(events.next().await.expect("a hello").name, "hello");
    assert_eq!(events.next().await.expect("a poke").json(), json!({"cookie": 1}));
}

#[tokio::test]
async fn sockets_are_poked_like_streams() {
    let server = serve().await;
    let mut socket = Socket::connect(server.address, "/sync/ws?auth=tok-bob").await;
    assert_eq!(socket.json().await, json!({"type": "hello", "protocolVersion": 1, "cookie": 0, "pingIntervalMs": 25000}));
    socket.send(&json!({"type": "ping"})).await;
    assert_eq!(socket.json().await, json!({"type": "pong"}));
    alice(server.address).push("g1", &[increment("c1", 1, "k", 1)]).await;
    assert_eq!(socket.json().await, json!({"type": "poke", "cookie": 1}));
    socket.send(&json!({"kind": "ping"})).await;
    assert_eq!(socket.closed().await, 4400);
}

#[tokio::test]
async fn a_page_that_is_not_the_last_pokes_its_own_group() {
    let server = serve().await;
    let user = alice(server.address);
    let todos: Vec<_> = (1..=3).map(|id| create_todo("c1", id, &format!("t{id}"), true)).collect();
    user.push("g1", &todos).await;
    let mut events = user.events("?clientGroupID=g1").await;
    events.next_of("hello").await;
    let mut replica = Replica::new();
    let answer = user.post("/pull?limit=2", &syncline_tests::plasma::pull_body("g1", &replica.cookie)).await.json();
    assert!(replica.apply(&answer).unwrap().has_more);
    assert_eq!(events.next_of("poke").await.json(), json!({"cookie": 2, "hasMore": true}));
    assert!(!pull(user, "g1", &mut replica).await.has_more);
}

#[tokio::test]
async fn in_data_mode_the_changes_themselves_come() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[increment("c1", 1, "k", 1)]).await;
    let mut replica = Replica::new();
    pull(user, "g1", &mut replica).await;
    let mut events = user.events(&format!("?clientGroupID=g1&mode=data&cookie={}", replica.cookie)).await;
    events.next_of("hello").await;
    for round in 2..5 {
        user.push("g1", &[increment("c1", round, "k", 1)]).await;
        let patch = events.next_of("patch").await.json();
        assert_eq!(patch["baseCookie"], replica.cookie);
        let mut answer = patch["pullResponse"].clone();
        answer["hasMore"] = false.into();
        replica.apply(&answer).unwrap();
        assert_eq!(replica.rows["counters/k"]["n"], round);
        assert_eq!(replica.last_mutation_ids["c1"], round);
    }
}

#[tokio::test]
async fn a_revoked_user_loses_the_connection() {
    let server = serve().await;
    let mut socket = Socket::connect(server.address, "/sync/ws?auth=tok-bob").await;
    socket.json().await;
    let mut events = bob(server.address).events("").await;
    events.next_of("hello").await;
    assert_eq!(admin(server.address).post("/admin/revoke", &json!({"userId": "bob"})).await.status, 200);
    assert_eq!(socket.closed().await, 4401);
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn without_realtime_clients_still_converge_by_pulling() {
    let server = serve_with(json!({"poke": false})).await;
    let user = alice(server.address);
    let answer = user.post("/push", &push_body("g1", &[increment("c1", 1, "k", 1)])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(user.get("/poke").await.status, 404);
    let mut replica = Replica::new();
    assert_eq!(pull(user, "g1", &mut replica).await.put, ["counters/k"]);
}
