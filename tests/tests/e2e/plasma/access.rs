//! Credentials, limits and manners of HTTP (docs/protocols/plasma.md, section 5).

use http::Method;
use serde_json::{Value, json};
use syncline_tests::http::request;
use syncline_tests::plasma::{User, alice, pull_body, push_body};

use super::{everything, increment, serve, serve_with};

#[tokio::test]
async fn nothing_is_given_without_credentials() {
    let server = serve().await;
    for token in ["", "wrong", "Bearer wrong"] {
        let stranger = User { address: server.address, token };
        for answer in [
            stranger.post("/push", &push_body("g1", &[increment("c1", 1, "k", 1)])).await,
            stranger.post("/pull", &pull_body("g1", &Value::Null)).await,
            stranger.get("/poke").await,
        ] {
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
            assert_eq!(answer.json()["error"], "unauthorized");
        }
    }
    let bearer = User { address: server.address, token: "Bearer tok-alice" };
    assert!(everything(bearer).await.rows.is_empty());
}

#[tokio::test]
async fn versions_that_do_not_fit_are_told_in_the_words_of_the_dialect() {
    let server = serve().await;
    let user = alice(server.address);
    let mut old = pull_body("g1", &Value::Null);
    old["schemaVersion"] = "6".into();
    assert_eq!(user.post("/pull", &old).await.json(), json!({"error": "VersionNotSupported", "versionType": "schema"}));
    old["pullVersion"] = 0.into();
    assert_eq!(user.post("/pull", &old).await.json(), json!({"error": "VersionNotSupported", "versionType": "pull"}));
    let native = json!({"protocolVersion": 1, "schemaVersion": "6", "clientGroupID": "g1", "cookie": null});
    let answer = user.post("/pull", &native).await;
    assert_eq!((answer.status, answer.json()), (409, json!({"error": "schema-mismatch", "expected": "7", "got": "6"})));
    let native = json!({"protocolVersion": 9, "schemaVersion": "7", "clientGroupID": "g1", "cookie": null});
    let answer = user.post("/pull", &native).await;
    assert_eq!((answer.status, answer.json()), (409, json!({"error": "protocol-mismatch", "expected": 1, "got": 9})));
}

#[tokio::test]
async fn what_is_too_large_by_its_head_is_refused_and_what_is_unknown_is_named() {
    let server = serve_with(json!({"maxPayloadBytes": 1000})).await;
    let user = alice(server.address);
    let large = push_body("g1", &[increment("c1", 1, &"k".repeat(2000), 1)]);
    let answer = user.post("/push", &large).await;
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("payload-too-large")));
    assert_eq!(answer.json()["limit"], 1000);
    assert_eq!(user.get("/nowhere").await.status, 404);
    let wrong = user.get("/push").await;
    assert_eq!((wrong.status, wrong.header("allow").contains("POST")), (405, true));
    for body in ["", "[]", "{", "\u{0}"] {
        let answer = request(server.address, &Method::POST, "/sync/push", &[("authorization", "tok-alice")], body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid-request")), "{body:?}");
    }
}

#[tokio::test]
async fn browsers_of_listed_origins_may_ask() {
    let server = serve_with(json!({"cors": {"origins": ["https://app.example"]}})).await;
    let asked = async |method: Method, origin: &str| {
        request(server.address, &method, "/sync/pull", &[("origin", origin), ("authorization", "wrong")], "").await
    };
    let preflight = asked(Method::OPTIONS, "https://app.example").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "https://app.example"));
    assert!(preflight.header("access-control-allow-headers").contains("x-replicache-requestid"));
    let refused = asked(Method::POST, "https://app.example").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, "https://app.example"));
    let stranger = asked(Method::POST, "https://other.example").await;
    assert_eq!(stranger.header("access-control-allow-origin"), "");
}
