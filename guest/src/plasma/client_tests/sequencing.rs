//! Section 14.3: regions and ranges of versions.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::{Statement, Value};
use crate::plasma::engine::DATABASE;

fn reserve(server: &Server, count: u64) -> Json {
    let reply = server.post("/admin/reserve", "admin-secret", &json!({"count": count}));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

pub fn reserving() -> Server {
    Server::with(json!({"sequencer": {"mode": "reserve"}}))
}

/// Whoever has a range writes a counter under its last version, unless the range is closed; the same transaction closes it.
pub fn write_and_close(server: &Server, range: &Json, id: &str) -> bool {
    let close = "DELETE FROM t__plasma_open_ranges WHERE first_version = ? AND epoch = ?";
    write_while_open(server, range, close, &[(range["last"].as_u64().unwrap(), id)], true)
}

/// Writes counters under versions of a range, unless `open`, which names its row, changes none; whether it did. Without `commits` the
/// writer dies just before.
pub fn write_while_open(server: &Server, range: &Json, open: &str, rows: &[(u64, &str)], commits: bool) -> bool {
    let number = |key: &str| Value::Integer(range[key].as_i64().unwrap());
    let transaction = server.imports().executor.begin(DATABASE).unwrap();
    let run = |sql: &str, parameters: Vec<Value>| transaction.execute(Statement { sql: sql.into(), parameters }).unwrap().changed;
    if run(open, vec![number("first"), number("epoch")]) == 0 {
        return false;
    }
    for (version, id) in rows {
        run("INSERT INTO t_counters (id, n) VALUES (?, 1)", vec![(*id).into()]);
        let key = json!([id]).to_string();
        let entry = "INSERT INTO t__plasma_changes (version, seq, tbl, pk, op, before, newest, region, at) VALUES (?, 0, 'counters', ?, 'put', NULL, 1, ?, 0)";
        let region = range["region"].as_str().unwrap();
        run(entry, vec![Value::Integer(i64::try_from(*version).unwrap()), key.as_str().into(), region.into()]);
    }
    if commits {
        transaction.commit().unwrap();
    }
    commits
}

#[test]
fn ranges_are_disjoint_and_above_all_that_was_there() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    assert_eq!(reserve(&server, 3), json!({"ok": true, "region": "local", "first": 2, "last": 4, "epoch": 1}));
    assert_eq!(reserve(&server, 1), json!({"ok": true, "region": "local", "first": 5, "last": 5, "epoch": 2}));
    assert_eq!(server.push("tok-alice", "g", "c", 2, &[inc("k")]).json()["cookie"], 6);
    let other = server.post("/admin/reserve", "admin-secret", &json!({"region": "eu", "count": 2})).json();
    assert_eq!((&other["region"], &other["first"]), (&json!("eu"), &json!(7)), "all regions share one order");
    for wrong in [json!({"count": 0}), json!({"count": "1"}), json!({"region": ""}), json!({"count": 1_000_001}), json!({"close": {}})] {
        assert_eq!(server.post("/admin/reserve", "admin-secret", &wrong).status, 400, "{wrong}");
    }
    assert_eq!(server.pull("tok-bob", "h", &Json::Null)["cookie"], json!({"order": 14, "r": {"eu": 8, "local": 6}}));
}

#[test]
fn readers_wait_for_an_open_range() {
    let server = reserving();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    let range = reserve(&server, 2);
    server.push("tok-alice", "g", "c", 2, &[inc("b")]);
    let held = server.pull("tok-bob", "h", &Json::Null);
    assert_eq!((&held["cookie"], held["patch"].as_array().unwrap().len()), (&json!(1), 2), "clear, and the first one");
    let again = server.pull("tok-alice", "g", &Json::Null);
    assert_eq!(again["lastMutationIDChanges"], json!({"c": 1}), "none ahead of its rows");
    let stream = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    stream.frames();
    assert!(write_and_close(&server, &range, "x"));
    assert_eq!(server.post("/admin/reserve", "admin-secret", &json!({"close": {"first": 2, "epoch": 1}})).json()["closed"], false);
    let all = server.pull("tok-bob", "h", &json!(1));
    let keys: Vec<_> = all["patch"].as_array().unwrap().iter().map(|op| op["key"].clone()).collect();
    assert_eq!((&all["cookie"], keys), (&json!(4), vec![json!("counters/x"), json!("counters/b")]));
}

#[test]
fn a_row_that_changed_on_both_sides_of_an_open_range_is_never_skipped() {
    let server = reserving();
    server.push("tok-alice", "g", "c", 1, &[inc("a"), inc("b"), inc("c")]);
    let range = reserve(&server, 1);
    server.push("tok-alice", "g", "c", 4, &[inc("b")]);
    let keys = |pulled: &Json| -> Vec<Json> {
        pulled["patch"].as_array().unwrap().iter().filter(|op| op["op"] == "put").map(|op| op["key"].clone()).collect()
    };
    let held = server.pull("tok-bob", "h", &Json::Null);
    let all = vec![json!("counters/a"), json!("counters/b"), json!("counters/c")];
    assert_eq!((keys(&held), &held["cookie"], &held["hasMore"]), (all, &json!(3), &json!(false)));
    assert_eq!(held["patch"][2]["value"], json!({"id": "b", "n": 1}), "as it was below the range");
    let own = server.pull("tok-alice", "g", &Json::Null);
    assert_eq!(own["lastMutationIDChanges"], json!({"c": 3}), "nothing is confirmed without its row");
    assert_eq!(server.pull("tok-bob", "h", &held["cookie"])["cookie"], held["cookie"]);
    let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
    assert_eq!(server.post("/admin/reserve", "admin-secret", &close).json()["closed"], true);
    let rest = server.pull("tok-bob", "h", &held["cookie"]);
    assert_eq!((&rest["cookie"], keys(&rest)), (&json!(5), vec![json!("counters/b")]));
    assert_eq!(server.pull("tok-alice", "g", &own["cookie"])["lastMutationIDChanges"], json!({"c": 4}));
}

