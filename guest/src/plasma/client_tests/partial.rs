//! Partial sync: pulls of named queries.

use serde_json::{Value as Json, json};

use super::support::*;

fn server() -> Server {
    let owner = json!({"op": "=", "left": {"col": "owner"}, "right": {"param": "who"}});
    let commented = json!({"exists": {"table": "comments", "where": {"op": "=", "left": {"col": "todoId"}, "right": {"outer": "id"}}}});
    Server::with(json!({"namedQueries": {
        "of": {"from": "todos", "where": owner}, "commented": {"from": "todos", "where": commented},
        "counters": {"from": "counters"}, "top": {"from": "todos", "limit": 1},
    }}))
}

fn body(cookie: &Json, queries: &Json) -> Json {
    let mut body = pull_body("g", cookie);
    body["queries"] = queries.clone();
    body
}

fn pull(server: &Server, cookie: &Json, queries: &Json) -> Json {
    let reply = server.post("/pull", "tok-bob", &body(cookie, queries));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Keys that are put, and keys that are deleted.
fn keys(reply: &Json) -> (Vec<&str>, Vec<&str>) {
    let of = |kind: &str| {
        reply["patch"].as_array().unwrap().iter().filter(|op| op["op"] == *kind).map(|op| op["key"].as_str().unwrap()).collect()
    };
    (of("put"), of("del"))
}

fn of(who: &str) -> Json {
    json!({"query": "of", "params": {"who": who}})
}

#[test]
fn a_pull_of_named_queries_gives_their_rows_and_no_others() {
    let server = server();
    server.push("tok-alice", "a", "c", 1, &[todo("t1", "x"), inc("k")]);
    server.push("tok-carol", "b", "d", 1, &[todo("t2", "x")]);
    let first = pull(&server, &Json::Null, &json!([of("alice")]));
    assert_eq!((keys(&first).0, &first["cookie"]), (vec!["todos/t1"], &json!(3)));
    server.push(
        "tok-alice",
        "a",
        "c",
        3,
        &[("setTitle", json!({"id": "t1", "title": "y"})), inc("k"), ("setTitle", json!({"id": "t2", "title": "y"}))],
    );
    let next = pull(&server, &first["cookie"], &json!([of("alice")]));
    assert_eq!((keys(&next).0, &next["reset"]), (vec!["todos/t1"], &json!(false)));
    // Other queries are another view: it begins anew.
    let other = pull(&server, &next["cookie"], &json!([of("carol"), {"query": "counters"}]));
    assert_eq!((keys(&other).0, &other["reset"]), (vec!["counters/k", "todos/t2"], &json!(true)));
    let same = pull(&server, &other["cookie"], &json!([of("carol"), {"query": "counters"}]));
    assert_eq!((same["patch"].as_array().unwrap().len(), &same["reset"]), (0, &json!(false)));
    // Two queries of one table, with parameters of one name.
    let both = pull(&server, &same["cookie"], &json!([of("carol"), of("alice")]));
    assert_eq!(keys(&both).0.len(), 2);
}

#[test]
fn rows_come_and_go_with_the_rows_that_a_query_asks_for() {
    let server = server();
    server.push("tok-alice", "a", "c", 1, &[todo("t1", "x")]);
    let queries = json!([{"query": "commented"}]);
    let first = pull(&server, &Json::Null, &queries);
    assert_eq!(keys(&first).0, [""; 0]);
    server.push("tok-alice", "a", "c", 2, &[("addComment", json!({"id": "x", "todoId": "t1", "body": "b"}))]);
    let next = pull(&server, &first["cookie"], &queries);
    assert_eq!(keys(&next).0, ["todos/t1"]);
    let ops = json!({"as": null, "ops": [{"delete": {"table": "comments", "pk": ["x"]}}]});
    assert_eq!(server.post("/admin/db", "admin-secret", &ops).status, 200);
    let gone = pull(&server, &next["cookie"], &queries);
    assert!(keys(&gone).1.contains(&"todos/t1"), "{gone}");
}

#[test]
fn queries_may_stand_in_the_url_and_must_say_only_which_rows() {
    let server = server();
    server.push("tok-alice", "a", "c", 1, &[todo("t1", "x"), inc("k")]);
    let url = "/sync/pull?queries=%5B%7B%22query%22%3A%22counters%22%7D%5D";
    let reply = server.ask(&Ask::post(url, &pull_body("g", &Json::Null)).token("tok-bob"));
    assert_eq!(keys(&reply.json()).0, ["counters/k"]);
    let top = json!({"query": "top"});
    for wrong in [
        json!([]),
        json!({}),
        json!([{}]),
        json!([top]),
        json!([{"query": "nobody"}]),
        json!([{"query": "of"}]),
        json!([{"query": {"from": "todos"}}]),
    ] {
        assert_eq!(server.post("/pull", "tok-bob", &body(&Json::Null, &wrong)).status, 400, "{wrong}");
    }
}
