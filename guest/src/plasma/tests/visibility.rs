//! Rows that come and go because rows of other tables did.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::plasma::compaction::CompactUpTo;
use crate::plasma::engine::EngineOptions;

fn join(world: &World, team: &str, user: &str) {
    bypass(world, &json!([{"insert": {"table": "members", "row": {"team": team, "userId": user}}}]));
}

fn leave(world: &World, team: &str, user: &str) {
    bypass(world, &json!([{"delete": {"table": "members", "pk": [team, user]}}]));
}

fn boards(world: &World, boards: &[(&str, &str)]) {
    let insert = |(id, team): &(&str, &str)| json!({"insert": {"table": "boards", "row": {"id": id, "team": team, "name": id}}});
    bypass(world, &boards.iter().map(insert).collect::<Json>());
}

#[test]
fn a_membership_gained_brings_just_its_boards() {
    let world = World::new();
    boards(&world, &[("b1", "x"), ("b2", "y")]);
    let mut bob = Client::new("bob", "gb");
    assert!(bob.pull(&world).rows.is_empty());
    join(&world, "x", "bob");
    bob.pull(&world);
    assert_eq!((bob.last_ops.join(", "), bob.resets), ("put boards/b1, put members/x/bob".into(), 0));
    // Nothing comes twice.
    let cookie = bob.cookie.clone();
    assert_eq!(bob.pull(&world).cookie, cookie);
    join(&world, "x", "carol");
    assert_eq!(bob.pull(&world).last_ops, ["put members/x/carol"]);
    leave(&world, "x", "bob");
    assert_eq!(bob.pull(&world).last_ops, ["del boards/b1", "del members/x/bob"]);
    assert_eq!(bob.resets, 0);
}

#[test]
fn a_membership_that_came_and_went_between_two_pulls_leaves_no_trace() {
    let world = World::new();
    boards(&world, &[("b1", "x")]);
    join(&world, "x", "bob");
    let mut bob = Client::new("bob", "gb");
    bob.pull(&world);
    leave(&world, "x", "bob");
    join(&world, "x", "bob");
    assert_eq!(bob.pull(&world).last_ops, ["put members/x/bob"]);
}

#[test]
fn a_board_that_changed_while_it_became_visible_comes_once() {
    let world = World::new();
    boards(&world, &[("b1", "x"), ("b2", "x")]);
    let mut bob = Client::new("bob", "gb");
    bob.pull(&world);
    join(&world, "x", "bob");
    bypass(&world, &json!([{"update": {"table": "boards", "pk": ["b2"], "set": {"name": "new"}}}]));
    assert_eq!(bob.pull(&world).last_ops, ["put boards/b1", "put members/x/bob", "put boards/b2"]);
}

#[test]
fn visibility_reaches_through_two_tables() {
    let world = World::new();
    let card = |id: &str, board: &str| json!({"insert": {"table": "cards", "row": {"id": id, "board": board, "text": ""}}});
    bypass(&world, &json!([card("c1", "b1"), card("c2", "b2")]));
    let mut bob = Client::new("bob", "gb");
    // Cards without a board are everybody's.
    assert_eq!(bob.pull(&world).keys(), ["cards/c1", "cards/c2"]);
    boards(&world, &[("b1", "x"), ("b2", "y")]);
    assert_eq!(bob.pull(&world).last_ops, ["del cards/c1", "del cards/c2", "del boards/b1", "del boards/b2"]);
    join(&world, "x", "bob");
    assert_eq!(bob.pull(&world).keys(), ["boards/b1", "cards/c1", "members/x/bob"]);
    bypass(&world, &json!([{"update": {"table": "boards", "pk": ["b2"], "set": {"team": "x"}}}]));
    assert_eq!(bob.pull(&world).last_ops, ["put cards/c2", "put boards/b2"]);
    bypass(&world, &json!([{"delete": {"table": "boards", "pk": ["b1"]}}]));
    leave(&world, "x", "bob");
    assert_eq!(bob.pull(&world).keys(), ["cards/c1"]);
    assert_eq!(bob.resets, 0);
}

#[test]
fn a_membership_gained_in_the_middle_of_a_first_load_is_not_missed() {
    let world = World::new();
    boards(&world, &[("b1", "x")]);
    for n in 0..6 {
        bypass(&world, &json!([{"insert": {"table": "counters", "row": {"id": format!("k{n}")}}}]));
    }
    boards(&world, &[("b2", "x")]);
    let mut bob = Client::new("bob", "gb");
    assert!(bob.pull_page(&world, 3));
    join(&world, "x", "bob");
    assert!(bob.pull_page(&world, 3));
    assert!(bob.keys().contains(&"boards/b1"));
    leave(&world, "x", "bob");
    join(&world, "x", "carol");
    while bob.pull_page(&world, 3) {}
    assert_eq!(bob.keys().iter().filter(|key| key.starts_with("boards")).count(), 0);
    assert_eq!(bob.resets, 0);
}

#[test]
fn without_images_of_the_past_a_client_starts_anew_once() {
    let world = World::with(EngineOptions { before_images: false, ..EngineOptions::default() });
    boards(&world, &[("b1", "x")]);
    let mut bob = Client::new("bob", "gb");
    bob.pull(&world);
    join(&world, "x", "bob");
    assert_eq!(bob.pull(&world).keys(), ["boards/b1", "members/x/bob"]);
    bypass(&world, &json!([{"insert": {"table": "counters", "row": {"id": "k"}}}]));
    bob.pull(&world);
    assert_eq!((bob.resets, bob.last_ops.len()), (1, 1));
    // Images that are kept from now on serve cookies from now on.
    let world = world.restarted(EngineOptions::default(), &schema());
    world.engine.start(world.host.imports()).unwrap();
    leave(&world, "x", "bob");
    assert_eq!(bob.pull(&world).keys(), ["counters/k"]);
    assert_eq!(bob.resets, 1);
}

#[test]
fn compacted_images_cost_one_reset() {
    let world = World::new();
    boards(&world, &[("b1", "x")]);
    join(&world, "x", "bob");
    let mut bob = Client::new("bob", "gb");
    bob.pull(&world);
    leave(&world, "x", "bob");
    world.compact(CompactUpTo::Keep(0));
    bob.pull(&world);
    assert_eq!((bob.rows.len(), bob.resets), (0, 1));
    join(&world, "x", "bob");
    bob.pull(&world);
    assert_eq!((bob.keys(), bob.resets), (vec!["boards/b1", "members/x/bob"], 1));
}
