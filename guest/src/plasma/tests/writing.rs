//! What every write passes: values, permissions, references, blobs, and the steps of declarative mutators.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::plasma::engine::EngineOptions;
use crate::plasma::mutators::Mutators;
use crate::plasma::schema::Schema;
use crate::plasma::server_db::{Action, Operation, Policy, WriteRefused};

fn refused(world: &World, operation: Json) -> String {
    world.write(&Policy::Bypass, &json!([operation])).unwrap_err().to_string()
}

fn enforce(user: &str) -> Policy {
    Policy::Enforce(context(user))
}

#[test]
fn values_are_checked_and_defaults_filled_in() {
    let world = World::new();
    let insert = |row: Json| refused(&world, json!({"insert": {"table": "todos", "row": row}}));
    assert_eq!(insert(json!({"id": "t", "owner": "a", "title": 1})), "column title expects text");
    assert_eq!(insert(json!({"id": "t", "owner": "a", "title": "t", "done": 1})), "column done expects boolean");
    assert_eq!(insert(json!({"id": "t", "owner": "a", "title": "t", "nope": 1})), "unknown column nope");
    assert_eq!(insert(json!({"id": "t", "owner": "a", "title": null})), "column title is not nullable");
    assert_eq!(insert(json!({"id": "t", "owner": "a"})), "column title is not nullable");
    assert_eq!(
        refused(&world, json!({"insert": {"table": "_plasma_meta", "row": {"key": "open", "value": "x"}}})),
        "unknown table _plasma_meta"
    );
    assert!(insert(json!({"id": "t\u{0}", "owner": "a", "title": "t"})).contains("U+0000"));
    bypass(&world, &json!([{"insert": {"table": "todos", "row": {"id": "t", "owner": "a", "title": "t"}}}]));
    let row = world.engine.get(world.host.imports(), &Policy::Bypass, "todos", &[json!("t")]).unwrap().unwrap();
    assert_eq!(Json::Object(row), json!({"id": "t", "owner": "a", "title": "t", "done": false, "rank": 0, "shared": true, "meta": null}));
}

#[test]
fn keys_exist_once_and_never_change() {
    let world = World::new();
    let row = json!({"table": "counters", "row": {"id": "k/1", "n": 1}});
    bypass(&world, &json!([{"insert": row}]));
    assert_eq!(refused(&world, json!({"insert": row})), "row exists: counters/k%2F1");
    let update = |set: Json| json!({"update": {"table": "counters", "pk": ["k/1"], "set": set}});
    assert_eq!(refused(&world, update(json!({"id": "other"}))), "column id of the primary key cannot change");
    assert_eq!(bypass(&world, &json!([update(json!({"id": "k/1", "n": 2}))])).changed, 1);
    assert_eq!(refused(&world, json!({"update": {"table": "counters", "pk": ["gone"], "set": {}}})), "row not found: counters/gone");
    assert_eq!(refused(&world, json!({"delete": {"table": "counters", "pk": ["a", "b"]}})), "the primary key of counters has 1 columns");
    assert_eq!(bypass(&world, &json!([{"delete": {"table": "counters", "pk": ["gone"]}}])).changed, 0);
    bypass(&world, &json!([{"insert": {"table": "parents", "row": {"id": "p1", "code": 1}}}]));
    let twice = json!({"insert": {"table": "parents", "row": {"id": "p2", "code": 1}}});
    assert_eq!(refused(&world, twice), "a unique index of parents has these values");
}

