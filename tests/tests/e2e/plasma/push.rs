//! Pushes (docs/protocols/plasma.md, section 6).

use futures_util::future::join_all;
use serde_json::json;
use syncline_tests::plasma::{alice, bob, mutation, push_body};

use super::{create_todo, everything, increment, serve, serve_with};

#[tokio::test]
async fn a_push_is_answered_with_what_became_of_each_mutation() {
    let server = serve().await;
    let failing = mutation("c1", 2, "writeThenFail", json!({"id": "x"}));
    let answer = alice(server.address).push("g1", &[increment("c1", 1, "k", 2), failing, increment("c1", 3, "k", 3)]).await;
    let error = json!({"name": "Error", "message": "refused by rule"});
    let results = json!([
        {"clientID": "c1", "id": 1, "status": "applied"},
        {"clientID": "c1", "id": 2, "status": "error", "error": error},
        {"clientID": "c1", "id": 3, "status": "applied"},
    ]);
    assert_eq!(answer, json!({"ok": true, "lastMutationIDChanges": {"c1": 3}, "cookie": 3, "results": results}));
    let rows = everything(alice(server.address)).await.rows;
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), [("counters/k".to_owned(), json!({"id": "k", "n": 5}))]);
}

#[tokio::test]
async fn what_comes_twice_is_done_once() {
    let server = serve().await;
    let user = alice(server.address);
    let mutations = [increment("c1", 1, "k", 1), increment("c1", 2, "k", 1)];
    user.push("g1", &mutations[..1]).await;
    let again = user.push("g1", &mutations).await;
    assert_eq!(again["results"][0]["status"], "duplicate");
    assert_eq!(again["results"][1]["status"], "applied");
    let once_more = user.push("g1", &mutations).await;
    assert_eq!(once_more["cookie"], again["cookie"], "nothing happened");
    assert_eq!(everything(user).await.rows["counters/k"]["n"], 2);
}

#[tokio::test]
async fn a_hole_before_a_mutation_means_that_the_server_forgot_the_client() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[increment("c1", 1, "k", 1)]).await;
    assert_eq!(user.push("g1", &[increment("c1", 3, "k", 1)]).await, json!({"error": "ClientStateNotFound"}));
    assert_eq!(everything(user).await.rows["counters/k"]["n"], 1);
}

#[tokio::test]
async fn a_hole_within_a_push_is_a_bad_request() {
    let server = serve().await;
    let holes = push_body("g1", &[increment("c1", 1, "k", 1), increment("c1", 3, "k", 1)]);
    let answer = alice(server.address).post("/push", &holes).await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid-request")));
    assert!(everything(alice(server.address)).await.rows.is_empty(), "nothing ran");
}

#[tokio::test]
async fn a_group_and_its_clients_belong_to_one_user() {
    let server = serve().await;
    alice(server.address).push("g1", &[increment("c1", 1, "k", 1)]).await;
    let refused = bob(server.address).post("/push", &push_body("g1", &[increment("c2", 1, "k", 1)])).await;
    assert_eq!((refused.status, refused.json()), (403, json!({"error": "forbidden", "reason": "client-group-owner"})));
    let refused = alice(server.address).post("/push", &push_body("g2", &[increment("c1", 2, "k", 1)])).await;
    assert_eq!((refused.status, refused.json()), (403, json!({"error": "forbidden", "reason": "client-belongs-to-another-group"})));
}

#[tokio::test]
async fn an_offline_queue_drains_by_prefixes() {
    let server = serve_with(json!({"maxMutationsPerPush": 20})).await;
    let user = alice(server.address);
    let queue: Vec<_> = (1..=45).map(|id| increment("c1", id, "k", 1)).collect();
    for (applied, remaining) in [(20, 25), (20, 5)] {
        let answer = user.post("/push", &push_body("g1", &queue)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, "0"));
        let told = answer.json();
        assert_eq!((&told["error"], &told["limit"]), (&json!("push-truncated"), &json!(20)));
        assert_eq!((&told["applied"], &told["remaining"]), (&json!(applied), &json!(remaining)));
    }
    assert_eq!(user.push("g1", &queue).await["lastMutationIDChanges"], json!({"c1": 45}));
    assert_eq!(everything(user).await.rows["counters/k"]["n"], 45);
}

#[tokio::test]
async fn pushes_beside_each_other_lose_nothing() {
    let server = serve().await;
    let user = alice(server.address);
    let pushes = (0..32).map(|client| async move {
        let id = format!("c{client}");
        for number in 1..=5 {
            user.push(&format!("g{client}"), &[increment(&id, number, "k", 1)]).await;
        }
    });
    join_all(pushes).await;
    let replica = everything(user).await;
    assert_eq!(replica.rows["counters/k"]["n"], 160);
    assert_eq!(replica.cookie, 160, "each mutation took one version");
}

#[tokio::test]
async fn rows_are_checked_against_schema_and_rights() {
    let server = serve().await;
    let (owner, other) = (alice(server.address), bob(server.address));
    owner.push("g1", &[create_todo("c1", 1, "mine", false)]).await;
    let cases = [
        (mutation("c2", 1, "setTitle", json!({"id": "mine", "title": "x"})), "PlasmaAuthorizationError", None),
        (mutation("c2", 2, "createTodo", json!({"id": "t", "title": 5})), "Error", Some("column title expects text")),
        (mutation("c2", 3, "createTodo", json!({"id": "t"})), "Error", Some("column title is not nullable")),
        (mutation("c2", 4, "__proto__", json!({})), "Error", Some("unknown mutator: __proto__")),
        (mutation("c2", 5, "setTitle", json!({"id": "gone", "title": "x"})), "Error", Some("row not found: todos/gone")),
        (mutation("c2", 6, "inc", json!({"id": "k", "by": "much"})), "Error", Some("add expects numbers")),
    ];
    for (mutation, name, message) in cases {
        let answer = other.push("g2", &[mutation.clone()]).await;
        let result = &answer["results"][0];
        assert_eq!((&result["status"], &result["error"]["name"]), (&json!("error"), &json!(name)), "{mutation}: {result}");
        if let Some(message) = message {
            assert!(result["error"]["message"].as_str().is_some_and(|text| text.contains(message)), "{mutation}: {result}");
        }
    }
    assert_eq!(everything(owner).await.rows["todos/mine"]["title"], "mine");
}
