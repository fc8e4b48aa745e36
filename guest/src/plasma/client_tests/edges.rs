//! Input at the edge of what is allowed: refused where it is wrong, with a reason, and nothing else with it.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::encoding::base64url;

/// JSON text of arrays within one another.
fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// A push of `inc` for each text of arguments, as text that no JSON library writes.
fn raw_push(version: &str, args: &[String]) -> Ask {
    let mutation = |(index, args): (usize, &String)| {
        let id = index + 1;
        format!(r#"{{"id":{id},"clientID":"c","name":"inc","args":{args},"timestamp":1}}"#)
    };
    let mutations: Vec<_> = args.iter().enumerate().map(mutation).collect();
    let body = format!(r#"{{"{version}":1,"schemaVersion":"7","clientGroupID":"g","mutations":[{}]}}"#, mutations.join(","));
    Ask { body: body.into_bytes(), ..Ask::post("/sync/push", &Json::Null) }.token("tok-alice")
}

#[test]
fn arguments_that_cannot_be_read_fail_their_mutation_alone() {
    for version in ["pushVersion", "protocolVersion"] {
        let server = Server::new();
        let good = r#"{"id":"k","by":1}"#.to_owned();
        let unreadable = [r#"{"id":"\ud83d"}"#.into(), nested(101), nested(126), nested(5000), r#"{"id":"k","by":1e999}"#.into()];
        let mut all = vec![good.clone()];
        all.extend(unreadable.clone());
        all.push(good);
        let reply = server.ask(&raw_push(version, &all));
        assert_eq!((reply.status, &reply.json()["lastMutationIDChanges"]), (200, &json!({"c": 7})), "{reply:?}");
        let statuses: Vec<_> = reply.json()["results"].as_array().unwrap().iter().map(|result| result["status"].clone()).collect();
        assert_eq!(statuses, ["applied", "error", "error", "error", "error", "error", "applied"]);
        let message = |index: usize| reply.json()["results"][index]["error"]["message"].as_str().unwrap().to_owned();
        assert!(message(1).starts_with("args cannot be read: "), "{}", message(1));
        assert!(message(3).contains("args"), "{}", message(3));
        assert_eq!(server.pull("tok-alice", "g", &Json::Null)["patch"][1]["value"], json!({"id": "k", "n": 2}));
        // What is processed stays so.
        let again = server.ask(&raw_push(version, &unreadable[..1]));
        assert_eq!(again.json()["results"][0]["status"], "duplicate");
    }
}

#[test]
fn arguments_may_be_nested_a_hundred_levels_deep() {
    let server = Server::new();
    let with = |levels: usize| format!(r#"{{"id":"k","by":1,"more":{}}}"#, nested(levels));
    let reply = server.ask(&raw_push("pushVersion", &[with(99), with(100)])).json();
    assert_eq!((&reply["results"][0]["status"], &reply["results"][1]["status"]), (&json!("applied"), &json!("error")));
    assert_eq!(reply["results"][1]["error"]["message"], "args are nested deeper than 100 levels");
}

#[test]
fn elsewhere_in_a_push_what_cannot_be_read_refuses_it() {
    let server = Server::new();
    let whole = r#"{"pushVersion":1,"schemaVersion":"7","clientGroupID":"g","mutations":[{"id":1,"clientID":"c","name":"inc","args":{},"timestamp":1}]}"#;
    let surrogate = r#""\ud83d""#;
    for body in [
        whole.replace(r#""g""#, surrogate),
        whole.replace(r#""c""#, surrogate),
        whole.replace(r#""inc""#, surrogate),
        whole.replace(r#"{"pushVersion""#, &format!(r#"{{"profileID":{surrogate},"pushVersion""#)),
        whole.replace("[{", &format!("{}[{{", "[".repeat(200))),
        format!("{whole}x"),
        whole.replace(r#""args":{}"#, r#""args":{"a":}"#),
    ] {
        let reply = server.ask(&Ask { body: body.clone().into_bytes(), ..Ask::post("/sync/push", &Json::Null) }.token("tok-alice"));
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid-request")), "{body}");
    }
    assert_eq!(server.get("/admin/stats", "admin-secret").json()["version"], 0);
}

#[test]
fn a_json_column_takes_a_hundred_levels() {
    let schema = json!({"tables": {"t": {"columns": {"id": {"type": "text"}, "j": {"type": "json"}}, "primaryKey": ["id"]}}});
    let changes = json!({"schema": schema, "seed": null, "mutators": null, "namedQueries": null, "blobs": null});
    let server = Server::with(changes);
    let insert = |levels: usize| {
        let row = json!({"id": levels.to_string(), "j": serde_json::from_str::<Json>(&nested(levels)).unwrap()});
        server.post("/admin/db", "admin-secret", &json!({"ops": [{"insert": {"table": "t", "row": row}}]}))
    };
    assert_eq!(insert(100).status, 200);
    let refused = insert(101);
    assert_eq!((refused.status, &refused.json()["reason"]), (422, &json!("column j takes no more than 100 levels of nesting")));
}

#[test]
fn a_body_in_a_coding_that_nobody_undoes_is_refused_before_it_is_read() {
    let server = Server::new();
    for coding in ["br", "deflate", "zstd", "gzip, gzip", "br, gzip", "x"] {
        let reply =
            server.ask(&Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("tok-alice").header("content-encoding", coding));
        let expected = json!({"error": "unsupported-content-encoding", "reason": "bodies come as they are or in gzip"});
        assert_eq!((reply.status, reply.json(), reply.header("accept-encoding")), (415, expected, "gzip"), "{coding}");
        assert!(!server.body_was_read.get());
    }
    for coding in ["identity", "IDENTITY", ""] {
        let reply =
            server.ask(&Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("tok-alice").header("content-encoding", coding));
        assert_eq!(reply.status, 200, "{coding}");
    }
}

#[test]
fn an_order_that_could_not_grow_is_no_cookie() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    for order in ["1.79e308", "9007199254740992", "-1", "\"1\"", "null"] {
        let body = format!(r#"{{"pullVersion":1,"schemaVersion":"7","clientGroupID":"g","cookie":{{"order":{order},"v":0,"s":0}}}}"#);
        let reply = server.ask(&Ask { body: body.into_bytes(), ..Ask::post("/sync/pull", &Json::Null) }.token("tok-alice"));
        assert_eq!((reply.status, &reply.json()["reason"]), (400, &json!("cookie is malformed")), "{order}");
    }
    let largest = json!({"order": 9_007_199_254_740_991_u64, "v": 0, "s": 0});
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    // Nothing greater could be issued that would be taken back: the client is to begin anew, which goes on.
    assert_eq!(server.pull("tok-alice", "g", &largest), json!({"error": "ClientStateNotFound"}));
    let below = json!({"order": 9_007_199_254_740_990_u64, "v": 0, "s": 0});
    let last = server.pull("tok-alice", "g", &below)["cookie"].clone();
    assert_eq!(last["order"], largest["order"]);
    assert_eq!(server.pull("tok-alice", "g", &last)["cookie"], last, "nothing is new");
    assert_eq!(server.pull("tok-alice", "g", &Json::Null)["cookie"], 1);
}

#[test]
fn credentials_with_a_zero_character_are_no_good() {
    for ctx in [json!({"userId": "a\u{0}b"}), json!({"userId": "a", "teams": ["\u{0}"]}), json!({"userId": "a", "\u{0}": 1})] {
        let server = Server::with(json!({"auth": {"mode": "static", "tokens": {"tok": ctx}}}));
        for reply in [server.post("/pull", "tok", &pull_body("g", &Json::Null)), server.push("tok", "g", "c", 1, &[inc("k")])] {
            let expected = json!({"error": "unauthorized", "reason": "the credentials hold U+0000"});
            assert_eq!((reply.status, reply.json()), (401, expected));
        }
    }
}

#[test]
fn ids_and_values_with_a_zero_character_are_refused() {
    let server = Server::new();
    assert_eq!(server.push("tok-alice", "g\u{0}", "c", 1, &[inc("k")]).status, 400);
    assert_eq!(server.push("tok-alice", "g", "c\u{0}", 1, &[inc("k")]).status, 400);
    assert_eq!(server.post("/pull", "tok-alice", &pull_body("g\u{0}", &Json::Null)).status, 400);
    assert_eq!(server.stream("/sync/poke?auth=tok-alice&clientGroupID=%00", &[]).err().unwrap().status, 400);
    let pushed = server.push("tok-alice", "g", "c", 1, &[inc("\u{0}"), ("createTodo", json!({"id": "t", "title": "\u{0}"}))]).json();
    assert_eq!((&pushed["results"][0]["status"], &pushed["results"][1]["status"]), (&json!("error"), &json!("error")));
    for right in [json!({"val": "\u{0}"}), json!({"param": "p"})] {
        let query = json!({"from": "counters", "where": {"op": "=", "left": {"col": "id"}, "right": right}});
        let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query, "params": {"p": "\u{0}"}});
        assert_eq!(server.post("/query", "tok-alice", &body).status, 400);
    }
}

#[test]
fn a_query_says_what_it_has_too_much_of() {
    let server = Server::new();
    let reason = |condition: Json| {
        let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": {"from": "counters", "where": condition}});
        let reply = server.post("/query", "tok-alice", &body);
        reply.json()["reason"].as_str().map(|reason| (reply.status, reason.to_owned()))
    };
    let exists = |condition: Json| json!({"exists": {"table": "boards", "where": condition}});
    let deep = |levels: usize| (0..levels).fold(json!({"const": true}), |condition, _| exists(condition));
    let wide = |count: usize| json!({"or": vec![exists(json!({"const": true})); count]});
    assert_eq!((reason(deep(8)), reason(wide(20))), (None, None));
    for (condition, path) in [(deep(9), "where.exists"), (wide(21), "where.or[20]")] {
        let (status, reason) = reason(condition).unwrap();
        assert_eq!(status, 400);
        assert!(reason.starts_with(path) && reason.ends_with("more than 20 exists, or more than 8 within one another"), "{reason}");
    }
    // Side by side they are not within one another.
    assert_eq!(reason(json!({"and": [deep(8), deep(8)]})), None);
}

#[test]
fn the_admin_token_is_a_bearer_token() {
    let server = Server::new();
    let status = |value: &str| server.ask(&Ask::get("/sync/admin/stats").header("authorization", value)).status;
    for good in ["Bearer admin-secret", "bearer admin-secret", "BEARER  admin-secret"] {
        assert_eq!(status(good), 200, "{good}");
    }
    for bad in ["admin-secret", "Basic admin-secret", "Bearer", "Bearer ", "Bearer admin-secret2", ""] {
        assert_eq!(status(bad), 401, "{bad}");
    }
}

#[test]
fn a_client_that_offers_subprotocols_must_offer_the_one_that_is_spoken() {
    let server = Server::new();
    let with = |offered: &str| server.socket("/sync/ws?auth=tok-alice", &[("sec-websocket-protocol", offered)]).map(|(_, chosen)| chosen);
    assert_eq!(server.socket("/sync/ws?auth=tok-alice", &[]).map(|(_, chosen)| chosen), Ok(None));
    assert_eq!(with("chat, plasma.v1"), Ok(Some("plasma.v1".into())));
    let only_credentials = format!("auth.{}", base64url("tok-alice"));
    for offered in ["chat", "plasma.v2", "PLASMA.V1", &only_credentials] {
        let reply = with(offered).unwrap_err();
        assert_eq!((reply.status, &reply.json()["reason"]), (400, &json!("of subprotocols plasma.v1 must be offered")), "{offered}");
    }
    let stranger = server.socket("/sync/ws", &[("sec-websocket-protocol", "chat")]).map(|_| ()).unwrap_err();
    assert_eq!(stranger.status, 401);
}

#[test]
fn a_write_of_nothing_takes_no_version() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    let (peer, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
    peer.frames();
    for ctx in [Json::Null, json!({"userId": "alice"})] {
        let reply = server.post("/admin/db", "admin-secret", &json!({"as": ctx, "ops": []}));
        assert_eq!((reply.status, reply.json()), (200, json!({"ok": true, "version": 1, "changed": 0})));
    }
    assert!(peer.frames().is_empty());
    assert_eq!(server.get("/admin/stats", "admin-secret").json()["version"], 1);
}

#[test]
fn pages_of_strangers_get_nothing_from_a_server_that_is_open_to_its_machine() {
    let auth = json!({"mode": "none", "allowInsecure": true, "loopbackOnly": true, "ctx": {"userId": "demo"}});
    let server = Server::with(json!({"auth": auth, "cors": {"origins": ["http://localhost:5173"]}}));
    let ask = |headers: &[(&str, &str)]| {
        let body = Ask::post("/sync/pull", &pull_body("g", &Json::Null)).header("content-type", "text/plain");
        let socket = server.socket("/sync/ws", headers).map_or_else(|reply| reply.status, |_| 101);
        let reply = server.ask(&headers.iter().fold(body, |ask, (name, value)| ask.header(name, value)));
        assert_eq!(reply.status == 200, socket == 101, "{headers:?}");
        reply.status
    };
    for good in [
        &[][..],
        &[("host", "127.0.0.1:8787")],
        &[("host", "localhost:8787"), ("origin", "http://localhost:8787")],
        &[("host", "[::1]:8787"), ("origin", "http://localhost:5173")],
    ] {
        assert_eq!(ask(good), 200, "{good:?}");
    }
    for bad in [
        &[("host", "evil.example:8787")][..],
        &[("host", "evil.example:8787"), ("origin", "http://evil.example:8787")],
        &[("host", "127.0.0.1:8787"), ("origin", "https://evil.example")],
        &[("host", "127.0.0.1:8787"), ("origin", "null")],
        &[("host", "127.0.0.1:8787"), ("origin", "http://127.0.0.1:9999")],
    ] {
        assert_eq!(ask(bad), 401, "{bad:?}");
    }
}