#[test]
fn the_server_writes_all_or_nothing_under_one_version() {
    let world = World::new();
    let batch =
        json!([{"insert": {"table": "counters", "row": {"id": "a"}}}, {"update": {"table": "counters", "pk": ["b"], "set": {"n": 1}}}]);
    assert!(matches!(world.write(&Policy::Bypass, &batch), Err(WriteRefused::Invalid(_))));
    assert_eq!((world.version(), world.number("SELECT count(*) FROM t_counters")), (0, 0));
    let batch =
        json!([{"insert": {"table": "counters", "row": {"id": "a"}}}, {"upsert": {"table": "counters", "row": {"id": "a", "n": 3}}}]);
    let written = bypass(&world, &batch);
    assert_eq!((written.version, written.changed), (1, 2));
    assert_eq!(*world.hooks.commits.borrow(), [(1, 2, 0, None)]);
    for wrong in [
        json!({}),
        json!({"insert": {}}),
        json!({"drop": {"table": "t"}}),
        json!({"delete": {"table": "t", "pk": "x"}}),
        json!([]),
        json!({"insert": {"table": "t", "row": {}, "more": 1}}),
    ] {
        assert!(Operation::parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rules_are_judged_on_old_and_new_rows() {
    let world = World::new();
    let insert = |owner: &str| json!([{"insert": {"table": "notes", "row": {"id": owner, "owner": owner, "body": {"v": 1, "alg": "a", "keyId": "k", "iv": "AAAA", "ct": "AAAA"}}}}]);
    world.write(&enforce("alice"), &insert("alice")).unwrap();
    let denied = |action| Err(WriteRefused::Authorization { table: "notes".into(), action });
    assert_eq!(world.write(&enforce("alice"), &insert("bob")), denied(Action::Insert));
    let give = |owner: &str| json!([{"update": {"table": "notes", "pk": ["alice"], "set": {"owner": owner}}}]);
    assert_eq!(world.write(&enforce("alice"), &give("bob")), denied(Action::Update));
    assert_eq!(world.write(&enforce("bob"), &give("bob")), denied(Action::Update));
    assert_eq!(world.write(&enforce("bob"), &json!([{"delete": {"table": "notes", "pk": ["alice"]}}])), denied(Action::Delete));
    // An action that the rules leave out is nobody's.
    bypass(&world, &json!([{"insert": {"table": "todos", "row": {"id": "t", "owner": "alice", "title": "t"}}}]));
    let delete = json!([{"delete": {"table": "todos", "pk": ["t"]}}]);
    assert_eq!(world.write(&enforce("alice"), &delete), Err(WriteRefused::Authorization { table: "todos".into(), action: Action::Delete }));
    let error = world.run("alice", "todos.delete", json!({"id": "t"})).unwrap_err();
    assert_eq!(error, "PlasmaAuthorizationError: delete on todos is not allowed");
    assert!(world.engine.get(world.host.imports(), &enforce("bob"), "notes", &[json!("alice")]).unwrap().is_none());
    assert!(world.engine.get(world.host.imports(), &enforce("alice"), "notes", &[json!("alice")]).unwrap().is_some());
}

#[test]
fn an_encrypted_column_takes_envelopes_only() {
    let world = World::new();
    let note = |body: Json| json!({"insert": {"table": "notes", "row": {"id": "n", "owner": "a", "body": body}}});
    assert!(refused(&world, note(json!("plain"))).starts_with("invalid envelope in body: "));
    let envelope = json!({"v": 1, "alg": "a", "keyId": "k", "iv": "AAAA", "ct": "AAAA", "kem": {"ct": "AAAA"}, "more": [1]});
    bypass(&world, &json!([note(envelope.clone())]));
    let row = world.engine.get(world.host.imports(), &Policy::Bypass, "notes", &[json!("n")]).unwrap().unwrap();
    assert_eq!(row["body"], envelope);
}

#[test]
fn what_refers_to_a_deleted_row_follows_it_through_the_log() {
    let world = World::new();
    let insert = |table: &str, row: Json| json!({"insert": {"table": table, "row": row}});
    bypass(
        &world,
        &json!([
            insert("parents", json!({"id": "p1", "code": 1})),
            insert("parents", json!({"id": "p2", "code": 2})),
            insert("cascading", json!({"id": "c1", "parent": "p1"})),
            insert("cascading", json!({"id": "c2", "parent": "p2"})),
            insert("loosened", json!({"id": "l1", "parent": "p1"})),
            insert("loosened", json!({"id": "l2", "self": "l1"})),
            insert("loosened", json!({"id": "l3", "self": "l2"})),
            insert("restricting", json!({"id": "r2", "parent": 2}))
        ]),
    );
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!(refused(&world, insert("cascading", json!({"id": "c3", "parent": "nobody"}))), "column parent refers to no row of parents");
    assert_eq!(refused(&world, json!({"delete": {"table": "parents", "pk": ["p2"]}})), "row of parents is referenced by restricting/r2");
    let update = json!({"update": {"table": "parents", "pk": ["p2"], "set": {"code": 3}}});
    assert_eq!(refused(&world, update), "column code of parents is referenced by restricting");
    assert_eq!(bypass(&world, &json!([{"delete": {"table": "parents", "pk": ["p1"]}}])).changed, 3);
    client.pull(&world);
    assert_eq!(client.last_ops, ["del parents/p1", "put loosened/l1", "del cascading/c1"]);
    assert_eq!(client.rows["loosened/l1"]["parent"], Json::Null);
    // A chain of rows that refer to each other goes as a whole, also where it is a ring.
    bypass(&world, &json!([{"update": {"table": "loosened", "pk": ["l1"], "set": {"self": "l3"}}}]));
    assert_eq!(bypass(&world, &json!([{"delete": {"table": "loosened", "pk": ["l2"]}}])).changed, 3);
    client.pull(&world);
    assert!(!client.keys().iter().any(|key| key.starts_with("loosened")));
}

#[test]
fn blobs_that_rows_refer_to_are_noted_with_them() {
    let world = World::new();
    let hash = |digit: &str| digit.repeat(64);
    let file = |digit: &str| json!({"hash": hash(digit), "size": 3});
    let set = |cover: Json| json!([{"upsert": {"table": "docs", "row": {"id": "d", "cover": cover}}}]);
    let references = || {
        let text = |value: &crate::imports::Value| format!("{value:?}").replace("Value::", "");
        world
            .host
            .sql("SELECT substr(hash, 1, 1), tbl, pk, col, version FROM t__plasma_blob_refs")
            .iter()
            .map(|row| row.iter().map(text).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    bypass(&world, &set(file("a")));
    assert_eq!(references(), [r#"Text("a") Text("docs") Text("[\"d\"]") Text("cover") Integer(1)"#]);
    bypass(&world, &set(file("b")));
    assert_eq!(references(), [r#"Text("b") Text("docs") Text("[\"d\"]") Text("cover") Integer(2)"#]);
    bypass(&world, &json!([{"delete": {"table": "docs", "pk": ["d"]}}]));
    assert!(references().is_empty());
    let world = World::with(EngineOptions { require_uploaded: true, ..EngineOptions::default() });
    let refused = world.write(&Policy::Bypass, &set(file("a"))).unwrap_err().to_string();
    assert_eq!(refused, format!("blob not uploaded: {}", hash("a")));
}

#[test]
fn declared_steps_do_what_they_say() {
    let world = World::new();
    world.run("alice", "inc", json!({"id": "k", "by": 2})).unwrap();
    world.run("alice", "inc", json!({"id": "k", "by": 0.0})).unwrap();
    assert_eq!(world.run("alice", "inc", json!({"id": "k", "by": "x"})).unwrap_err(), "Error: add expects numbers");
    assert_eq!(world.run("alice", "inc", json!({"id": 7})).unwrap_err(), "Error: argument id expects text");
    assert_eq!(world.run("alice", "inc", json!({})).unwrap_err(), "Error: column id is not nullable");
    assert_eq!(world.run("alice", "inc", json!("nonsense")).unwrap_err(), "Error: column id is not nullable");
    assert_eq!(world.number("SELECT n FROM t_counters"), 2);
    assert_eq!(world.run("alice", "guarded", json!({"id": "k"})).unwrap_err(), "Error: say please");
    assert_eq!(world.run("alice", "guarded", json!({"id": "j", "word": "please"})).unwrap_err(), "Error: no such counter");
    world.run("alice", "guarded", json!({"id": "k", "word": "please"})).unwrap();
    world.run("alice", "stamp", Json::Null).unwrap();
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!((&client.rows["counters/ab"]["n"], &client.rows["counters/server"]["n"]), (&json!(911), &json!(1_000_000)));
    assert_eq!((client.rows.len(), client.rows.values().any(|row| row["n"] == 7)), (3, true));
    world.run("alice", "many", json!({"items": [{"id": "m1", "n": 1}, {"id": "m2", "n": 2}]})).unwrap();
    world.run("alice", "many", json!({})).unwrap();
    assert_eq!(world.run("alice", "many", json!({"items": "x"})).unwrap_err(), "Error: forEach expects a list");
    // A step that fails takes back those before it.
    assert_eq!(world.run("alice", "many", json!({"items": [{"id": "m3"}, {"id": "m1"}]})).unwrap_err(), "Error: row exists: counters/m1");
    assert_eq!(world.number("SELECT count(*) FROM t_counters WHERE id LIKE 'm%'"), 2);
}

#[test]
fn built_in_mutators_take_rows_and_keys() {
    let world = World::new();
    world.run("alice", "counters.insert", json!({"id": "k"})).unwrap();
    world.run("alice", "counters.update", json!({"id": "k", "n": 2})).unwrap();
    world.run("alice", "counters.upsert", json!({"id": "k", "n": 3})).unwrap();
    assert_eq!(world.run("alice", "counters.update", json!({"id": "j", "n": 2})).unwrap_err(), "Error: row not found: counters/j");
    assert_eq!(world.run("alice", "counters.delete", json!({})).unwrap_err(), "Error: column id is not nullable");
    assert_eq!(world.run("alice", "counters.insert", json!([1])).unwrap_err(), "Error: args must be an object");
    world.run("alice", "counters.delete", json!({"id": "k"})).unwrap();
    assert_eq!(world.number("SELECT count(*) FROM t_counters"), 0);
}

#[test]
fn every_problem_of_a_declared_mutator_is_named() {
    let schema = Schema::parse(&schema(), "schema").unwrap();
    let source = json!({
        "a": {"steps": [{"insert": {"table": "nowhere", "values": {}}}, {"insert": {"table": "todos", "values": {"nope": {"val": 1}}, "ifAbsent": 1}}]},
        "b": {"steps": [{"update": {"table": "todos", "key": [], "set": {"title": {"item": "x"}}}}, {"fly": {}}], "more": 1},
        "c": {"args": {"x": "number"}},
        "d": {"steps": [{"insert": {"table": "todos", "values": {"id": {"col": "id"}, "title": {"add": [{"val": 1}]}, "rank": {"now": "then"}}}}]},
        "e": {"steps": [{"assert": {"message": "m"}}, {"fail": {}}, {"forEach": {"do": []}}, {"delete": {"table": "todos", "key": [{"what": 1}]}}]},
        "f": 7
    });
    let problems = Mutators::parse(&schema, &source, "mutators", false, false).unwrap_err();
    let expected = [
        "mutators.a.steps[0].insert.table: expected the name of a table",
        "mutators.a.steps[1].insert.values.nope: unknown column nope",
        "mutators.a.steps[1].insert.ifAbsent: expected true or false",
        "mutators.b.more: unknown key",
        "mutators.b.steps[0].update.key: the primary key of todos has 1 columns",
        "mutators.b.steps[0].update.set.title: item stands outside a forEach",
        "mutators.b.steps[1].fly: unknown step",
        "mutators.c.args.x: expected the name of a column type",
        "mutators.c.steps: missing",
        "mutators.d.steps[0].insert.values.id: col stands outside an update",
        "mutators.d.steps[0].insert.values.rank: now is \"mutation\" or \"server\"",
        "mutators.d.steps[0].insert.values.title.add: expected a list of expressions",
        "mutators.e.steps[0].assert: expected either where or exists",
        "mutators.e.steps[1].fail.message: expected a string",
        "mutators.e.steps[2].forEach: expected arg, the path of a list",
        "mutators.e.steps[3].delete.key[0]: unknown expression what",
        "mutators.f: expected an object",
    ];
    assert_eq!(problems, expected);
}
