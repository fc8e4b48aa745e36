//! SQL of the logic over SQLite.

use super::*;
use crate::sql::{ConstraintKind, Dialect};

fn prepared() -> (World, Back) {
    let world = World::new();
    let back = world.instance();
    back.write("CREATE TABLE {}t (a INTEGER PRIMARY KEY, b INTEGER UNIQUE CHECK (b < 100), c INTEGER REFERENCES {}t (a))", &[]);
    (world, back)
}

#[test]
fn a_database_is_a_prefix_that_no_other_mount_has() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let info = back.describe("main").unwrap();
    assert_eq!((info.dialect, info.table_prefix.as_str()), (Dialect::Sqlite, "m_m_main_4_"));
    assert_eq!(back.describe("graph/1").unwrap(), back.describe("graph/2").unwrap());
    back.begin("n", false);
    assert_eq!(back.describe("main").unwrap().table_prefix, "m_n_main_4_");
}

#[test]
fn what_is_committed_is_seen_by_other_instances_and_nothing_else() {
    let (world, back) = prepared();
    back.write("INSERT INTO {}t (a, b) VALUES (?, 1)", &[7.into()]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a, b) VALUES (8, 2)", &[]).unwrap();
    let other = world.instance();
    other.begin("m", false);
    assert_eq!(other.numbers("SELECT a FROM {}t"), [7]);
    back.drop_transaction(handle);
    back.end(false).unwrap();
    assert_eq!(other.numbers("SELECT a FROM {}t"), [7]);
}

#[test]
fn an_instance_that_dies_within_a_transaction_leaves_nothing() {
    let (world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a) VALUES (1)", &[]).unwrap();
    drop(back);
    assert_eq!(world.connections.get(), 0);
    let other = world.instance();
    other.begin("m", false);
    assert_eq!(other.numbers("SELECT a FROM {}t"), [0_i64; 0]);
}

#[test]
fn a_call_that_never_ended_is_undone_by_the_next() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let stale = back.begin_transaction("main").unwrap();
    back.run(stale, "INSERT INTO {}t (a) VALUES (1)", &[]).unwrap();
    back.begin("m", false);
    assert_eq!(back.numbers("SELECT a FROM {}t"), [0_i64; 0]);
    assert!(matches!(back.commit(stale), Err(Error::InvalidStatement(_))));
    let handle = back.begin_transaction("main").unwrap();
    back.drop_transaction(stale);
    back.run(handle, "INSERT INTO {}t (a) VALUES (2)", &[]).unwrap();
    back.commit(handle).unwrap();
    assert_eq!(back.numbers("SELECT a FROM {}t"), [2]);
}

#[test]
fn only_one_statement_runs_and_the_rest_is_an_error() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    for sql in ["DELETE FROM {}t; DELETE FROM {}t", "SELECT 1; SELECT 2", "COMMIT", "PRAGMA foreign_keys = 0", "ATTACH ':memory:' AS a"] {
        assert!(matches!(back.run(handle, sql, &[]), Err(Error::InvalidStatement(_))), "{sql}");
    }
    assert_eq!(decoded(&back.run(handle, "SELECT 1;", &[]).unwrap()), [1]);
}

#[test]
fn errors_have_the_kinds_of_the_contract() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a, b) VALUES (1, 1)", &[]).unwrap();
    let failed = |sql: &str| back.run(handle, sql, &[]).unwrap_err();
    let constraint = |kind, name: &str| Error::Constraint((kind, name.into()));
    assert_eq!(failed("INSERT INTO {}t (b) VALUES (1)"), constraint(ConstraintKind::Unique, "m_m_main_4_t.b"));
    assert_eq!(failed("INSERT INTO {}t (b) VALUES (100)"), constraint(ConstraintKind::Check, "b < 100"));
    assert!(matches!(failed("INSERT INTO {}t (c) VALUES (9)"), Error::Constraint((ConstraintKind::ForeignKey, _))));
    assert!(matches!(failed("SELECT * FROM {}missing"), Error::InvalidStatement(what) if what.contains("no such table")));
    assert!(matches!(failed("SELECT ?"), Error::InvalidStatement(_)));
    // The transaction goes on after each of them.
    back.commit(handle).unwrap();
    assert_eq!(back.numbers("SELECT a FROM {}t"), [1]);
}

