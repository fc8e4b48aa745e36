//! Falls of an app, which take the instance along.

use super::*;

/// An instance that enters operations in one call. `falls`: it never comes to the end of the call.
fn call(world: &World, operations: &[&str], falls: bool) -> Vec<u32> {
    let back = world.instance();
    back.begin("m", false);
    let before = operations.iter().map(|operation| back.enter("client", operation)).collect();
    if !falls {
        back.end(false).unwrap();
    }
    before
}

#[test]
fn three_falls_of_an_operation_are_known_when_it_comes_again() {
    let world = World::new();
    assert_eq!(call(&world, &["1", "2"], false), [0, 0]);
    assert_eq!(call(&world, &["3", "4"], true), [0, 0]);
    assert_eq!(call(&world, &["3", "4"], true), [0, 0], "it may have been either");
    assert_eq!(call(&world, &["3", "4"], true), [0, 2]);
    assert_eq!(call(&world, &["3", "4", "5"], false), [0, 3, 0], "only the one that fell");
    assert_eq!(call(&world, &["6", "7"], false), [0, 0], "it is over");
}

#[test]
fn others_are_not_concerned_and_the_store_keeps_nothing_of_what_ended() {
    let world = World::new();
    assert_eq!(call(&world, &["1"], true), [0]);
    let other = world.instance();
    other.begin("m", false);
    assert_eq!(other.enter("another client", "1"), 0);
    other.end(false).unwrap();
    assert_eq!(world.facts.borrow().len(), 1);
    assert_eq!(call(&world, &["1"], false), [0]);
    assert!(world.facts.borrow().is_empty());
}
