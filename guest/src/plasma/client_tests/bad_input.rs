//! Whatever a client sends, there is a well-formed answer.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::support::*;

/// Any JSON, small, with keys and values that mean something here among the rest.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
        prop::sample::select(vec!["7", "g", "c", "inc", "createTodo", "__proto__", "todos"]).prop_map(Json::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "v",
            "s",
            "order",
            "id",
            "clientID",
            "name",
            "args",
            "timestamp",
            "by",
            "where",
            "from",
            "insert",
            "table"
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(Json::from_iter),
        ]
    })
}

fn well_formed(reply: &Reply) {
    assert!((200..=599).contains(&reply.status) && reply.status != 500, "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/json");
    let body = reply.json();
    if reply.status >= 400 {
        assert!(body["error"].is_string(), "{reply:?}");
    }
}

proptest! {
    // Every case is a server of its own.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_body_is_too_strange(body in prop::collection::vec(any::<u8>(), 0..200), gzip in any::<bool>(), sized in any::<bool>()) {
        let server = Server::new();
        for path in ["/sync/push", "/sync/pull", "/sync/query"] {
            let ask = Ask { body: body.clone(), sized, ..Ask::post(path, &Json::Null) }.token("tok-alice");
            well_formed(&server.ask(&if gzip { ask.header("content-encoding", "gzip") } else { ask }));
        }
    }

    #[test]
    fn no_json_is_too_strange(value in any_json(), native in any::<bool>()) {
        let server = Server::new();
        let version = if native { "protocolVersion" } else { "pushVersion" };
        let pull_version = if native { "protocolVersion" } else { "pullVersion" };
        for (path, body) in [
            ("/push", json!({version: 1, "schemaVersion": "7", "clientGroupID": "g", "mutations": value.clone()})),
            ("/push", json!({version: 1, "schemaVersion": "7", "clientGroupID": "g", "mutations": [value.clone()]})),
            ("/push", json!({version: 1, "schemaVersion": "7", "clientGroupID": "g",
                "mutations": [{"id": 1, "clientID": "c", "name": "createTodo", "args": value.clone(), "timestamp": 0.5}]})),
            ("/push", json!({version: value.clone(), "schemaVersion": value.clone(), "clientGroupID": value.clone(), "mutations": []})),
            ("/pull", json!({pull_version: 1, "schemaVersion": "7", "clientGroupID": "g", "cookie": value.clone()})),
            ("/pull", value.clone()),
        ] {
            well_formed(&server.post(path, "tok-alice", &body));
        }
        for path in ["/admin/db", "/admin/compact", "/admin/migrate", "/admin/forget", "/admin/revoke"] {
            well_formed(&server.post(path, "admin-secret", &value));
        }
        well_formed(&server.post("/admin/db", "admin-secret", &json!({"ops": [value]})));
    }

    #[test]
    fn no_head_is_too_strange(path in "/sync(/[a-z%./]{0,12}){0,3}", query in "([a-zA-Z%=&+]{0,10}=?.{0,12}){0,3}", header in ".{0,24}", value in prop::collection::vec(any::<u8>(), 0..24)) {
        let server = Server::new();
        for method in ["GET", "POST", "PUT", "HEAD", "DELETE"] {
            let ask = Ask { method, ..Ask::get(&format!("{path}?{query}")) };
            well_formed(&server.ask(&ask.clone().header("authorization", &header)));
            let mut head = ask.head();
            for name in ["authorization", "origin", "content-length", "content-encoding", "accept-encoding", "last-event-id", "sec-websocket-protocol"] {
                head.headers.push(crate::http::header(name, value.clone()));
            }
            server.mount().admit(server.imports(), 7, head.clone());
            server.mount().upgrade(server.imports(), 8, head);
        }
        for url in [format!("/sync/poke?auth=tok-alice&{query}"), format!("/sync/poke?auth=tok-alice&mode=data&clientGroupID=g&cookie={query}")] {
            if let Err(reply) = server.stream(&url, &[("last-event-id", &header)]) {
                well_formed(&reply);
            }
        }
    }

    #[test]
    fn no_message_is_too_strange(value in any_json(), text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let server = Server::new();
        for message in [text, value.to_string(), json!({"type": value.clone()}).to_string(), json!({"type": "live.start", "id": value.clone(), "query": value}).to_string()] {
            let (peer, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
            peer.frames();
            peer.send(&message);
            prop_assert!(peer.close_code() == Some(4400) || peer.messages().iter().all(|reply| reply["type"].is_string()));
        }
        let connection = crate::registry::Connection { id: 9, attachment: bytes, cursors: Vec::new(), failure: None };
        server.mount().receive(server.imports(), connection, Vec::new());
    }
}