#[test]
fn a_statement_that_rolls_back_everything_ends_the_transaction() {
    let (_world, back) = prepared();
    back.write("INSERT INTO {}t (a, b) VALUES (1, 1)", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a, b) VALUES (2, 2)", &[]).unwrap();
    assert!(matches!(back.run(handle, "INSERT OR ROLLBACK INTO {}t (a, b) VALUES (3, 1)", &[]), Err(Error::Constraint(_))));
    // Else this would be committed by itself.
    assert!(matches!(back.run(handle, "INSERT INTO {}t (a, b) VALUES (4, 4)", &[]), Err(Error::Unavailable(_))));
    assert!(matches!(back.commit(handle), Err(Error::Unavailable(_))));
    assert_eq!(back.numbers("SELECT a FROM {}t"), [1]);
}

#[test]
fn changes_are_counted_and_reads_count_none() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    let changed = |sql: &str| back.run(handle, sql, &[]).unwrap().changed;
    assert_eq!(changed("INSERT INTO {}t (a) VALUES (1), (2), (3)"), 3);
    assert_eq!(changed("SELECT * FROM {}t"), 0);
    assert_eq!(changed("WITH x AS (SELECT 2 AS a) DELETE FROM {}t WHERE a IN (SELECT a FROM x)"), 1);
    assert_eq!(changed("UPDATE {}t SET b = a RETURNING a"), 2);
    assert_eq!(changed("UPDATE {}t SET b = 0 WHERE a > 100"), 0);
    assert_eq!(changed("CREATE INDEX {}i ON {}t (c)"), 0);
}

#[test]
fn a_view_is_of_one_moment_and_only_reads() {
    let (_world, back) = prepared();
    back.write("INSERT INTO {}t (a) VALUES (1)", &[]);
    back.begin("m", false);
    let view = back.open_view("main").unwrap();
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a) VALUES (2)", &[]).unwrap();
    assert!(matches!(back.open_view("main"), Err(Error::InvalidStatement(_))));
    back.commit(handle).unwrap();
    let read = |sql: &str| back.query(&view, &statement(sql, &[]), None);
    assert_eq!(decoded(&read("SELECT a FROM {}t").unwrap()), [1]);
    assert!(matches!(read("DELETE FROM {}t"), Err(Error::InvalidStatement(what)) if what == "a snapshot only reads"));
    assert_eq!(back.numbers("SELECT a FROM {}t"), [1, 2]);
    let others: Vec<_> = (0..3).map(|_| back.open_view("main").unwrap()).collect();
    assert!(matches!(back.open_view("main"), Err(Error::Limit(_))));
    others.into_iter().for_each(|view| back.close_view(view));
    back.close_view(view);
}

#[test]
fn a_limit_of_rows_cuts_off_and_says_so() {
    let (_world, back) = prepared();
    back.write("INSERT INTO {}t (a) VALUES (3), (1), (2)", &[]);
    back.begin("m", false);
    let view = back.open_view("main").unwrap();
    let read = |sql: &str, limit| back.query(&view, &statement(sql, &[]), limit).unwrap();
    let first = read("SELECT a FROM {}t ORDER BY a DESC -- those at the end;", Some(2));
    assert_eq!((decoded(&first), first.truncated), (vec![3, 2], true));
    let all = read("WITH x AS (SELECT a FROM {}t) SELECT a, a FROM x ORDER BY a LIMIT 3;", Some(3));
    assert_eq!((decoded(&all), all.columns, all.truncated), (vec![1, 1, 2, 2, 3, 3], 2, false));
    assert!(read("SELECT a FROM {}t", Some(0)).truncated);
    let many = statement("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", &[]);
    assert!(matches!(back.query(&view, &many, None), Err(Error::Limit(what)) if what == "more than 100000 rows"));
    back.close_view(view);
}

#[test]
fn a_call_writes_one_database() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    assert!(matches!(back.begin_transaction("other"), Err(Error::InvalidStatement(_))));
    back.commit(handle).unwrap();
    assert!(matches!(back.begin_transaction("other"), Err(Error::InvalidStatement(_))));
    let again = back.begin_transaction("main").unwrap();
    back.commit(again).unwrap();
}

