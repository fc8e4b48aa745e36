//! Pulls (docs/protocols/plasma.md, section 7).

use serde_json::{Value, json};
use syncline_tests::plasma::{Replica, admin, alice, bob, mutation, pull_body};

use super::{create_todo, everything, increment, pull, pull_all, serve};

#[tokio::test]
async fn a_first_load_in_pages_ends_with_all_rows_and_a_plain_cookie() {
    let server = serve().await;
    let user = alice(server.address);
    let todos: Vec<_> = (1..=12).map(|id| create_todo("c1", id, &format!("t{id:02}"), true)).collect();
    user.push("g1", &todos).await;
    let mut replica = Replica::new();
    let mut orders = Vec::new();
    loop {
        let answer = user.post("/pull?limit=5", &pull_body("g2", &replica.cookie)).await.json();
        let pulled = replica.apply(&answer).unwrap();
        orders.push(replica.cookie.clone());
        if !pulled.has_more {
            break;
        }
    }
    assert_eq!(orders, [json!({"order": 5, "v": 5, "s": 12}), json!({"order": 10, "v": 10, "s": 12}), json!(12)]);
    assert_eq!(replica.rows.len(), 12);
    assert_eq!(
        replica.rows["todos/t01"],
        json!({"id": "t01", "owner": "alice", "title": "t01", "done": false, "rank": 0, "shared": true, "meta": null})
    );
}

#[tokio::test]
async fn a_page_never_ends_inside_a_version() {
    let server = serve().await;
    let user = alice(server.address);
    let items: Vec<_> = (0..30).map(|number| json!({"id": format!("m{number}"), "title": "x"})).collect();
    user.push("g1", &[increment("c1", 1, "k", 1), mutation("c1", 2, "createMany", json!({"items": items})), increment("c1", 3, "k2", 1)])
        .await;
    let mut sizes = Vec::new();
    let mut replica = Replica::new();
    loop {
        let answer = user.post("/pull?limit=10", &pull_body("g2", &replica.cookie)).await.json();
        let pulled = replica.apply(&answer).unwrap();
        sizes.push(pulled.put.len());
        if !pulled.has_more {
            break;
        }
    }
    assert_eq!(sizes, [1, 30, 1]);
}

#[tokio::test]
async fn rows_that_are_too_large_for_a_whole_page_come_in_smaller_ones() {
    let server = serve().await;
    let user = alice(server.address);
    // More than the database gives at once.
    for id in 1..=20 {
        let large = json!({"id": format!("t{id}"), "title": "x".repeat(1_000_000), "shared": false});
        user.push("g1", &[mutation("c1", id, "createTodo", large)]).await;
    }
    let mut replica = Replica::new();
    pull_all(user, "g2", &mut replica).await;
    assert_eq!(replica.rows.len(), 20);
}

#[tokio::test]
async fn a_delta_has_what_changed_once_and_the_confirmed_mutations_of_the_group() {
    let server = serve().await;
    let (user, other) = (alice(server.address), bob(server.address));
    user.push("g1", &[create_todo("c1", 1, "a", true), create_todo("c1", 2, "b", true)]).await;
    let mut replica = Replica::new();
    pull_all(user, "g1", &mut replica).await;
    other.push("g2", &[mutation("c9", 1, "setTitle", json!({"id": "a", "title": "one"}))]).await;
    other.push("g2", &[mutation("c9", 2, "setTitle", json!({"id": "a", "title": "two"}))]).await;
    other.push("g2", &[mutation("c9", 3, "deleteTodo", json!({"id": "b"}))]).await;
    user.push("g1", &[mutation("c1", 3, "noop", Value::Null)]).await;
    let answer = user.pull("g1", &replica.cookie).await;
    assert_eq!(answer["lastMutationIDChanges"], json!({"c1": 3}), "of the own group alone");
    let pulled = replica.apply(&answer).unwrap();
    assert_eq!((pulled.put, pulled.deleted), (vec!["todos/a".to_owned()], vec!["todos/b".to_owned()]));
    assert_eq!(replica.rows["todos/a"]["title"], "two");
    let again = user.pull("g1", &replica.cookie).await;
    assert_eq!(again, json!({"cookie": 6, "lastMutationIDChanges": {}, "patch": [], "hasMore": false, "reset": false}));
}

