//! Pushes: order, duplicates, holes, ownership, failures.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::SqlError;
use crate::plasma::engine::Dialect;
use crate::plasma::failure::Failure;
use crate::plasma::push::{MutationStatus, OverLimit, PushRefused};
use crate::test_host::Fault;

fn inc(id: u64) -> (&'static str, u64, &'static str, Json) {
    ("c1", id, "inc", json!({"id": "k"}))
}

fn counter(world: &World) -> i64 {
    world.number("SELECT n FROM t_counters WHERE id = 'k'")
}

fn statuses(reply: &crate::plasma::push::PushReply) -> Vec<&'static str> {
    let name = |status: &MutationStatus| match status {
        MutationStatus::Applied => "applied",
        MutationStatus::Duplicate => "duplicate",
        MutationStatus::Error(_) => "error",
    };
    reply.results.iter().map(|result| name(&result.status)).collect()
}

#[test]
fn a_queue_sent_again_with_more_is_applied_once() {
    let world = World::new();
    assert_eq!(world.push("alice", "g1", &[inc(1), inc(2)]).version, 2);
    let reply = world.push("alice", "g1", &[inc(1), inc(2), inc(3)]);
    assert_eq!((statuses(&reply), reply.version, reply.new_mutations), (vec!["duplicate", "duplicate", "applied"], 3, 1));
    assert_eq!(reply.last_mutation_ids, [("c1".to_owned(), 3)].into());
    assert_eq!(counter(&world), 3);
    let reply = world.push("alice", "g1", &[inc(2)]);
    assert_eq!((statuses(&reply), reply.version), (vec!["duplicate"], 3));
    assert_eq!(reply.last_mutation_ids, [("c1".to_owned(), 3)].into());
    // A push of duplicates commits nothing and tells nobody.
    assert_eq!(*world.hooks.commits.borrow(), [(2, 3, 2, Some("c1".into())), (3, 1, 1, Some("c1".into()))]);
}

#[test]
fn a_mutation_that_fails_is_undone_and_acknowledged() {
    let world = World::new();
    let reply = world.push("alice", "g1", &[("c1", 1, "writeThenFail", json!({"id": "x"})), ("c1", 2, "inc", json!({"id": "k", "by": 2}))]);
    assert_eq!((statuses(&reply), reply.version, reply.rows_changed), (vec!["error", "applied"], 2, 2));
    let MutationStatus::Error(error) = &reply.results[0].status else { panic!("it failed") };
    assert_eq!((error.name.as_str(), error.message.as_str()), ("Error", "refused by rule"));
    let mut client = Client::new("alice", "g1");
    client.pull(&world);
    assert_eq!(client.rows, [("counters/k".to_owned(), json!({"id": "k", "n": 2}))].into());
    assert_eq!(client.last_ids["c1"], 2);
}

#[test]
fn unknown_names_are_acknowledged_errors() {
    let world = World::new();
    for (index, name) in ["__proto__", "constructor", "nowhere.insert", "counters.drop", "toString", ""].iter().enumerate() {
        let reply = world.push("alice", "g1", &[("c1", index as u64 + 1, name, Json::Null)]);
        let MutationStatus::Error(error) = &reply.results[0].status else { panic!("{name}") };
        assert_eq!(error.message, format!("unknown mutator: {name}"));
    }
    assert_eq!(world.version(), 6);
}

#[test]
fn a_hole_in_a_batch_runs_nothing() {
    let world = World::new();
    for batch in [vec![inc(1), inc(3)], vec![inc(2), inc(1)], vec![inc(1), inc(1)]] {
        assert!(matches!(world.try_push("alice", "g1", &batch), Err(PushRefused::Invalid(_))));
    }
    // Clients of one batch are numbered apart.
    let other = |id| ("c2", id, "inc", json!({"id": "k"}));
    assert_eq!(world.push("alice", "g1", &[inc(1), other(1), inc(2), other(2)]).new_mutations, 4);
    assert_eq!(counter(&world), 4);
}