#[test]
fn without_before_images_pulls_wait_before_a_row_that_changed_on_both_sides() {
    let server = Server::with(json!({"sequencer": {"mode": "reserve"}, "changeLog": {"beforeImages": false}}));
    server.push("tok-alice", "g", "c", 1, &[inc("a"), inc("b"), inc("c")]);
    reserve(&server, 1);
    server.push("tok-alice", "g", "c", 4, &[inc("b")]);
    let held = server.pull("tok-bob", "h", &Json::Null);
    assert_eq!((&held["patch"][1]["key"], held["patch"].as_array().unwrap().len()), (&json!("counters/a"), 2));
    assert!(server.pull("tok-bob", "h", &held["cookie"])["patch"].as_array().unwrap().is_empty());
    server.host.now_ms.set(server.host.now_ms.get() + 10_000);
    server.fire_jobs("ranges/");
    assert_eq!(server.pull("tok-bob", "h", &held["cookie"])["patch"].as_array().unwrap().len(), 2);
}

#[test]
fn what_was_shown_for_a_while_above_an_open_range_is_not_shown_below_it() {
    let server = reserving();
    let put = |id: &str| ("createBoard", json!({"id": id, "team": "x", "name": id}));
    let bob = json!({"team": "x", "userId": "bob"});
    let early = server.pull("tok-bob", "early", &Json::Null)["cookie"].clone();
    server.push("tok-alice", "g", "c", 1, &[put("b")]);
    let range = reserve(&server, 1);
    server.push(
        "tok-alice",
        "g",
        "c",
        2,
        &[("join", bob.clone()), put("b2"), ("createBoard", json!({"id": "b", "team": "x", "name": "n"}))],
    );
    let late = server.pull("tok-bob", "late", &Json::Null);
    assert_eq!((&late["patch"], &late["cookie"]), (&json!([{"op": "clear"}]), &json!(1)), "bob was no member then");
    let waits = server.pull("tok-bob", "early", &early);
    assert_eq!((&waits["patch"], &waits["cookie"]), (&json!([]), &early));
    server.push("tok-alice", "g", "c", 5, &[("leave", bob)]);
    let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
    assert_eq!(server.post("/admin/reserve", "admin-secret", &close).json()["closed"], true);
    for (group, cookie) in [("late", &late["cookie"]), ("early", &early)] {
        let pulled = server.pull("tok-bob", group, cookie);
        assert!(pulled["patch"].as_array().unwrap().iter().all(|op| op["op"] == "del"), "{pulled}");
        assert_eq!(pulled["cookie"], 6);
    }
}

#[test]
fn a_lease_that_is_over_lets_readers_go_on_and_whoever_had_it_begin_anew() {
    let server = reserving();
    let range = reserve(&server, 1);
    server.push("tok-alice", "g", "c", 1, &[inc("b")]);
    assert_eq!(server.pull("tok-bob", "h", &Json::Null)["cookie"], 0);
    let stream = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    stream.frames();
    server.host.now_ms.set(server.host.now_ms.get() + 10_000);
    server.fire_jobs("ranges/");
    assert_eq!(stream.events().last().unwrap().2, json!({"cookie": 2}));
    assert_eq!(server.pull("tok-bob", "h", &json!(0))["cookie"], 2);
    assert!(!write_and_close(&server, &range, "x"), "it is fenced off");
}

#[test]
fn queries_and_live_queries_see_nothing_above_an_open_range() {
    let server = reserving();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    let range = reserve(&server, 1);
    server.push("tok-alice", "g", "c", 2, &[inc("a"), inc("b")]);
    let query = json!({"from": "counters"});
    let asked = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query});
    let held = server.post("/query", "tok-bob", &asked).json();
    assert_eq!(held, json!({"ok": true, "version": 1, "rows": [{"id": "a", "n": 1}]}));
    let (bob, _) = server.socket("/sync/ws?auth=tok-bob", &[]).ok().unwrap();
    let live = || -> Vec<Json> { bob.messages().into_iter().filter(|message| message["id"] == "q").collect() };
    bob.send(&json!({"type": "live.start", "id": "q", "query": query}).to_string());
    assert_eq!(live(), [json!({"type": "live.rows", "id": "q", "version": 1, "rows": [{"id": "a", "n": 1}]})]);
    server.push("tok-alice", "g", "c", 4, &[inc("a")]);
    assert!(live().is_empty());
    let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
    assert_eq!(server.post("/admin/reserve", "admin-secret", &close).json()["closed"], true);
    let rows = json!([{"id": "a", "n": 3}, {"id": "b", "n": 1}]);
    assert_eq!(live(), [json!({"type": "live.rows", "id": "q", "version": 5, "rows": rows})]);
    server.push("tok-alice", "g", "c", 5, &[inc("b")]);
    assert_eq!(live()[0]["type"], "live.diff");
}