#[tokio::test]
async fn the_native_dialect_names_table_key_and_version() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[mutation("c1", 1, "join", json!({"team": "a/b%", "userId": "u"}))]).await;
    let body = json!({"protocolVersion": 1, "schemaVersion": "7", "clientGroupID": "g2", "cookie": null});
    let answer = user.post("/pull", &body).await.json();
    let put = json!({"op": "put", "table": "members", "pk": ["a/b%", "u"], "row": {"team": "a/b%", "userId": "u"}, "version": 1});
    assert_eq!((&answer["ok"], &answer["patch"]), (&json!(true), &json!([{"op": "clear"}, put])));
    let replica = everything(user).await;
    assert!(replica.rows.contains_key("members/a%2Fb%25/u"), "{:?}", replica.rows);
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_is_told_so_and_only_then() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[increment("c1", 1, "k", 1)]).await;
    assert_eq!(user.pull("nobody", &json!(1)).await, json!({"error": "ClientStateNotFound"}));
    assert_eq!(user.pull("g1", &json!(99)).await, json!({"error": "ClientStateNotFound"}), "ahead of the server");
    assert_eq!(user.pull("g1", &json!(1)).await["cookie"], 1);
    let forgotten = admin(server.address).post("/admin/forget", &json!({"clientGroupID": "g1"})).await;
    assert_eq!(forgotten.status, 200, "{forgotten:?}");
    assert_eq!(user.pull("g1", &json!(1)).await, json!({"error": "ClientStateNotFound"}));
}

#[tokio::test]
async fn after_compaction_an_old_cookie_is_reset_once() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[create_todo("c1", 1, "a", true), create_todo("c1", 2, "b", true)]).await;
    let mut replica = Replica::new();
    pull_all(user, "g1", &mut replica).await;
    user.push("g1", &[mutation("c1", 3, "deleteTodo", json!({"id": "a"})), increment("c1", 4, "k", 1)]).await;
    let compacted = admin(server.address).post("/admin/compact", &json!({"keepVersions": 0})).await;
    assert_eq!((compacted.status, &compacted.json()["minVersion"]), (200, &json!(4)), "{compacted:?}");
    let answer = user.pull("g1", &replica.cookie).await;
    assert_eq!(answer["reset"], true);
    let pulled = replica.apply(&answer).unwrap();
    assert!(pulled.cleared && !pulled.has_more);
    assert_eq!(replica.rows.keys().collect::<Vec<_>>(), ["counters/k", "todos/b"]);
    user.push("g1", &[increment("c1", 5, "k", 1)]).await;
    assert_eq!(pull(user, "g1", &mut replica).await.put, ["counters/k"]);
    let again = user.push("g1", &[increment("c1", 5, "k", 1)]).await;
    assert_eq!(again["results"][0]["status"], "duplicate");
}

#[tokio::test]
async fn a_restart_changes_nothing_for_clients() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[create_todo("c1", 1, "a", true)]).await;
    let mut replica = Replica::new();
    pull_all(user, "g1", &mut replica).await;
    let folder = server.stop().await;
    let setup = syncline_tests::server::Setup {
        mounts: vec![syncline_tests::plasma::plasma_mount(syncline_tests::plasma::fixture())],
        folder: Some(folder),
        ..Default::default()
    };
    let server = syncline_tests::server::TestServer::with(setup).await;
    let user = alice(server.address);
    assert_eq!(user.push("g1", &[create_todo("c1", 1, "a", true)]).await["results"][0]["status"], "duplicate");
    user.push("g1", &[create_todo("c1", 2, "b", true)]).await;
    assert_eq!(pull(user, "g1", &mut replica).await.put, ["todos/b"]);
}
