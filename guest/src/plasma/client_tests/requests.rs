//! Section 5: paths, credentials, the order of checks, versions, ids, CORS, gzip.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::encoding::base64url;
use crate::gzip;

#[test]
fn unknown_paths_and_methods_are_refused() {
    let server = Server::new();
    for path in
        ["/sync", "/sync/", "/sync/nope", "/sync/push/", "/sync/push/x", "/sync/admin", "/sync/admin/nope", "/other/push", "/sync/blob/"]
    {
        let reply = server.ask(&Ask::get(path).token("admin-secret"));
        let expected = if path == "/sync/blob/" {
            (401, json!({"error": "unauthorized", "reason": "invalid token"}))
        } else {
            (404, json!({"error": "not-found"}))
        };
        assert_eq!((reply.status, reply.json()), expected, "{path}");
    }
    for (path, allow) in [("/push", "POST, OPTIONS"), ("/pull", "POST, OPTIONS"), ("/query", "POST, OPTIONS")] {
        let reply = server.get(path, "tok-alice");
        assert_eq!((reply.status, reply.json()), (405, json!({"error": "method-not-allowed"})));
        assert_eq!(reply.header("allow"), allow);
    }
    assert_eq!(server.post("/poke", "tok-alice", &json!({})).header("allow"), "GET, OPTIONS");
    assert_eq!(server.post("/health", "tok-alice", &json!({})).status, 405);
    assert_eq!(server.ask(&Ask { method: "HEAD", ..Ask::get("/sync/ws") }).status, 405);
}

#[test]
fn health_needs_no_credentials() {
    let reply = Server::new().ask(&Ask::get("/sync/health"));
    assert_eq!(Server::new().ask(&Ask { method: "HEAD", ..Ask::get("/sync/health") }).status, 200);
    assert_eq!((reply.status, reply.json()), (200, json!({"ok": true, "protocolVersion": 1, "schemaVersion": "7", "version": 0})));
    assert_eq!((reply.header("content-type"), reply.header("cache-control")), ("application/json", "no-store"));
}

#[test]
fn the_mount_lies_where_it_is_told() {
    let server = Server::with(json!({"basePath": "/api/plasma"}));
    assert_eq!(server.ask(&Ask::get("/api/plasma/health")).status, 200);
    assert_eq!(server.ask(&Ask::get("/sync/health")).status, 404);
    let root = Server::with(json!({"basePath": "", "path": "/"}));
    assert_eq!(root.ask(&Ask::get("/health")).status, 200);
}

#[test]
fn a_token_may_stand_in_the_header_with_or_without_bearer() {
    let server = Server::new();
    let pull = |value: &str| server.ask(&Ask::post("/sync/pull", &pull_body("g", &Json::Null)).header("authorization", value)).status;
    for value in ["Bearer tok-alice", "tok-alice", "bearer tok-alice", "BEARER   tok-alice"] {
        assert_eq!(pull(value), 200, "{value}");
    }
    for value in ["Bearer", "Bearer ", "Bearer nope", "Basic tok-alice", "tok-alice2", "", "Bearer admin-secret"] {
        assert_eq!(pull(value), 401, "{value}");
    }
}

