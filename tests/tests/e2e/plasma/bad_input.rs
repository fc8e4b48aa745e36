//! Input that no well-behaved client sends gets an answer that says what is wrong with it, whatever the database.

use http::Method;
use serde_json::{Value, json};
use syncline_tests::http::request;
use syncline_tests::plasma::{User, admin, alice, pull_body, push_body};

use super::{everything, increment, serve, serve_with};
use crate::raw::RawConnection;

async fn query(user: User, condition: Value) -> (u16, Value) {
    let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": {"from": "counters", "where": condition}});
    let answer = user.post("/query", &body).await;
    (answer.status, answer.json())
}

/// What a server says to bytes, on a connection of its own.
async fn status_of(user: User, bytes: &str) -> u16 {
    let mut connection = RawConnection::connect(user.address).await;
    connection.send(bytes.as_bytes()).await;
    connection.response(false).await.status
}

#[tokio::test]
async fn what_the_host_refuses_for_the_mount_is_json_too() {
    let server = serve_with(json!({"cors": {"origins": ["https://app.example"]}})).await;
    let large = "y".repeat(70_000);
    let refused = request(server.address, &Method::GET, "/sync/health", &[("x", &large)], "").await;
    assert_eq!((refused.status, refused.json()), (431, json!({"error": "request-header-fields-too-large"})));
    assert_eq!((refused.header("content-type"), refused.header("cache-control")), ("application/json", "no-store"));
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example");
    let elsewhere = request(server.address, &Method::GET, "/nothing", &[("x", &large)], "").await;
    assert_eq!((elsewhere.status, elsewhere.body.len()), (431, 0));
    let head = request(server.address, &Method::HEAD, "/sync/health", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn queries_are_never_too_much_for_the_server_itself() {
    let server = serve().await;
    let user = alice(server.address);
    let compare = json!({"op": "=", "left": {"col": "id"}, "right": {"val": "x"}});
    let exists = |condition: Value| json!({"exists": {"table": "boards", "where": condition}});
    let nested = |levels: usize, around: &dyn Fn(Value) -> Value| (0..levels).fold(compare.clone(), |inner, _| around(inner));
    let either = |inner: Value| json!({"or": [inner, compare.clone()]});
    let values = |count: u32| (0..count).map(|number| json!(format!("k{number}"))).collect::<Vec<_>>();
    for (condition, expected) in [
        (nested(8, &exists), 200),
        (nested(30, &exists), 400),
        (json!({"and": vec![nested(8, &exists); 2]}), 200),
        (json!({"and": vec![exists(json!({"const": true})); 20]}), 200),
        (nested(110, &|inner| json!({"not": inner})), 200),
        (nested(50, &either), 200),
        (json!({"or": vec![compare.clone(); 399]}), 200),
        (json!({"or": vec![compare.clone(); 400]}), 400),
        (json!({"op": "in", "left": {"col": "id"}, "right": {"val": values(60_000)}}), 200),
        (json!({"op": "=", "left": {"col": "id"}, "right": {"val": "\u{0}"}}), 400),
    ] {
        let (status, answer) = query(user, condition).await;
        assert_eq!(status, expected, "{answer}");
        assert!(status == 200 || answer["reason"].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn many_writes_at_once_are_done_or_refused_with_a_reason() {
    let server = serve_with(json!({"mutatorTimeoutMs": 300})).await;
    let write = async |count: usize| {
        let insert = |number| json!({"upsert": {"table": "counters", "row": {"id": format!("k{number}"), "n": 1}}});
        let operations: Vec<Value> = (0..count).map(insert).collect();
        admin(server.address).post("/admin/db", &json!({"as": null, "ops": operations})).await
    };
    // Under Spin a transaction may stay open longer than 60,000 take on a fast machine.
    let many = if server.in_process().is_some() { 60_000 } else { 120_000 };
    let refused = write(many).await;
    assert_eq!((refused.status, &refused.json()["error"]), (422, &json!("db-error")), "{refused:?}");
    let expected = format!("{many} operations took longer");
    assert!(refused.json()["reason"].as_str().is_some_and(|reason| reason.starts_with(&expected)), "{refused:?}");
    assert!(everything(alice(server.address)).await.rows.is_empty());
    let done = write(100).await;
    assert_eq!((done.status, done.json()), (200, json!({"ok": true, "version": 1, "changed": 100})));
}

#[tokio::test]
async fn credentials_and_ids_with_a_zero_character_are_refused_on_every_database() {
    let tokens = json!({"tok-zero": {"userId": "a\u{0}b"}, "tok-alice": {"userId": "alice"}});
    let server = serve_with(json!({"auth": {"mode": "static", "tokens": tokens}})).await;
    let zero = User { address: server.address, token: "tok-zero" };
    for answer in [
        zero.post("/pull", &pull_body("g", &Value::Null)).await,
        zero.post("/push", &push_body("g", &[increment("c", 1, "k", 1)])).await,
        zero.get("/poke").await,
    ] {
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("unauthorized")));
    }
    let user = alice(server.address);
    assert_eq!(user.post("/pull", &pull_body("g\u{0}", &Value::Null)).await.status, 400);
    assert_eq!(user.post("/push", &push_body("g", &[increment("c\u{0}", 1, "k", 1)])).await.status, 400);
    let pushed = user.push("g", &[increment("c", 1, "\u{0}", 1), increment("c", 2, "k", 1)]).await;
    assert_eq!((&pushed["results"][0]["status"], &pushed["results"][1]["status"]), (&json!("error"), &json!("applied")));
}

#[tokio::test]
async fn arguments_that_cannot_be_read_do_not_hold_up_what_follows() {
    let server = serve().await;
    let user = alice(server.address);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mutation = |id: u32, args: &str| format!(r#"{{"id":{id},"clientID":"c","name":"inc","args":{args},"timestamp":1}}"#);
    let mutations = [mutation(1, r#"{"id":"\ud83d","by":1}"#), mutation(2, &deep), mutation(3, r#"{"id":"k","by":1}"#)].join(",");
    let body = format!(r#"{{"pushVersion":1,"schemaVersion":"7","clientGroupID":"g","mutations":[{mutations}]}}"#);
    let headers = [("authorization", user.token)];
    let answer = syncline_tests::http::request(server.address, &http::Method::POST, "/sync/push", &headers, body).await;
    assert_eq!((answer.status, &answer.json()["lastMutationIDChanges"]), (200, &json!({"c": 3})), "{answer:?}");
    let statuses: Vec<_> = answer.json()["results"].as_array().expect("a list").iter().map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, ["error", "error", "applied"]);
    assert_eq!(everything(user).await.rows.len(), 1);
}

#[tokio::test]
async fn a_body_whose_chunks_are_none_is_a_bad_request() {
    let server = serve().await;
    let head = "POST /sync/pull HTTP/1.1\r\nhost: a\r\nauthorization: tok-alice\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunks in ["zz\r\n", "-1\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        assert_eq!(status_of(alice(server.address), &format!("{head}{chunks}")).await, 400, "{chunks:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_open_to_its_machine_is_not_open_to_pages_of_strangers() {
    let auth = json!({"mode": "none", "allowInsecure": true, "loopbackOnly": true, "ctx": {"userId": "demo"}});
    let server = serve_with(json!({"auth": auth, "cors": {"origins": []}})).await;
    let user = alice(server.address);
    let body = pull_body("g", &Value::Null).to_string();
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    for (host, origin, is_let_in) in [
        ("localhost:8787", "", true),
        ("localhost:8787", "origin: http://localhost:8787\r\n", true),
        ("evil.example:8787", "", false),
        ("evil.example:8787", "origin: http://evil.example:8787\r\n", false),
        ("127.0.0.1:8787", "origin: https://evil.example\r\n", false),
        ("127.0.0.1:8787", "origin: null\r\n", false),
    ] {
        let head = format!("host: {host}\r\n{origin}");
        let length = body.len();
        let plain = format!("POST /sync/pull HTTP/1.1\r\n{head}content-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}");
        assert_eq!(status_of(user, &plain).await, if is_let_in { 200 } else { 401 }, "{head}");
        if !server.has_sockets() {
            continue;
        }
        let mut socket = RawConnection::connect(server.address).await;
        socket.send(format!("GET /sync/ws HTTP/1.1\r\n{head}{upgrade}\r\n\r\n").as_bytes()).await;
        assert_eq!(socket.response(true).await.status, if is_let_in { 101 } else { 401 }, "{head}");
    }
}

#[tokio::test]
async fn a_revoked_stream_is_told_why_it_ends() {
    let server = serve().await;
    let mut events = alice(server.address).events("").await;
    events.next_of("hello").await;
    assert_eq!(admin(server.address).post("/admin/revoke", &json!({"userId": "alice"})).await.status, 200);
    assert_eq!(events.next_of("error").await.json(), json!({"error": "unauthorized"}));
}
