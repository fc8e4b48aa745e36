//! Compaction: what goes, what stays, and what nobody may lose.

use serde_json::json;

use super::support::*;
use crate::plasma::compaction::CompactUpTo;
use crate::plasma::push::MutationStatus;

fn log(world: &World) -> i64 {
    world.number("SELECT count(*) FROM t__plasma_changes")
}

#[test]
fn superseded_entries_tombstones_and_images_go() {
    let world = World::new();
    for id in 1..=5 {
        world.push("alice", "g1", &[("c1", id, "inc", json!({"id": "k"}))]);
    }
    bypass(&world, &json!([{"insert": {"table": "counters", "row": {"id": "gone"}}}]));
    bypass(&world, &json!([{"delete": {"table": "counters", "pk": ["gone"]}}]));
    assert_eq!(log(&world), 8);
    let done = world.compact(CompactUpTo::Version(4));
    assert_eq!((done.removed, done.kept, done.min_version), (5, Some(3), 4));
    let done = world.compact(CompactUpTo::Keep(0));
    assert_eq!((done.removed, done.kept, done.min_version), (2, Some(1), 7));
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_changes WHERE before IS NOT NULL"), 0);
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_mutations"), 1);
    // Nothing is left to do, and the beginning never moves back.
    let done = world.compact(CompactUpTo::Version(2));
    assert_eq!((done.removed, done.kept, done.min_version), (0, Some(1), 7));
    let done = world.compact(CompactUpTo::Version(99));
    assert_eq!((done.removed, done.min_version), (0, 7));
}

#[test]
fn duplicates_stay_duplicates_and_old_cookies_get_one_reset() {
    let world = World::new();
    let mut old = Client::new("alice", "g1");
    world.push("alice", "g1", &[("c1", 1, "inc", json!({"id": "k"}))]);
    old.pull(&world);
    let mut current = Client::new("bob", "g2");
    world.push("alice", "g1", &[("c1", 2, "inc", json!({"id": "k"}))]);
    current.pull(&world);
    world.compact(CompactUpTo::Keep(0));
    let reply = world.push("alice", "g1", &[("c1", 1, "inc", json!({"id": "k"})), ("c1", 2, "inc", json!({"id": "k"}))]);
    assert!(reply.results.iter().all(|result| result.status == MutationStatus::Duplicate));
    world.push("alice", "g1", &[("c1", 3, "inc", json!({"id": "k"}))]);
    old.pull(&world).pull(&world);
    current.pull(&world);
    assert_eq!((old.resets, current.resets, old.last_ids["c1"]), (1, 0, 3));
    assert_eq!(old.rows, current.rows);
}

#[test]
fn tombstones_may_go_alone_when_they_are_old() {
    let world = World::new();
    for n in 0..3 {
        world.host.now_ms.set(1_000 * (n + 1));
        bypass(
            &world,
            &json!([{"upsert": {"table": "counters", "row": {"id": "k", "n": n + 1}}}, {"insert": {"table": "members", "row": {"team": "t", "userId": format!("{n}")}}}]),
        );
        bypass(&world, &json!([{"delete": {"table": "members", "pk": ["t", format!("{n}")]}}]));
    }
    let done = world.engine.compact(world.host.imports(), CompactUpTo::Before(3_000), true).unwrap();
    assert_eq!((done.removed, done.min_version, done.next), (2, 4, None));
    assert_eq!(world.number("SELECT count(*) FROM t__plasma_changes WHERE op = 'del'"), 1);
    assert_eq!(world.engine.compact(world.host.imports(), CompactUpTo::Before(1_000), true).unwrap().min_version, 4);
}

#[test]
fn a_large_log_is_compacted_in_steps_between_which_others_write() {
    let world = World::new();
    let items: Vec<_> = (0..3_000).map(|n| json!({"id": format!("k{n}"), "n": n})).collect();
    world.run("alice", "many", json!({"items": items})).unwrap();
    let mut reader = Client::new("bob", "gb");
    reader.pull(&world);
    for n in 1..9 {
        let update = |k: u64| json!({"update": {"table": "counters", "pk": [format!("k{k}")], "set": {"n": -(n as i64) - (k as i64)}}});
        bypass(&world, &(0..3_000).map(update).collect());
    }
    let mut steps = 0;
    let mut step = world.engine.compact(world.host.imports(), CompactUpTo::Keep(0), false).unwrap();
    while let Some(next) = step.next {
        steps += 1;
        bypass(&world, &json!([{"delete": {"table": "counters", "pk": [format!("k{steps}")]}}]));
        step = world.engine.compact_on(world.host.imports(), next).unwrap();
    }
    assert!(steps >= 1);
    assert_eq!((step.kept, step.min_version), (Some(3_000), 9));
    reader.pull(&world);
    assert_eq!((reader.resets, reader.rows.len() as u64), (1, 3_000 - steps));
}
