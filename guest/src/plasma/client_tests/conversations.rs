//! Sections 6, 7 and 20 as conversations: what is asked, and what is answered to the letter.

use serde_json::{Value as Json, json};

use super::support::*;

fn row(id: &str, owner: &str, title: &str) -> Json {
    json!({"id": id, "owner": owner, "title": title, "done": false, "rank": 0, "shared": true, "meta": null})
}

#[test]
fn a_client_begins_writes_and_sees_what_it_wrote() {
    let server = Server::new();
    assert_eq!(
        server.pull("tok-alice", "g", &Json::Null),
        json!({"cookie": 0, "lastMutationIDChanges": {}, "patch": [{"op": "clear"}], "hasMore": false, "reset": false})
    );
    let pushed = server.push("tok-alice", "g", "c", 1, &[todo("t1", "Buy milk")]);
    let results = json!([{"clientID": "c", "id": 1, "status": "applied"}]);
    assert_eq!(pushed.json(), json!({"ok": true, "lastMutationIDChanges": {"c": 1}, "cookie": 1, "results": results}));
    let patch = json!([{"op": "put", "key": "todos/t1", "value": row("t1", "alice", "Buy milk")}]);
    assert_eq!(
        server.pull("tok-alice", "g", &json!(0)),
        json!({"cookie": 1, "lastMutationIDChanges": {"c": 1}, "patch": patch, "hasMore": false, "reset": false})
    );
    let nothing = json!({"cookie": 1, "lastMutationIDChanges": {}, "patch": [], "hasMore": false, "reset": false});
    assert_eq!(server.pull("tok-alice", "g", &json!(1)), nothing);
}

#[test]
fn a_failed_mutation_is_acknowledged_and_the_next_one_runs() {
    let server = Server::new();
    server.pull("tok-alice", "g", &Json::Null);
    let pushed = server.push("tok-alice", "g", "c", 1, &[("writeThenFail", json!({"id": "bad"})), ("inc", json!({"id": "k", "by": 2}))]);
    let results = json!([
        {"clientID": "c", "id": 1, "status": "error", "error": {"name": "Error", "message": "refused by rule"}},
        {"clientID": "c", "id": 2, "status": "applied"},
    ]);
    assert_eq!(pushed.json(), json!({"ok": true, "lastMutationIDChanges": {"c": 2}, "cookie": 2, "results": results}));
    let pulled = server.pull("tok-alice", "g", &json!(0));
    assert_eq!(pulled["patch"], json!([{"op": "put", "key": "counters/k", "value": {"id": "k", "n": 2}}]));
    assert_eq!(pulled["lastMutationIDChanges"], json!({"c": 2}));
    let errors = server.get("/admin/errors", "admin-secret").json();
    let cause = json!({"name": "Error", "message": "refused by rule"});
    assert_eq!(
        errors,
        json!({"errors": [{"at": 1_000_000, "kind": "mutation-error", "clientGroupID": "g", "clientID": "c",
        "mutationID": 1, "mutationName": "writeThenFail", "cause": cause}]})
    );
}

#[test]
fn an_unknown_mutator_does_not_block_its_client() {
    let server = Server::new();
    let names = ["nothing", "__proto__", "constructor", "toString"];
    let pushed = server.push("tok-alice", "g", "c", 1, &names.map(|name| (name, json!({})))).json();
    for (name, result) in names.iter().zip(pushed["results"].as_array().unwrap()) {
        assert_eq!(
            (result["status"].as_str(), result["error"]["message"].as_str()),
            (Some("error"), Some(format!("unknown mutator: {name}").as_str()))
        );
    }
    assert_eq!(pushed["lastMutationIDChanges"], json!({"c": 4}));
}

#[test]
fn a_repeated_push_is_a_duplicate_and_a_hole_is_lost_state() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k"), inc("k")]);
    let again = server.push("tok-alice", "g", "c", 1, &[inc("k"), inc("k"), inc("k")]).json();
    let statuses: Vec<_> = again["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!((statuses, again["cookie"].as_u64()), (vec!["duplicate", "duplicate", "applied"], Some(3)));
    let hole = server.push("tok-alice", "g", "c", 5, &[inc("k")]);
    assert_eq!((hole.status, hole.json()), (200, json!({"error": "ClientStateNotFound"})));
    let mut native = push_body("g", "c", 5, &[inc("k")]);
    native["protocolVersion"] = native["pushVersion"].take();
    native.as_object_mut().unwrap().remove("pushVersion");
    let hole = server.post("/push", "tok-alice", &native);
    assert_eq!((hole.status, hole.json()), (410, json!({"error": "client-state-not-found"})));
    let unknown = server.post("/pull", "tok-alice", &pull_body("nobody", &json!(3)));
    assert_eq!((unknown.status, unknown.json()), (200, json!({"error": "ClientStateNotFound"})));
    let ahead = server.post("/pull", "tok-alice", &pull_body("g", &json!(99)));
    assert_eq!(ahead.json(), json!({"error": "ClientStateNotFound"}));
}

