//! SQLite.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Probe, fails};

fn open(name: &str) -> Value {
    json!({"do": "sqlite-open", "label": "default", "as": name})
}

fn sql(on: &str, text: &str) -> Value {
    json!({"do": "sqlite", "on": on, "sql": text})
}

#[tokio::test]
async fn of_a_text_only_the_first_statement_runs() {
    let probe = Probe::start().await;
    let results = probe
        .run(json!([
            open("a"),
            sql("a", "CREATE TABLE t (k INTEGER PRIMARY KEY); CREATE TABLE never (k)"),
            sql("a", "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"),
            sql("a", "SELECT k FROM t; SELECT 'second'"),
            sql("a", "SELECT * FROM never"),
        ]))
        .await;
    assert_eq!(results[3], json!({"columns": ["k"], "rows": [[1]]}));
    fails(&results[4], "no such table: never");
}

#[tokio::test]
async fn values_go_in_and_out_as_they_are() {
    let probe = Probe::start().await;
    let values = json!([null, -5, 2.5, "é\u{0}x", {"blob": [0, 255]}]);
    let select = json!({"do": "sqlite", "on": "a", "sql": "SELECT ?1, ?2, ?3, ?4, ?5", "parameters": values});
    let few = json!({"do": "sqlite", "on": "a", "sql": "SELECT ?1, ?2", "parameters": [1]});
    let results = probe.run(json!([open("a"), select, few, sql("a", "SELEC"), sql("a", "ATTACH '/tmp/other.db' AS other")])).await;
    assert_eq!(results[1]["rows"], json!([values]));
    fails(&results[2], "Got 1, needed 2");
    fails(&results[3], "syntax error");
    fails(&results[4], "not authorized");
}

#[tokio::test]
async fn every_handle_is_a_connection_and_dropping_it_rolls_back() {
    let probe = Probe::start().await;
    let results = probe
        .run(json!([
            open("a"),
            sql("a", "CREATE TABLE t (k INTEGER PRIMARY KEY)"),
            open("b"),
            sql("a", "BEGIN IMMEDIATE"),
            sql("a", "INSERT INTO t VALUES (1)"),
            sql("b", "SELECT count(*) FROM t"),
            {"do": "sqlite-close", "on": "a"},
            sql("b", "SELECT count(*) FROM t"),
            sql("b", "PRAGMA foreign_keys"),
            sql("b", "PRAGMA journal_mode"),
        ]))
        .await;
    assert_eq!((&results[5]["rows"], &results[7]["rows"]), (&json!([[0]]), &json!([[0]])));
    assert_eq!((&results[8]["rows"], &results[9]["rows"]), (&json!([[1]]), &json!([["delete"]])));
    let other = probe.run(json!([{"do": "sqlite-open", "label": "other", "as": "o"}])).await;
    fails(&other[0], "AccessDenied");
}

#[tokio::test]
async fn a_trap_rolls_back_and_what_was_committed_survives_a_restart() {
    let probe = Probe::start().await;
    probe.run(json!([open("a"), sql("a", "CREATE TABLE t (k)"), sql("a", "INSERT INTO t VALUES ('kept')")])).await;
    let steps = json!([open("a"), sql("a", "BEGIN IMMEDIATE"), sql("a", "INSERT INTO t VALUES ('lost')"), {"do": "trap"}]);
    let trapped = syncline_tests::http::request(probe.spin.address(), &http::Method::POST, "/run", &[], steps.to_string()).await;
    assert_eq!((trapped.status, trapped.body.len()), (500, 0));
    let look = json!([open("a"), sql("a", "SELECT k FROM t"), sql("a", "BEGIN IMMEDIATE")]);
    let expected = json!([null, {"columns": ["k"], "rows": [["kept"]]}, {"columns": [], "rows": []}]);
    assert_eq!(probe.run(look.clone()).await, *expected.as_array().expect("a list"));
    let folder = probe.stop().await;
    let again = Probe::on(folder, |_| {}).await;
    assert_eq!(again.run(look).await, *expected.as_array().expect("a list"));
}

#[tokio::test]
async fn who_meets_a_lock_waits_for_five_seconds() {
    let probe = Probe::start().await;
    let since = Instant::now();
    let results = probe.run(json!([open("a"), open("b"), sql("a", "BEGIN IMMEDIATE"), sql("b", "BEGIN IMMEDIATE")])).await;
    fails(&results[3], "database is locked");
    assert!(since.elapsed() >= Duration::from_millis(4900), "{:?}", since.elapsed());
}
