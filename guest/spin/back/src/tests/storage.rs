//! Key-value facts.

use super::*;
use crate::bindings::exports::syncline::host::storage::Error as StorageError;

fn get(back: &Back, key: &str) -> Option<String> {
    back.begin("m", false);
    let value = back.get(key).unwrap().map(|value| String::from_utf8(value).unwrap());
    back.end(false).unwrap();
    value
}

#[test]
fn what_is_set_is_seen_by_the_call_at_once_and_by_others_at_its_end() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    back.begin("m", false);
    back.set("a".into(), b"1x".to_vec(), None).unwrap();
    assert_eq!(back.get("a"), Ok(Some(b"1x".to_vec())));
    assert_eq!(get(&other, "a"), None);
    back.end(false).unwrap();
    assert_eq!(get(&other, "a").as_deref(), Some("1x"));
    other.begin("other", false);
    assert_eq!(other.get("a"), Ok(None));
    back.begin("m", false);
    back.delete("a".into()).unwrap();
    assert_eq!(back.get("a"), Ok(None));
    back.end(false).unwrap();
    assert_eq!(get(&other, "a"), None);
}

#[test]
fn a_call_that_fails_sets_nothing_but_what_its_commits_released() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    back.set("before".into(), b"x".to_vec(), None).unwrap();
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "CREATE TABLE {}t (a)", &[]).unwrap();
    back.commit(handle).unwrap();
    back.set("after".into(), b"x".to_vec(), None).unwrap();
    back.end(true).unwrap();
    assert_eq!((get(&back, "before").as_deref(), get(&back, "after")), (Some("x"), None));
    back.begin("m", false);
    back.set("c".into(), b"x".to_vec(), None).unwrap();
    back.end(true).unwrap();
    assert_eq!(get(&back, "c"), None);
}

#[test]
fn values_expire_and_keys_are_listed_in_the_order_of_their_bytes() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    for key in ["b", "a/2", "a/\u{10ffff}", "a/1", "a0", "a"] {
        back.set(key.into(), b"x".to_vec(), None).unwrap();
    }
    back.set("a/gone".into(), b"x".to_vec(), Some(10)).unwrap();
    back.end(false).unwrap();
    assert_eq!(get(&back, "a/gone").as_deref(), Some("x"));
    world.pass_ms(10);
    assert_eq!(get(&back, "a/gone"), None);
    back.begin("m", false);
    assert_eq!(back.keys("a/", None, 10).unwrap(), ["a/1", "a/2", "a/\u{10ffff}"]);
    assert_eq!(back.keys("", Some("a/1"), 3).unwrap(), ["a/2", "a/\u{10ffff}", "a0"]);
    assert_eq!(back.keys("a/", Some("a/\u{10ffff}"), 3).unwrap(), Vec::<String>::new());
    assert!(matches!(back.keys("", None, 10_001), Err(StorageError::Limit(_))));
    back.end(false).unwrap();
    back.clean(&back.opened().unwrap(), "m");
    let left: i64 = world.other_connection().query_row("SELECT count(*) FROM syncline_spin_keyvalue", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 6);
}

#[test]
fn counters_count_across_instances_and_expire_from_their_beginning() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    back.begin("m", false);
    other.begin("m", false);
    assert_eq!(back.increment("n", 5, Some(100)), Ok(5));
    world.pass_ms(60);
    assert_eq!(other.increment("n", -2, Some(100)), Ok(3));
    assert_eq!(back.increment("n", 0, None), Ok(3));
    assert_eq!(back.get("n"), Ok(Some(b"3".to_vec())));
    world.pass_ms(40);
    assert_eq!(back.increment("n", 0, None), Ok(0));
    assert_eq!(back.increment("n", 1, None), Ok(1));
    back.set("text".into(), b"01".to_vec(), None).unwrap();
    back.set("number".into(), b"41".to_vec(), None).unwrap();
    back.end(false).unwrap();
    assert_eq!(other.increment("text", 1, None), Err(StorageError::Conflict));
    assert_eq!(other.increment("text", 0, None), Ok(1));
    assert_eq!(other.increment("number", 1, None), Ok(42));
    assert_eq!(other.increment("number", i64::MAX, None), Err(StorageError::Conflict));
    assert_eq!(other.increment("number", i64::MIN, None), Ok(42 + i64::MIN));
    assert_eq!(other.increment("number", -43, None), Err(StorageError::Conflict));
}

#[test]
fn a_key_is_set_by_one_of_those_who_compare() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    back.begin("m", false);
    other.begin("m", false);
    assert_eq!(back.compare_and_set("a", None, b"one"), Ok(true));
    assert_eq!(other.compare_and_set("a", None, b"two"), Ok(false));
    assert_eq!(other.compare_and_set("a", Some(b"two"), b"three"), Ok(false));
    assert_eq!(other.compare_and_set("a", Some(b"one"), b"7"), Ok(true));
    assert_eq!(back.compare_and_set("a", Some(b"7"), b"four"), Ok(true));
    back.set("short".into(), b"x".to_vec(), Some(10)).unwrap();
    back.end(false).unwrap();
    world.pass_ms(10);
    assert_eq!(other.compare_and_set("short", Some(b"x"), b"y"), Ok(false));
    assert_eq!(other.compare_and_set("short", None, b"y"), Ok(true));
    assert_eq!(get(&back, "short").as_deref(), Some("y"));
}

/// SQLite has one writer: what is done at once goes along with the open transaction, and is done again where that is undone.
#[test]
fn what_is_done_at_once_outlives_the_transaction_that_was_open() {
    let world = World::new();
    let back = world.instance();
    back.write("CREATE TABLE {}t (a)", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    assert_eq!(back.increment("n", 2, None), Ok(2));
    let savepoint = back.savepoint(handle).unwrap();
    assert_eq!(back.increment("n", 3, None), Ok(5));
    assert_eq!(back.compare_and_set("lock", None, b"mine"), Ok(true));
    back.write_object("blob", "text/plain", b"content".to_vec()).unwrap();
    back.run(handle, "INSERT INTO {}t VALUES (1)", &[]).unwrap();
    back.rollback_to(handle, savepoint).unwrap();
    assert_eq!(back.increment("n", 0, None), Ok(5));
    back.drop_transaction(handle);
    back.end(true).unwrap();
    back.begin("m", false);
    assert_eq!(back.increment("n", 0, None), Ok(5));
    assert_eq!(back.compare_and_set("lock", None, b"theirs"), Ok(false));
    assert_eq!(back.read_object("blob", None), Ok(b"content".to_vec()));
    assert_eq!(back.numbers("SELECT a FROM {}t"), [0_i64; 0]);
}

#[test]
fn notes_last_as_long_as_the_call() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    back.note("who".into(), b"me".to_vec());
    assert_eq!(back.noted("who"), Some(b"me".to_vec()));
    back.end(false).unwrap();
    back.begin("m", false);
    assert_eq!(back.noted("who"), None);
}
