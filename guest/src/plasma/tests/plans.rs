//! How the database carries out what pushes and pulls ask.

use serde_json::json;

use super::support::*;

#[test]
fn pushes_and_pulls_find_every_row_by_a_key() {
    let world = World::new();
    let mut bob = Client::new("bob", "gb");
    let card = json!([{"insert": {"table": "boards", "row": {"id": "b", "team": "x", "name": "b"}}},
        {"insert": {"table": "cards", "row": {"id": "c", "board": "b", "text": ""}}}]);
    bypass(&world, &card);
    bob.pull(&world);
    world.push("alice", "ga", &[("c1", 1, "inc", json!({"id": "k"})), ("c1", 2, "addTodo", json!({"id": "t"}))]);
    world.push("alice", "ga", &[("c1", 3, "share", json!({"id": "t", "shared": false})), ("c1", 4, "writeThenFail", json!({"id": "k"}))]);
    world.push("bob", "gb", &[("c2", 1, "members.insert", json!({"team": "x", "userId": "bob"}))]);
    world.push("bob", "gb", &[("c2", 2, "members.delete", json!({"team": "x", "userId": "bob"}))]);
    world.host.executor.texts.borrow_mut().clear();
    world.push("bob", "gb", &[("c2", 3, "members.insert", json!({"team": "x", "userId": "bob"})), ("c2", 4, "inc", json!({"id": "k"}))]);
    bob.pull(&world).pull(&world);
    // One on the way, too.
    let mut bob = Client { cookie: json!({"order": 1, "v": 1, "s": 1}), ..Client::new("bob", "gb") };
    while bob.pull_page(&world, 1) {}
    assert!(bob.keys().contains(&"cards/c"));
    for text in world.host.executor.texts.borrow().iter() {
        for step in world.host.plan(text) {
            // Lists in parameters, and the rows that changed, are walked; tables are not.
            let walks = step.starts_with("SCAN ") && !step.contains("VIRTUAL TABLE") && !step.contains("CONSTANT ROW");
            let of_changes = ["SCAN c1", "SCAN c2", "SCAN members images", "SCAN e9"].contains(&step.as_str());
            // There are few regions.
            let of_regions = step.contains("_plasma_region_versions") || step == "SCAN v";
            assert!(!walks || of_changes || of_regions, "{step}\n{text}");
        }
    }
}

#[test]
fn compaction_and_expiry_remove_by_key() {
    let world = World::with(crate::plasma::engine::EngineOptions { client_group_ttl_ms: 10, ..Default::default() });
    for id in 1..4 {
        world.push("alice", "ga", &[("c1", id, "inc", json!({"id": "k"}))]);
    }
    world.host.executor.texts.borrow_mut().clear();
    world.compact(crate::plasma::compaction::CompactUpTo::Before(2_000_000));
    world.host.now_ms.set(2_000_000);
    world.engine.expire(world.host.imports(), None).unwrap();
    for text in world.host.executor.texts.borrow().iter().filter(|text| text.starts_with("DELETE") || text.starts_with("UPDATE")) {
        let plan = world.host.plan(text);
        assert!(!plan.iter().any(|step| step.starts_with("SCAN t_")), "{plan:#?}\n{text}");
    }
}