#[test]
fn a_client_ahead_of_the_server_has_lost_its_state_there() {
    let world = World::new();
    assert_eq!(world.try_push("alice", "g1", &[("c9", 4, "inc", json!({"id": "k"}))]), Err(PushRefused::ClientStateNotFound));
    world.push("alice", "g1", &[inc(1)]);
    // Nothing of the push is kept, not even what another client sent with it.
    let batch = [("c2", 1, "inc", json!({"id": "k"})), inc(3)];
    assert_eq!(world.try_push("alice", "g1", &batch), Err(PushRefused::ClientStateNotFound));
    assert_eq!((counter(&world), world.version()), (1, 1));
}

#[test]
fn groups_and_clients_belong_to_one_owner_for_ever() {
    let world = World::new();
    world.push("alice", "g1", &[inc(1)]);
    assert_eq!(world.try_push("bob", "g1", &[("c2", 1, "noop", Json::Null)]), Err(PushRefused::ClientGroupOwner));
    assert_eq!(world.try_push("alice", "g2", &[inc(2)]), Err(PushRefused::ClientOfAnotherGroup));
    assert_eq!(world.try_push("bob", "g3", &[inc(2)]), Err(PushRefused::ClientOfAnotherGroup));
    assert_eq!(world.version(), 1);
}

#[test]
fn too_many_mutations_are_applied_in_parts() {
    let mut world = World::new();
    world.mutations_max = 3;
    let queue: Vec<_> = (1..=7).map(inc).collect();
    let done: Vec<_> = (0..3)
        .map(|_| world.push("alice", "g1", &queue))
        .map(|reply| (reply.new_mutations, reply.remaining, reply.last_mutation_ids["c1"]))
        .collect();
    assert_eq!(done, [(3, 4, 3), (3, 1, 6), (1, 0, 7)]);
    let more: Vec<_> = (8..=11).map(inc).collect();
    let mut request = world.push_request("g1", &more);
    request.over_limit = OverLimit::Reject;
    assert_eq!(world.send("alice", &request), Err(PushRefused::TooMany { limit: 3, got: 4 }));
    // The native dialect counts everything, also duplicates.
    let mut request = world.push_request("g1", &queue);
    request.dialect = Dialect::Native;
    assert_eq!(world.send("alice", &request), Err(PushRefused::TooMany { limit: 3, got: 7 }));
    assert_eq!(counter(&world), 7);
}

#[test]
fn a_database_that_fails_acknowledges_nothing() {
    let world = World::new();
    world.push("alice", "g1", &[inc(1)]);
    let away = || SqlError::Unavailable("away".into());
    for fault in [Fault::Begin, Fault::Statement(0), Fault::Statement(3), Fault::Statement(5), Fault::Statement(8), Fault::Commit] {
        world.host.fail(fault, away());
        let refused = world.try_push("alice", "g1", &[inc(2), inc(3)]).unwrap_err();
        assert!(matches!(refused, PushRefused::Failure(Failure::Unavailable(_))), "{fault:?}: {refused:?}");
        assert_eq!((counter(&world), world.version()), (1, 1), "{fault:?}");
    }
    world.host.fail(Fault::Statement(4), SqlError::Aborted);
    assert_eq!(world.try_push("alice", "g1", &[inc(2)]), Err(PushRefused::Failure(Failure::Aborted)));
    assert_eq!(world.push("alice", "g1", &[inc(2), inc(3)]).new_mutations, 2);
}

#[test]
fn envelopes_beyond_the_rules_refuse_a_native_push_and_fail_a_mutation_of_the_other() {
    let world = World::new();
    let broken = json!({"id": "n", "deep": [{"v": 1, "alg": "a", "keyId": "k", "iv": "AAAA", "ct": "not base64"}]});
    let batch = [inc(1), ("c1", 2, "noop", broken)];
    let mut request = world.push_request("g1", &batch);
    request.dialect = Dialect::Native;
    assert!(matches!(world.send("alice", &request), Err(PushRefused::Invalid(_))));
    assert_eq!(world.version(), 0);
    assert_eq!(statuses(&world.push("alice", "g1", &batch)), ["applied", "error"]);
}

#[test]
fn a_push_of_many_takes_few_statements() {
    let world = World::new();
    let items: Vec<_> = (0..50).map(|n| ("c1", n + 1, "addTodo", json!({"id": format!("t{n}")}))).collect();
    let before = world.host.executor.statements.get();
    world.push("alice", "g1", &items);
    // One insert each, and a handful for all of them together.
    let statements = world.host.executor.statements.get() - before;
    assert!(statements <= 60, "{statements}");
}