#[test]
fn a_second_begin_is_a_savepoint() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let outer = back.begin_transaction("main").unwrap();
    back.run(outer, "INSERT INTO {}t (a) VALUES (1)", &[]).unwrap();
    let inner = back.begin_transaction("main").unwrap();
    back.run(inner, "INSERT INTO {}t (a) VALUES (2)", &[]).unwrap();
    back.publish(publication("t", "dropped"));
    back.drop_transaction(inner);
    let inner = back.begin_transaction("main").unwrap();
    back.run(inner, "INSERT INTO {}t (a) VALUES (3)", &[]).unwrap();
    back.publish(publication("t", "kept"));
    back.commit(inner).unwrap();
    assert_eq!(back.numbers_in(outer, "SELECT a FROM {}t"), [1, 3]);
    back.commit(outer).unwrap();
    assert_eq!(back.end(false).unwrap().published, Some(1));
    assert_eq!(messages(&back, 0), ["kept"]);
}

#[test]
fn a_transaction_that_is_open_for_too_long_ends_and_long_calls_may_take_longer() {
    let (world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t (a) VALUES (1)", &[]).unwrap();
    world.pass_ms(1001);
    assert!(matches!(back.run(handle, "SELECT 1", &[]), Err(Error::Limit(_))));
    assert!(matches!(back.commit(handle), Err(Error::Limit(_))));
    back.end(true).unwrap();
    back.begin("m", true);
    assert_eq!(back.numbers("SELECT a FROM {}t"), [0_i64; 0]);
    let handle = back.begin_transaction("main").unwrap();
    world.pass_ms(1001);
    back.run(handle, "SELECT 1", &[]).unwrap();
    back.commit(handle).unwrap();
}

#[test]
fn a_writer_whose_turn_does_not_come_has_the_call_made_again() {
    let (world, back) = prepared();
    let other = world.other_connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    back.begin("m", false);
    back.publish(publication("t", "not yet"));
    assert_eq!(back.begin_transaction("main"), Err(Error::Aborted));
    other.execute_batch("ROLLBACK").unwrap();
    let ended = back.end(true).unwrap();
    assert!(ended.again && ended.published.is_none());
    assert_eq!(messages(&back, 0), Vec::<String>::new());
}

#[test]
fn a_call_that_did_what_cannot_be_repeated_fails_instead() {
    let (world, back) = prepared();
    back.begin("m", false);
    assert_eq!(back.increment("n", 1, None), Ok(1));
    let other = world.other_connection();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(back.begin_transaction("main"), Err(Error::Aborted));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(back.end(true).is_err());
}

#[test]
fn batches_stop_at_the_first_error() {
    let (_world, back) = prepared();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    let insert = |a: i64| statement("INSERT INTO {}t (a) VALUES (?)", &[a.into()]);
    assert_eq!(back.execute(handle, &[insert(1), insert(2)]).unwrap().len(), 2);
    assert!(matches!(back.execute(handle, &[insert(3), insert(1), insert(4)]), Err(Error::Constraint(_))));
    assert_eq!(back.numbers_in(handle, "SELECT a FROM {}t"), [1, 2, 3]);
}

#[test]
fn the_log_is_kept_ahead_and_connections_are_used_again() {
    let (world, back) = prepared();
    let mode: String = world.other_connection().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    for number in 0..5 {
        back.write("INSERT INTO {}t (a) VALUES (?)", &[number.into()]);
    }
    back.begin("m", false);
    assert_eq!(back.numbers("SELECT a FROM {}t").len(), 5);
    assert!(world.connections.get() <= 2, "{}", world.connections.get());
}

#[test]
fn without_a_call_or_settings_nothing_is_done() {
    let back = Back::new(World::new().ports());
    back.begin("m", false);
    assert!(matches!(back.begin_transaction("main"), Err(Error::Unavailable(_))));
    let (_world, back) = prepared();
    assert!(matches!(back.begin_transaction("main"), Err(Error::Unavailable(what)) if what == "no call is under way"));
}

impl Back {
    fn numbers_in(&self, handle: Handle, sql: &str) -> Vec<i64> {
        decoded(&self.run(handle, sql, &[]).unwrap())
    }
}
