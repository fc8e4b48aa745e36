//! The administrator's requests (docs/protocols/plasma.md, sections 13, 15 to 18).

use serde_json::{Value, json};
use syncline_tests::plasma::{admin, alice, mutation};

use super::{everything, increment, serve, serve_with};

#[tokio::test]
async fn users_are_no_administrators_and_without_a_token_there_is_nothing() {
    let server = serve().await;
    assert_eq!(alice(server.address).get("/admin/stats").await.status, 401);
    assert_eq!(admin(server.address).get("/admin/stats").await.status, 200);
    let bare = serve_with(json!({"adminToken": null})).await;
    assert_eq!(admin(bare.address).get("/admin/stats").await.status, 404);
}

#[tokio::test]
async fn writes_of_the_server_are_one_version_or_nothing_and_poke() {
    let server = serve().await;
    let mut events = alice(server.address).events("").await;
    events.next_of("hello").await;
    let insert = |id: &str, n: i64| json!({"insert": {"table": "counters", "row": {"id": id, "n": n}}});
    let written = admin(server.address).post("/admin/db", &json!({"as": null, "ops": [insert("a", 1), insert("b", 2)]})).await;
    assert_eq!((written.status, written.json()), (200, json!({"ok": true, "version": 1, "changed": 2})));
    assert_eq!(events.poke_at(1).await, 1);
    let failed = admin(server.address).post("/admin/db", &json!({"as": null, "ops": [insert("c", 1), insert("a", 1)]})).await;
    assert_eq!((failed.status, &failed.json()["error"]), (422, &json!("db-error")));
    let note = json!({"insert": {"table": "notes", "row": {"id": "n", "owner": "alice", "body": {"v": 1, "alg": "a", "keyId": "k1", "iv": "AA==", "ct": "AA=="}}}});
    let denied = admin(server.address).post("/admin/db", &json!({"as": {"userId": "bob"}, "ops": [note]})).await;
    assert_eq!((denied.status, denied.json()), (403, json!({"error": "plasma-authorization", "table": "notes", "action": "insert"})));
    assert_eq!(everything(alice(server.address)).await.rows.len(), 2);
}

#[tokio::test]
async fn errors_are_kept_for_whoever_runs_the_server() {
    let server = serve().await;
    let user = alice(server.address);
    user.push("g1", &[mutation("c1", 1, "nothing-of-this-name", Value::Null)]).await;
    user.post("/pull", &json!({"protocolVersion": 9})).await;
    let errors = admin(server.address).get("/admin/errors").await.json();
    let kinds: Vec<_> = errors["errors"].as_array().expect("a list").iter().map(|error| error["kind"].clone()).collect();
    assert_eq!(kinds, ["mutation-error", "protocol-mismatch"]);
    assert_eq!(errors["errors"][0]["cause"]["message"], "unknown mutator: nothing-of-this-name");
}

#[tokio::test]
async fn counters_move() {
    let server = serve().await;
    alice(server.address).push("g1", &[increment("c1", 1, "k", 1)]).await;
    let text = String::from_utf8(admin(server.address).get("/admin/metrics").await.body.to_vec()).unwrap();
    let pushes = text.lines().find(|line| line.starts_with("plasma_requests_total") && line.contains("push")).map(str::to_owned);
    assert!(pushes.as_ref().is_some_and(|line| line.ends_with(" 1")), "{pushes:?} in {text}");
}

#[tokio::test]
async fn a_webhook_that_nobody_takes_is_an_error_and_the_push_stays() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it has one");
    let server = serve_with(json!({"onPushed": {"webhook": format!("http://{nobody}/hook")}})).await;
    let answer = alice(server.address).push("g1", &[increment("c1", 1, "k", 1)]).await;
    assert_eq!(answer["lastMutationIDChanges"], json!({"c1": 1}));
    let listed = || async {
        let errors = admin(server.address).get("/admin/errors").await.json();
        errors["errors"].get(0).cloned()
    };
    let error = syncline_tests::eventually("the error is listed", listed).await;
    assert_eq!((&error["kind"], &error["clientGroupID"], &error["clientID"]), (&json!("onPushed-failed"), &json!("g1"), &json!("c1")));
    assert!(error["cause"].as_str().is_some_and(|cause| cause.starts_with("webhook: ")), "{error}");
    assert_eq!(everything(alice(server.address)).await.rows["counters/k"]["n"], 1);
}
