//! PostgreSQL.

use serde_json::{Value, json};
use syncline_tests::postgres::PostgresServer;
use syncline_tests::spin::Kind;

use super::{Probe, fails, kind};

fn sql(text: &str, parameters: Value) -> Value {
    json!({"do": "postgres", "on": "a", "sql": text, "parameters": parameters})
}

fn execute(text: &str) -> Value {
    json!({"do": "postgres-execute", "on": "a", "sql": text})
}

#[tokio::test]
async fn what_one_request_leaves_open_the_next_one_gets() {
    let server = PostgresServer::start().await;
    let probe = Probe::start().await;
    let open = json!({"do": "postgres-open", "address": server.url(), "as": "a"});
    let count = sql("SELECT count(*) FROM t", json!([]));
    probe.run(json!([open, execute("CREATE TABLE t (k BIGINT)")])).await;
    probe.run(json!([open, execute("BEGIN"), execute("INSERT INTO t VALUES (1)")])).await;
    let found = probe.run(json!([open, count, execute("ROLLBACK"), count])).await;
    assert_eq!((&found[1]["rows"], &found[3]["rows"]), (&json!([[1]]), &json!([[0]])), "{found:?}");
}

#[tokio::test]
async fn values_have_types_and_errors_the_words_of_the_driver() {
    let server = PostgresServer::start().await;
    let probe = Probe::start().await;
    let open = json!({"do": "postgres-open", "address": server.url(), "as": "a"});
    let values = json!([null, true, -5, 2.5, "é", {"blob": [0, 255]}]);
    let all = "SELECT $1::text AS n, $2::boolean AS b, $3::bigint AS i, $4::float8 AS f, $5::text AS t, $6::bytea AS y";
    let results = probe
        .run(json!([
            open,
            sql(all, values.clone()),
            // Others have no form either, or the whole query fails: Spin 4.1 does so for timestamps with a time zone.
            sql("SELECT 1.5::numeric", json!([])),
            sql("SELECT $1::jsonb", json!(["{}"])),
            execute("CREATE TABLE t (k BIGINT PRIMARY KEY)"),
            execute("INSERT INTO t SELECT generate_series(1, 3)"),
            execute("INSERT INTO t VALUES (1)"),
            execute("SELECT 1; SELECT 2"),
        ]))
        .await;
    assert_eq!(results[1]["rows"], json!([values]));
    assert_eq!(results[1]["columns"][2], json!(["i", "DbDataType::Int64"]));
    assert_eq!(results[2]["rows"], json!([["DbValue::Unsupported"]]));
    fails(&results[3], "WrongType { postgres: Jsonb");
    assert_eq!(results[5], 3);
    fails(&results[6], "23505");
    fails(&results[7], "cannot insert multiple commands");
    let nobody = probe.run(json!([{"do": "postgres-open", "address": "postgres://nobody@127.0.0.1:1/none", "as": "b"}])).await;
    fails(&nobody[0], "ConnectionFailed");
}

/// Spin 4.0 would not answer at all, nor end the request (spinframework/spin#3671), so only the fake can be asked.
#[tokio::test]
async fn no_row_is_no_answer() {
    if kind() == Kind::Up {
        return;
    }
    let server = PostgresServer::start().await;
    let probe = Probe::start().await;
    let open = json!({"do": "postgres-open", "address": server.url(), "as": "a"});
    let results = probe.run(json!([open, sql("SELECT 1 WHERE false", json!([]))])).await;
    fails(&results[1], "no row");
}
