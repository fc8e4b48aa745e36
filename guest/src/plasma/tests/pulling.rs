//! Pulls: first loads, deltas, pages, cookies, resets, lost state.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::plasma::compaction::CompactUpTo;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::{Dialect, EngineOptions};
use crate::plasma::pull::PullRefused;

fn fill(world: &World, count: u64) {
    for n in 0..count {
        bypass(world, &json!([{"insert": {"table": "counters", "row": {"id": format!("k{n:02}"), "n": n}}}]));
    }
}

#[test]
fn an_empty_database_gives_a_cookie_all_the_same() {
    let world = World::new();
    let reply = world.try_pull("alice", "g1", &Json::Null, 10).unwrap();
    assert_eq!((reply.cookie.to_json(), reply.patch.as_str(), reply.has_more), (json!(0), r#"[{"op":"clear"}]"#, false));
    let again = world.try_pull("alice", "g1", &json!(0), 10).unwrap();
    assert_eq!((again.cookie, again.patch.as_str()), (Cookie::Version(0), "[]"));
}

#[test]
fn a_first_load_comes_in_pages() {
    let world = World::new();
    fill(&world, 12);
    bypass(&world, &json!([{"delete": {"table": "counters", "pk": ["nobody"]}}]));
    let reply = world.try_pull("alice", "g1", &Json::Null, 5).unwrap();
    assert_eq!((reply.cookie.to_json(), reply.has_more, reply.puts), (json!({"order": 5, "v": 5, "s": 13}), true, 5));
    let reply = world.try_pull("alice", "g1", &reply.cookie.to_json(), 5).unwrap();
    assert_eq!((reply.cookie.to_json(), reply.has_more, reply.puts), (json!({"order": 10, "v": 10, "s": 13}), true, 5));
    let reply = world.try_pull("alice", "g1", &reply.cookie.to_json(), 5).unwrap();
    assert_eq!((reply.cookie.to_json(), reply.has_more, reply.puts, reply.reset), (json!(13), false, 2, false));
}

#[test]
fn a_page_as_large_as_what_is_left_is_the_last() {
    let world = World::new();
    fill(&world, 5);
    let reply = world.try_pull("alice", "g1", &Json::Null, 5).unwrap();
    assert_eq!((reply.cookie, reply.has_more), (Cookie::Version(5), false));
}

#[test]
fn a_version_is_never_cut() {
    let world = World::new();
    fill(&world, 2);
    let items: Vec<_> = (0..7).map(|n| json!({"id": format!("many{n}"), "n": n})).collect();
    world.run("alice", "many", json!({"items": items})).unwrap();
    fill_more(&world);
    let mut client = Client::new("alice", "g2");
    let mut sizes = Vec::new();
    while client.pull_page(&world, 3) {
        sizes.push(client.last_ops.len());
    }
    assert_eq!((sizes, client.rows.len()), (vec![2, 7], 10));
}

fn fill_more(world: &World) {
    bypass(world, &json!([{"insert": {"table": "counters", "row": {"id": "last"}}}]));
}

#[test]
fn a_delta_has_one_operation_a_row_and_only_what_changed() {
    let world = World::new();
    fill(&world, 3);
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    for _ in 0..3 {
        bypass(&world, &json!([{"update": {"table": "counters", "pk": ["k01"], "set": {"n": 5}}}]));
        bypass(
            &world,
            &json!([{"update": {"table": "counters", "pk": ["k01"], "set": {"n": 6}}}, {"upsert": {"table": "counters", "row": {"id": "new"}}}]),
        );
    }
    bypass(&world, &json!([{"delete": {"table": "counters", "pk": ["k00"]}}]));
    client.pull(&world);
    assert_eq!(client.last_ops, ["put counters/new", "put counters/k01", "del counters/k00"]);
    assert_eq!(client.rows["counters/k01"]["n"], 6);
}

#[test]
fn a_write_that_changes_nothing_is_not_delivered() {
    let world = World::new();
    fill(&world, 1);
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    let written = bypass(&world, &json!([{"update": {"table": "counters", "pk": ["k00"], "set": {"n": 0}}}]));
    assert_eq!((written.version, written.changed), (2, 0));
    client.pull(&world);
    assert_eq!((client.last_ops.len(), &client.cookie), (0, &json!(2)));
}

#[test]
fn cookies_grow_when_only_a_mutation_was_acknowledged() {
    let world = World::new();
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    world.push("alice", "g1", &[("c1", 1, "noop", Json::Null)]);
    world.push("bob", "g2", &[("c2", 1, "noop", Json::Null)]);
    client.pull(&world);
    assert_eq!((client.last_ids.clone(), &client.cookie), ([("c1".to_owned(), 1)].into(), &json!(2)));
}

#[test]
fn an_acknowledgement_never_runs_ahead_of_its_page() {
    let world = World::new();
    let mutations: Vec<_> = (1..=7).map(|id| ("c1", id, "addTodo", json!({"id": format!("t{id}")}))).collect();
    world.push("alice", "g1", &mutations);
    let mut client = Client::new("alice", "g1");
    let mut ids = Vec::new();
    loop {
        let more = client.pull_page(&world, 3);
        ids.push((client.rows.len() as u64, client.last_ids["c1"]));
        if !more {
            break;
        }
    }
    assert_eq!(ids, [(3, 3), (6, 6), (7, 7)]);
}

#[test]
fn the_native_dialect_names_tables_keys_and_versions() {
    let world = World::new();
    bypass(&world, &json!([{"insert": {"table": "members", "row": {"team": "a/b", "userId": "al%ice"}}}]));
    bypass(
        &world,
        &json!([{"insert": {"table": "keyed", "row": {"n": -3, "big": "12345678901234567890", "flag": true, "name": "é", "x": 1.5, "data": "AAE="}}}]),
    );
    let native = world.pull_as(&caller("alice"), "g1", &Json::Null, 10, Dialect::Native).unwrap();
    let patch: Json = serde_json::from_str(&native.patch).unwrap();
    assert_eq!(
        patch,
        json!([{"op": "clear"},
            {"op": "put", "table": "members", "pk": ["a/b", "al%ice"], "row": {"team": "a/b", "userId": "al%ice"}, "version": 1},
            {"op": "put", "table": "keyed", "pk": [-3, "12345678901234567890", true, "é"], "version": 2,
                "row": {"n": -3, "big": "12345678901234567890", "flag": true, "name": "é", "x": 1.5, "data": "AAE="}}])
    );
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!(client.keys(), ["keyed/-3/12345678901234567890/true/é", "members/a%2Fb/al%25ice"]);
    bypass(&world, &json!([{"delete": {"table": "keyed", "pk": [-3, "12345678901234567890", true, "é"]}}]));
    let native = world.pull_as(&caller("alice"), "g1", &json!(2), 10, Dialect::Native).unwrap();
    assert_eq!(native.patch, r#"[{"op":"del","table":"keyed","pk":[-3,"12345678901234567890",true,"é"],"version":3}]"#);
}

#[test]
fn hidden_rows_never_come_and_hiding_one_takes_it_away() {
    let world = World::new();
    world.push("alice", "ga", &[("c1", 1, "addTodo", json!({"id": "t1"})), ("c1", 2, "addTodo", json!({"id": "t2", "shared": false}))]);
    let mut bob = Client::new("bob", "gb");
    assert_eq!(bob.pull(&world).keys(), ["todos/t1"]);
    world.push(
        "alice",
        "ga",
        &[("c1", 3, "share", json!({"id": "t1", "shared": false})), ("c1", 4, "share", json!({"id": "t2", "shared": true}))],
    );
    assert_eq!(bob.pull(&world).last_ops, ["del todos/t1", "put todos/t2"]);
}

#[test]
fn pages_of_invisible_rows_are_walked_through() {
    let world = World::new();
    let hidden: Vec<_> = (1..=40).map(|id| ("c1", id, "addTodo", json!({"id": format!("t{id}"), "shared": id == 40}))).collect();
    world.push("alice", "ga", &hidden);
    let mut bob = Client::new("bob", "gb");
    let mut pages = 1;
    while bob.pull_page(&world, 2) {
        pages += 1;
    }
    assert_eq!((bob.keys(), pages), (vec!["todos/t40"], 2));
}

#[test]
fn lost_state_is_told_and_owners_are_kept() {
    let world = World::new();
    fill(&world, 3);
    assert_eq!(world.try_pull("alice", "unknown", &json!(3), 10).unwrap_err(), PullRefused::ClientStateNotFound);
    world.try_pull("alice", "g1", &Json::Null, 10).unwrap();
    assert_eq!(world.try_pull("bob", "g1", &Json::Null, 10).unwrap_err(), PullRefused::ClientGroupOwner);
    // The database was restored from a backup.
    for ahead in
        [json!(4), json!({"order": 1, "v": 4, "s": 1}), json!({"order": 1, "v": 1, "s": 4}), json!({"order": 1, "v": 1, "s": 1, "p": 4})]
    {
        assert_eq!(world.try_pull("alice", "g1", &ahead, 10).unwrap_err(), PullRefused::ClientStateNotFound);
    }
    assert!(world.engine.forget(world.host.imports(), "g1").unwrap());
    assert!(!world.engine.forget(world.host.imports(), "g1").unwrap());
    assert_eq!(world.try_pull("alice", "g1", &json!(3), 10).unwrap_err(), PullRefused::ClientStateNotFound);
}

#[test]
fn a_push_may_make_the_group_before_the_first_pull() {
    let world = World::new();
    world.push("alice", "g1", &[("c1", 1, "addTodo", json!({"id": "t1"}))]);
    let mut client = Client::new("alice", "g1");
    assert_eq!(client.pull(&world).keys(), ["todos/t1"]);
    assert_eq!((world.version(), client.resets), (1, 0));
}

#[test]
fn another_context_starts_anew_once() {
    let world = World::new();
    world.push("alice", "ga", &[("c1", 1, "addTodo", json!({"id": "t1"})), ("c1", 2, "addTodo", json!({"id": "t2", "shared": false}))]);
    let mut bob = Client::new("bob", "gb");
    bob.pull(&world);
    bob.caller.context.insert("role".into(), json!("admin"));
    bob.caller.context_digest = "digest of an admin".into();
    assert_eq!(bob.pull(&world).keys(), ["todos/t1", "todos/t2"]);
    let after = bob.cookie.clone();
    bob.pull(&world);
    assert_eq!((bob.resets, bob.cookie == after), (1, true));
    // A reply that was lost: the old cookie gets the reset again.
    bob.cookie = json!(2);
    bob.pull(&world);
    assert_eq!(bob.resets, 2);
}

#[test]
fn a_reset_of_a_paged_client_has_orders_above_its_own() {
    let world = World::new();
    fill(&world, 9);
    world.push("alice", "g1", &[("c1", 1, "noop", Json::Null)]);
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    fill_more(&world);
    world.compact(CompactUpTo::Keep(0));
    assert!(client.pull_page(&world, 5));
    assert_eq!(client.cookie, json!({"order": 10.000000953674316, "v": 5, "s": 11}));
    while client.pull_page(&world, 5) {}
    assert_eq!((client.resets, client.rows.len(), &client.cookie, client.last_ids["c1"]), (1, 10, &json!(11), 1));
}

#[test]
fn an_idle_pull_asks_one_question_and_writes_nothing() {
    let world = World::new();
    fill(&world, 3);
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    let (statements, begun) = (world.host.executor.statements.get(), world.host.executor.begun.get());
    client.pull(&world);
    assert_eq!((world.host.executor.statements.get() - statements, world.host.executor.begun.get() - begun), (1, 0));
}

#[test]
fn idle_groups_are_forgotten_and_busy_ones_are_not() {
    let world = World::with(EngineOptions { client_group_ttl_ms: 1000, ..EngineOptions::default() });
    world.push("alice", "idle", &[("c1", 1, "noop", Json::Null)]);
    let mut busy = Client::new("alice", "busy");
    busy.pull(&world);
    for _ in 0..4 {
        world.host.now_ms.set(world.host.now_ms.get() + 500);
        busy.pull(&world);
    }
    assert_eq!(world.engine.expire(world.host.imports(), None).unwrap(), None);
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_client_groups"), 1);
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_mutations"), 0);
    busy.pull(&world);
    assert_eq!(
        world.try_push("alice", "idle", &[("c1", 2, "noop", Json::Null)]),
        Err(crate::plasma::push::PushRefused::ClientStateNotFound)
    );
}