#[test]
fn the_native_dialect_has_words_of_its_own() {
    let server = Server::new();
    let mut push = push_body("g", "c", 1, &[todo("n1", "native"), ("join", json!({"team": "a/b", "userId": "alice"}))]);
    push.as_object_mut().unwrap().remove("pushVersion");
    push["protocolVersion"] = json!(1);
    assert_eq!(server.post("/push", "tok-alice", &push).json()["cookie"], 2);
    let pull = json!({"protocolVersion": 1, "schemaVersion": "7", "clientGroupID": "g", "clientID": "c", "cookie": null});
    let patch = json!([
        {"op": "clear"},
        {"op": "put", "table": "todos", "pk": ["n1"], "row": row("n1", "alice", "native"), "version": 1},
        {"op": "put", "table": "members", "pk": ["a/b", "alice"], "row": {"team": "a/b", "userId": "alice"}, "version": 2},
    ]);
    let expected = json!({"ok": true, "cookie": 2, "lastMutationIDChanges": {"c": 2}, "patch": patch, "hasMore": false, "reset": false});
    assert_eq!(server.post("/pull", "tok-alice", &pull).json(), expected);
    let replicache = server.pull("tok-alice", "g", &json!(1));
    assert_eq!(replicache["patch"][0]["key"], "members/a%2Fb/alice");
}

#[test]
fn a_first_load_comes_in_pages_whose_cookies_grow() {
    let server = Server::new();
    for number in 1..=12 {
        server.push("tok-alice", "g", "c", number, &[todo(&format!("t{number}"), "x")]);
    }
    let page = |cookie: &Json| {
        let ask = Ask::post("/sync/pull?limit=5", &pull_body("g", cookie)).token("tok-alice");
        let page = server.ask(&ask).json();
        let count = page["patch"].as_array().unwrap().len();
        (page["cookie"].clone(), count, page["hasMore"] == true, page["lastMutationIDChanges"].clone())
    };
    let first = page(&Json::Null);
    assert_eq!(first, (json!({"order": 5, "v": 5, "s": 12}), 6, true, json!({"c": 5})));
    let second = page(&first.0);
    assert_eq!((second.1, second.2, &second.3), (5, true, &json!({"c": 10})));
    assert_eq!(page(&second.0), (json!(12), 2, false, json!({"c": 12})));
}

#[test]
fn a_long_queue_drains_in_prefixes() {
    let server = Server::new();
    let queue: Vec<_> = (0..450).map(|_| inc("k")).collect();
    let push = || server.push("tok-alice", "g", "c", 1, &queue);
    let first = push();
    assert_eq!((first.status, first.header("retry-after")), (429, "0"));
    assert_eq!(
        first.json(),
        json!({"error": "push-truncated", "limit": 200, "applied": 200, "remaining": 250, "lastMutationIDChanges": {"c": 200}})
    );
    assert_eq!(push().json()["remaining"], 50);
    assert_eq!((push().status, push().status), (200, 200));
    assert_eq!(server.pull("tok-alice", "g", &Json::Null)["patch"][1]["value"]["n"], 450);

    let mut native = push_body("h", "d", 1, &queue[..201]);
    native.as_object_mut().unwrap().remove("pushVersion");
    native["protocolVersion"] = json!(1);
    let reply = server.post("/push", "tok-alice", &native);
    assert_eq!((reply.status, reply.json()), (413, json!({"error": "too-many-mutations", "limit": 200, "got": 201})));
    native["mutations"].as_array_mut().unwrap().pop();
    assert_eq!(server.post("/push", "tok-alice", &native).status, 200);
    let strict = Server::with(json!({"overLimit": "reject"}));
    assert_eq!(strict.push("tok-alice", "g", "c", 1, &queue).status, 413);
}

#[test]
fn envelopes_are_judged_by_dialect() {
    let server = Server::new();
    let envelope = |key_id: &str| json!({"v": 1, "alg": "AES-GCM", "keyId": key_id, "iv": "AAAA", "ct": "AAAA"});
    let note = |key_id: &str| ("saveNote", json!({"id": "n", "body": envelope(key_id)}));
    let mut native = push_body("g", "c", 1, &[inc("k"), note("k9")]);
    native.as_object_mut().unwrap().remove("pushVersion");
    native["protocolVersion"] = json!(1);
    let reply = server.post("/push", "tok-alice", &native);
    assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid-request")));
    assert_eq!(server.ask(&Ask::get("/sync/health")).json()["version"], 0, "nothing of it ran");
    let replicache = server.push("tok-alice", "g", "c", 1, &[inc("k"), note("k9"), note("k1")]).json();
    let statuses: Vec<_> = replicache["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["applied", "error", "applied"]);
    let pulled = server.pull("tok-alice", "g", &Json::Null);
    assert_eq!(pulled["patch"][2]["value"]["body"], envelope("k1"));
}

#[test]
fn a_failing_database_advances_nothing() {
    use crate::imports::SqlError;
    use crate::test_host::Fault;
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    for fault in [Fault::Begin, Fault::Commit, Fault::Statement(0)] {
        server.host.fail(fault, SqlError::Unavailable("gone".into()));
        let reply = server.push("tok-alice", "g", "c", 2, &[inc("k")]);
        assert_eq!((reply.status, reply.json(), reply.header("retry-after")), (503, json!({"error": "unavailable"}), "1"), "{fault:?}");
    }
    assert_eq!(server.push("tok-alice", "g", "c", 2, &[inc("k")]).json()["lastMutationIDChanges"], json!({"c": 2}));
}