#[test]
fn no_credentials_are_a_401_with_a_challenge_on_every_path() {
    let server = Server::new();
    let hash = "a".repeat(64);
    let all = [
        "POST /push",
        "POST /pull",
        "POST /query",
        "POST /snapshot",
        "GET /poke",
        "GET /ws",
        "GET /live",
        "GET /admin/errors",
        "POST /admin/db",
    ];
    let blobs = [format!("GET /blob/{hash}"), format!("PUT /blob/{hash}"), format!("POST /blob/{hash}/upload-url")];
    for request in all.into_iter().map(str::to_owned).chain(blobs) {
        let (method, path) = request.split_once(' ').unwrap();
        let method = ["GET", "POST", "PUT"].into_iter().find(|known| *known == method).unwrap();
        let reply = server.ask(&Ask { method, ..Ask::get(&format!("/sync{path}")) });
        assert_eq!((reply.status, reply.json()["error"].as_str()), (401, Some("unauthorized")), "{request}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert!(!server.body_was_read.get());
    }
    assert!(
        server.get("/admin/errors", "admin-secret").json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .all(|error| error["kind"] == "unauthorized")
    );
}

#[test]
fn tokens_in_the_query_or_a_subprotocol_open_only_what_cannot_set_headers() {
    let server = Server::new();
    assert!(server.stream("/sync/poke?auth=tok-alice", &[]).is_ok());
    assert!(server.socket("/sync/ws?auth=tok-alice", &[]).is_ok());
    let offered = format!("plasma.v1, auth.{}", base64url("tok-alice"));
    let (_, subprotocol) = server.socket("/sync/ws", &[("sec-websocket-protocol", &offered)]).ok().unwrap();
    assert_eq!(subprotocol.as_deref(), Some("plasma.v1"));
    assert_eq!(server.ask(&Ask::post("/sync/pull?auth=tok-alice", &pull_body("g", &Json::Null))).status, 401);
    assert_eq!(server.stream("/sync/poke?auth=tok-alice", &[("authorization", "nope")]).err().unwrap().status, 401);
}

#[test]
fn what_the_head_says_is_judged_before_the_body_is_read() {
    let server = Server::new();
    let huge = Ask { body: vec![b' '; 1_048_577], ..Ask::get("/sync/push") };
    let huge = Ask { method: "POST", ..huge };
    // Size before credentials.
    let reply = server.ask(&huge);
    assert_eq!((reply.status, reply.json()), (413, json!({"error": "payload-too-large", "limit": 1_048_576, "got": 1_048_577})));
    assert!(!server.body_was_read.get());
    // Credentials before the limit, the limit before the body.
    let malformed = |path: &str, token: &str| server.ask(&Ask { method: "POST", body: b"{".to_vec(), ..Ask::get(path) }.token(token));
    assert_eq!(malformed("/sync/pull?limit=0", "nope").status, 401);
    assert_eq!(malformed("/sync/pull?limit=0", "tok-alice").json()["reason"], "limit must be a positive integer");
    assert_eq!(malformed("/sync/pull", "tok-alice").json(), json!({"error": "invalid-request", "reason": "the body is not JSON"}));
    assert_eq!(server.ask(&Ask { method: "POST", ..Ask::get("/sync/pull") }.token("tok-alice")).status, 400);
    assert_eq!(server.post("/pull", "tok-alice", &json!([])).status, 400);
}

#[test]
fn a_body_without_a_size_is_let_through_up_to_the_hard_stop() {
    let server = Server::with(json!({"hostMaxBodyBytes": 1_200_000}));
    let mut body = pull_body("g", &Json::Null);
    body["padding"] = "x".repeat(1_100_000).into();
    let chunked = Ask { sized: false, ..Ask::post("/sync/pull", &body).token("tok-alice") };
    assert_eq!(server.ask(&chunked).status, 200);
    body["padding"] = "x".repeat(1_200_000).into();
    let reply = server.ask(&Ask { sized: false, ..Ask::post("/sync/pull", &body).token("tok-alice") });
    assert_eq!((reply.status, reply.json()["limit"].as_u64()), (413, Some(1_200_000)));
}

#[test]
fn bodies_travel_in_gzip_both_ways_within_the_same_limits() {
    let server = Server::new();
    let deflated = |body: &Json| {
        Ask { body: gzip::deflate(body.to_string().as_bytes()), ..Ask::post("/sync/pull", body) }.header("content-encoding", "gzip")
    };
    assert_eq!(server.ask(&deflated(&pull_body("g", &Json::Null)).token("tok-alice")).status, 200);
    let mut bomb = pull_body("g", &Json::Null);
    bomb["padding"] = "x".repeat(2_000_000).into();
    let reply = server.ask(&deflated(&bomb).token("tok-alice"));
    assert_eq!((reply.status, reply.json()["error"].as_str()), (413, Some("payload-too-large")));
    let broken = Ask::post("/sync/pull", &json!({})).header("content-encoding", "gzip").token("tok-alice");
    assert_eq!(server.ask(&broken).json()["reason"], "the body is not gzip");

    let titles: Vec<_> = (0..40).map(|number| todo(&format!("t{number}"), "a title that is long enough")).collect();
    server.push("tok-alice", "g", "c", 1, &titles);
    let ask = Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("tok-alice");
    let (plain, compressed) = (server.ask(&ask), server.ask(&ask.clone().header("accept-encoding", "gzip, br")));
    assert_eq!((plain.header("content-encoding"), compressed.header("content-encoding")), ("", "gzip"));
    assert_eq!(compressed.header("vary"), "Accept-Encoding");
    assert_eq!(plain.json()["patch"], compressed.json()["patch"]);
    assert_eq!(server.ask(&Ask::get("/sync/health").header("accept-encoding", "gzip")).header("content-encoding"), "", "it is small");
}

#[test]
fn pages_of_other_origins_are_let_in_where_they_are_listed() {
    let server = Server::with(json!({"cors": {"origins": ["https://a.example"]}}));
    let preflight = |origin: &str| server.ask(&Ask { method: "OPTIONS", ..Ask::get("/sync/push") }.header("origin", origin));
    let reply = preflight("https://a.example");
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(reply.header("access-control-allow-methods"), "GET, HEAD, POST, PUT, OPTIONS");
    assert!(reply.header("access-control-allow-headers").contains("x-replicache-requestid"));
    assert_eq!(reply.header("access-control-max-age"), "86400");
    assert_eq!(preflight("https://b.example").header("access-control-allow-origin"), "");
    let errors = [
        Ask::get("/sync/nope"),
        Ask::get("/sync/push"),
        Ask::post("/sync/push", &json!({})),
        Ask::post("/sync/push", &json!({})).token("tok-alice"),
        Ask::get("/sync/poke"),
        Ask::get("/sync/health"),
    ];
    for ask in errors {
        let reply = server.ask(&ask.clone().header("origin", "https://a.example"));
        assert_eq!(reply.header("access-control-allow-origin"), "https://a.example", "{reply:?}");
        assert_eq!((reply.header("vary"), reply.header("access-control-expose-headers")), ("Origin", "etag, content-range, accept-ranges"));
        assert_eq!(server.ask(&ask).header("access-control-allow-origin"), "");
    }
    let any = Server::new();
    assert_eq!(any.ask(&Ask::get("/sync/health").header("origin", "null")).header("access-control-allow-origin"), "null");
}

#[test]
fn each_dialect_learns_of_other_versions_in_its_own_words() {
    let server = Server::new();
    let mut got = Vec::new();
    for (path, body) in [
        ("/push", json!({"pushVersion": 2, "schemaVersion": "7"})),
        ("/pull", json!({"pullVersion": 0, "schemaVersion": "6"})),
        ("/pull", json!({"protocolVersion": 9, "schemaVersion": "6"})),
        ("/push", json!({"protocolVersion": 1, "schemaVersion": "6"})),
        ("/pull", json!({"pullVersion": 1, "schemaVersion": "6"})),
    ] {
        let reply = server.post(path, "tok-alice", &body);
        got.push((reply.status, reply.json()));
    }
    assert_eq!(
        got,
        [
            (200, json!({"error": "VersionNotSupported", "versionType": "push"})),
            (200, json!({"error": "VersionNotSupported", "versionType": "pull"})),
            (409, json!({"error": "protocol-mismatch", "expected": 1, "got": 9})),
            (409, json!({"error": "schema-mismatch", "expected": "7", "got": "6"})),
            (200, json!({"error": "VersionNotSupported", "versionType": "schema"})),
        ]
    );
    for body in [
        json!({"schemaVersion": "7"}),
        json!({"pushVersion": 1, "protocolVersion": 1, "schemaVersion": "7"}),
        json!({"pullVersion": 1, "schemaVersion": "7"}),
        json!({"pushVersion": "1", "schemaVersion": "7"}),
        json!({"pushVersion": 1.5, "schemaVersion": "7"}),
        json!({"pushVersion": null, "schemaVersion": "7"}),
        json!({"pushVersion": 1, "schemaVersion": 7}),
        json!({"pushVersion": 1}),
    ] {
        assert_eq!(server.post("/push", "tok-alice", &body).status, 400, "{body}");
    }
}

#[test]
fn shapes_are_checked_and_nothing_runs_where_they_are_wrong() {
    let server = Server::new();
    let wrong = |change: &dyn Fn(&mut Json)| {
        let mut body = push_body("g", "c", 1, &[inc("a"), inc("a")]);
        change(&mut body);
        let reply = server.post("/push", "tok-alice", &body);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid-request")), "{body}");
    };
    for id in [json!(""), json!("x".repeat(257)), json!(7), Json::Null, json!("a\0b")] {
        wrong(&|body| body["clientGroupID"] = id.clone());
        wrong(&|body| body["mutations"][1]["clientID"] = id.clone());
        wrong(&|body| body["mutations"][1]["name"] = id.clone());
    }
    for id in [json!(0), json!(-1), json!(2.5), json!("2"), json!(3), json!(1), Json::Null] {
        wrong(&|body| body["mutations"][1]["id"] = id.clone());
    }
    wrong(&|body| body["mutations"] = json!({}));
    wrong(&|body| body["mutations"][1] = json!("x"));
    wrong(&|body| body["mutations"][1]["timestamp"] = json!("now"));
    assert_eq!(server.ask(&Ask::get("/sync/health")).json()["version"], 0);
    let long = push_body(&"ü".repeat(256), "c", 1, &[inc("a")]);
    assert_eq!(server.post("/push", "tok-alice", &long).status, 200);
}

#[test]
fn cookies_and_limits_are_checked() {
    let server = Server::new();
    for cookie in
        [json!(-1), json!(1.5), json!("1"), json!([]), json!(true), json!({}), json!({"v": 1}), json!({"order": "1", "v": 1, "s": 1})]
    {
        assert_eq!(server.post("/pull", "tok-alice", &pull_body("g", &cookie)).status, 400, "{cookie}");
    }
    let limit =
        |text: &str| server.ask(&Ask::post(&format!("/sync/pull?limit={text}"), &pull_body("g", &Json::Null)).token("tok-alice")).status;
    for wrong in ["0", "-1", "1.5", "x", "", "01", "+1", "%201"] {
        assert_eq!(limit(wrong), 400, "{wrong}");
    }
    for right in ["1", "99999", "99999999999999999999999999"] {
        assert_eq!(limit(right), 200, "{right}");
    }
}

#[test]
fn credentials_for_one_client_group_are_good_for_no_other() {
    let tokens = json!({"mode": "static", "tokens": {"t": {"userId": "u", "clientGroupID": "g", "clientID": "c"}}});
    let server = Server::with(json!({"auth": tokens}));
    let mismatch = json!({"error": "forbidden", "reason": "client-group-mismatch"});
    assert_eq!(server.push("t", "g", "c", 1, &[inc("a")]).status, 200);
    for reply in [
        server.push("t", "h", "c", 2, &[inc("a")]),
        server.push("t", "g", "d", 1, &[inc("a")]),
        server.post("/pull", "t", &pull_body("h", &Json::Null)),
        server.ask(&Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("t").header("x-plasma-client-group", "h")),
        server.ask(&Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("t").header("x-plasma-client", "d")),
        server.stream("/sync/poke?clientGroupID=h&auth=t", &[]).err().unwrap(),
    ] {
        assert_eq!((reply.status, reply.json()), (403, mismatch.clone()));
    }
    let same = Ask::post("/sync/pull", &pull_body("g", &Json::Null)).token("t").header("x-plasma-client-group", "g");
    assert_eq!(server.ask(&same).status, 200);
}

#[test]
fn another_users_group_is_refused_in_push_and_pull_and_realtime() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    let owner = json!({"error": "forbidden", "reason": "client-group-owner"});
    for reply in [
        server.push("tok-bob", "g", "b", 1, &[inc("a")]),
        server.post("/pull", "tok-bob", &pull_body("g", &json!(1))),
        server.post("/pull", "tok-bob", &pull_body("g", &Json::Null)),
        server.stream("/sync/poke?clientGroupID=g&auth=tok-bob", &[]).err().unwrap(),
        server.socket("/sync/ws?clientGroupID=g&auth=tok-bob", &[]).err().unwrap(),
    ] {
        assert_eq!((reply.status, reply.json()), (403, owner.clone()));
    }
    let other = json!({"error": "forbidden", "reason": "client-belongs-to-another-group"});
    let reply = server.push("tok-alice", "h", "c", 2, &[inc("a")]);
    assert_eq!((reply.status, reply.json()), (403, other));
}
