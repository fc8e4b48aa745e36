//! Section 14.3: regions and ranges of versions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::{Statement, Value};
use crate::plasma::engine::DATABASE;

fn reserve(server: &Server, count: u64) -> Json {
    let reply = server.post("/admin/reserve", "admin-secret", &json!({"count": count}));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn reserving() -> Server {
    Server::with(json!({"sequencer": {"mode": "reserve"}}))
}

/// Whoever has a range writes a counter under a version of it, unless the range is closed; the same transaction closes it.
fn write_and_close(server: &Server, range: &Json, id: &str) -> bool {
    let number = |key: &str| Value::Integer(range[key].as_i64().unwrap());
    let transaction = server.imports().executor.begin(DATABASE).unwrap();
    let run = |sql: &str, parameters: Vec<Value>| transaction.execute(Statement { sql: sql.into(), parameters }).unwrap().changed;
    if run("DELETE FROM t__plasma_open_ranges WHERE first_version = ? AND epoch = ?", vec![number("first"), number("epoch")]) == 0 {
        return false;
    }
    run("INSERT INTO t_counters (id, n) VALUES (?, 1)", vec![id.into()]);
    let key = json!([id]).to_string();
    let entry = "INSERT INTO t__plasma_changes (version, seq, tbl, pk, op, before, newest, region, at) VALUES (?, 0, 'counters', ?, 'put', NULL, 1, 'other', 0)";
    run(entry, vec![number("last"), key.as_str().into()]);
    transaction.commit().unwrap();
    true
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
    assert_eq!(server.pull("tok-bob", "h", &Json::Null)["cookie"], 8);
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
    assert_eq!((keys(&held), &held["hasMore"]), (vec![json!("counters/a")], &json!(false)));
    let own = server.pull("tok-alice", "g", &Json::Null);
    assert_eq!(own["lastMutationIDChanges"], json!({"c": 1}), "nothing is confirmed without its row");
    assert_eq!(keys(&server.pull("tok-bob", "h", &held["cookie"])), Vec::<Json>::new());
    let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
    assert_eq!(server.post("/admin/reserve", "admin-secret", &close).json()["closed"], true);
    let rest = server.pull("tok-bob", "h", &held["cookie"]);
    assert_eq!((&rest["cookie"], keys(&rest)), (&json!(5), vec![json!("counters/c"), json!("counters/b")]));
    assert_eq!(server.pull("tok-alice", "g", &own["cookie"])["lastMutationIDChanges"], json!({"c": 4}));
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

#[derive(Clone, Debug)]
enum Act {
    Reserve(u64),
    /// The writer of the n-th range that it still has writes.
    Write(usize),
    /// It dies.
    Die(usize),
    Push,
    Pull(usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1_u64..5).prop_map(Act::Reserve),
        (0_usize..4).prop_map(Act::Write),
        (0_usize..4).prop_map(Act::Die),
        Just(Act::Push),
        (0_usize..2).prop_map(Act::Pull),
        (1_u64..8_000).prop_map(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Writers stall, die and come late; readers see every version once, in order, and skip none.
    #[test]
    fn no_version_is_skipped_and_none_is_given_out_twice(acts in prop::collection::vec(act(), 1..60)) {
        let server = reserving();
        let (mut ranges, mut pushed, mut given) = (Vec::<Json>::new(), 0, BTreeSet::new());
        let mut written = BTreeSet::new();
        let mut readers = vec![(Json::Null, BTreeMap::<String, Json>::new()); 2];
        let pull = |reader: &mut (Json, BTreeMap<String, Json>), number: usize| {
            let reply = server.pull("tok-bob", &format!("r{number}"), &reader.0);
            prop_assert!(reader.0.as_u64().unwrap_or(0) <= reply["cookie"].as_u64().unwrap());
            for op in reply["patch"].as_array().unwrap().iter().filter(|op| op["op"] == "put") {
                prop_assert!(reader.1.insert(op["key"].as_str().unwrap().to_owned(), op["value"].clone()).is_none(), "{} came twice", op);
            }
            reader.0 = reply["cookie"].clone();
            Ok(())
        };
        for act in acts {
            match act {
                Act::Reserve(count) => {
                    let range = reserve(&server, count);
                    for version in range["first"].as_u64().unwrap()..=range["last"].as_u64().unwrap() {
                        prop_assert!(given.insert(version), "version {} twice", version);
                    }
                    ranges.push(range);
                }
                Act::Write(place) if !ranges.is_empty() => {
                    let range = ranges.remove(place % ranges.len());
                    let id = format!("of-{}", range["epoch"]);
                    if write_and_close(&server, &range, &id) {
                        written.insert(format!("counters/{id}"));
                    }
                }
                Act::Die(place) if !ranges.is_empty() => drop(ranges.remove(place % ranges.len())),
                Act::Write(_) | Act::Die(_) => {}
                Act::Push => {
                    pushed += 1;
                    let reply = server.push("tok-alice", "g", "c", pushed, &[inc(&format!("pushed-{pushed}"))]);
                    prop_assert!(given.insert(reply.json()["cookie"].as_u64().unwrap()));
                    written.insert(format!("counters/pushed-{pushed}"));
                }
                Act::Pull(number) => pull(&mut readers[number], number)?,
                Act::Pass(ms) => {
                    server.host.now_ms.set(server.host.now_ms.get() + ms);
                    server.fire_jobs("ranges/");
                }
            }
        }
        server.host.now_ms.set(server.host.now_ms.get() + 20_000);
        server.fire_jobs("ranges/");
        for (number, reader) in readers.iter_mut().enumerate() {
            pull(reader, number)?;
            prop_assert_eq!(&reader.1.keys().cloned().collect::<BTreeSet<_>>(), &written);
        }
    }
}
