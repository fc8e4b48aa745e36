//! What the executor on PostgreSQL does beyond what every executor promises: it says little, survives its server, and shares
//! it with other processes.

use std::sync::Arc;
use std::time::Duration;

use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::{Executor as _, ExecutorError, Statement, Value};
use syncline_tests::eventually;
use syncline_tests::postgres::PostgresServer;
use syncline_tests::proxy::{Cut, Proxy};
use syncline_tests::tls::Certificate;

use crate::executors::{Stage, commit, connect, open};

fn statement(sql: &str, parameters: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), parameters }
}

/// A stage whose line to the server is watched.
async fn watched() -> (Stage, Proxy) {
    let stage = Stage::postgres().await;
    let url = stage.postgres.as_ref().expect("schemas").url();
    let (before, after) = url.split_once("127.0.0.1:").expect("an address");
    let (port, rest) = after.split_once('/').expect("a database");
    let proxy = Proxy::start(([127, 0, 0, 1], port.parse().expect("a port")).into()).await;
    let executor = connect(&format!("{before}{}/{rest}", proxy.address)).await;
    let (database, log) = open(&*executor, "main").await;
    let mut watched = stage.beside(executor, database, log);
    watched.postgres = stage.postgres;
    (watched, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_costs_one_round_trip_and_so_does_the_commit() {
    let (stage, proxy) = watched().await;
    // Statements are prepared when they are first run.
    for id in 0..2 {
        assert!(stage.write(&[("INSERT INTO item (id) VALUES (?)", vec![Value::Integer(id)])]).await);
    }
    proxy.round_trips();
    assert!(stage.write(&[("INSERT INTO item (id) VALUES (?)", vec![Value::Integer(2)])]).await);
    assert_eq!(proxy.round_trips(), 2, "the statement and the COMMIT");

    let mut transaction = stage.database.begin().await.expect("a turn");
    let outer = transaction.savepoint().await.expect("a savepoint");
    transaction.execute(&stage.insert(3), None).await.expect("an insert");
    transaction.release(outer).await.expect("it is open");
    let inner = transaction.savepoint().await.expect("a savepoint");
    transaction.execute(&stage.insert(4), None).await.expect("an insert");
    transaction.rollback_to(inner).await.expect("it is open");
    assert!(stage.log.of(commit(transaction).await.expect("a commit")).await);
    assert_eq!(proxy.round_trips(), 3, "savepoints travel with statements");

    let mut transaction = stage.database.begin().await.expect("a turn");
    let batch: Vec<_> = (10..60).map(|id| stage.insert(id)).collect();
    assert_eq!(transaction.execute_batch(&batch).await.expect("inserts").len(), 50);
    assert!(stage.log.of(commit(transaction).await.expect("a commit")).await);
    assert_eq!(proxy.round_trips(), 2, "a batch is sent as a whole");

    let mut view = stage.database.snapshot().await.expect("a view");
    for _ in 0..3 {
        view.query(&statement("SELECT id FROM item ORDER BY id", vec![]), None).await.expect("rows");
    }
    // The view, preparing the statement, and each query.
    assert_eq!(proxy.round_trips(), 5);
    drop(view);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_come_while_one_writes_share_its_commit() {
    let first = Stage::postgres().await;
    let mut settings = PostgresSettings::new(PostgresAddress::parse(first.postgres.as_ref().expect("schemas").url()).expect("an address"));
    settings.group_ms_max = 60_000;
    let executor = Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"));
    let (database, log) = open(&*executor, "main").await;
    let stage = first.beside(executor, database, log);
    let mut writer = stage.database.begin().await.expect("a turn");
    writer.execute(&stage.insert(0), None).await.expect("an insert");
    let others = (1..5).map(|id| {
        let (database, insert) = (Arc::clone(&stage.database), stage.insert(id));
        async move {
            let mut transaction = database.begin().await.expect("a turn");
            transaction.execute(&insert, None).await.expect("an insert");
            commit(transaction).await.expect("a commit")
        }
    });
    // The others wait in the queue before this one ends.
    let (groups, group) = tokio::join!(futures_util::future::join_all(others), commit(writer));
    let group = group.expect("a commit");
    assert!(groups.iter().all(|other| *other == group), "{groups:?} and {group}");
    assert!(stage.log.of(group).await);
    assert_eq!(first.ids().await, [0, 1, 2, 3, 4]);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fate_of_a_commit_without_an_answer_is_learned_from_the_server() {
    let (stage, proxy) = watched().await;
    for (id, cut, durable) in [(1, Cut::Request, false), (2, Cut::Answer, true), (3, Cut::Request, false)] {
        let mut transaction = stage.database.begin().await.expect("a turn");
        transaction.execute(&stage.insert(id), None).await.expect("an insert");
        proxy.cut_at("COMMIT", cut);
        let group = commit(transaction).await.expect("it is part of a group");
        assert_eq!(stage.log.of(group).await, durable, "{cut:?}");
        assert!(proxy.was_cut());
    }
    assert!(stage.write(&[("INSERT INTO item (id) VALUES (4)", vec![])]).await);
    assert_eq!(stage.ids().await, [2, 4]);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_aborts_is_to_be_run_again_and_costs_nobody_else() {
    let stage = Stage::postgres().await;
    let create =
        "CREATE FUNCTION give_up() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''conflict'' USING ERRCODE = ''40001''; END'";
    assert!(stage.write(&[(create, vec![])]).await);
    let hold = stage.database.hold();
    let mut kept = stage.database.begin().await.expect("a turn");
    kept.execute(&stage.insert(1), None).await.expect("an insert");
    let group = commit(kept).await.expect("a commit");
    let mut aborted = stage.database.begin().await.expect("a turn");
    aborted.execute(&stage.insert(2), None).await.expect("an insert");
    assert_eq!(aborted.execute(&statement("SELECT give_up()", vec![]), None).await, Err(ExecutorError::Aborted));
    // Nothing else can be done with it, and it cannot be committed.
    assert!(matches!(aborted.execute(&stage.insert(3), None).await, Err(ExecutorError::InvalidStatement(_))));
    assert!(matches!(commit(aborted).await, Err(ExecutorError::InvalidStatement(_))));
    drop(hold);
    assert!(stage.log.of(group).await);
    assert_eq!(stage.ids().await, [1]);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_another_process_changed_is_looked_at_anew() {
    let stage = Stage::postgres().await;
    let all = statement("SELECT item.* FROM (SELECT 1) AS one LEFT JOIN item ON true", vec![]);
    let read = async || stage.database.snapshot().await.expect("a view").query(&all, None).await;
    assert_eq!(read().await.expect("rows").rows.to_vec()[0].len(), 4);
    let schemas = stage.postgres.as_ref().expect("schemas");
    schemas.query("tests", "main", "ALTER TABLE item ADD COLUMN more TEXT", &[]);
    assert_eq!(read().await, Err(ExecutorError::Aborted), "the call is run again");
    assert_eq!(read().await.expect("rows").rows.to_vec()[0].len(), 5);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_without_a_case_of_their_own_go_both_ways_as_text() {
    let stage = Stage::postgres().await;
    assert!(
        stage
            .write(&[(
                "CREATE TABLE typed (id BIGINT, amount NUMERIC, body JSONB, at TIMESTAMPTZ, small INT, yes BOOLEAN, n NAME)",
                vec![]
            )])
            .await
    );
    let text = |text: &str| Value::Text(text.into());
    let insert = "INSERT INTO typed VALUES ($1, $2::text::numeric, $3::text::jsonb, $4::text::timestamptz, $5, $6, $7)";
    let row = vec![
        Value::Integer(1),
        text("12.50"),
        text("{\"a\": [1]}"),
        text("2026-01-02T03:04:05Z"),
        Value::Integer(7),
        Value::Integer(1),
        text("x"),
    ];
    let mut transaction = stage.database.begin().await.expect("a turn");
    assert_eq!(transaction.execute(&statement(insert, row), None).await.map(|done| done.changed), Ok(1));
    let as_they_are = "UPDATE typed SET amount = $1, body = $2, at = $3 WHERE $4::bigint <> 0 AND yes = $5 AND small = $6";
    let row = vec![Value::Integer(3), text("{}"), text("2026-01-02T03:04:06Z"), Value::Integer(1), Value::Integer(1), Value::Integer(7)];
    assert_eq!(transaction.execute(&statement(as_they_are, row), None).await.map(|done| done.changed), Ok(1));
    let select = "SELECT id, amount::text, body, (at AT TIME ZONE 'UTC')::text, small, yes, n FROM typed";
    let rows = transaction.execute(&statement(select, vec![]), None).await.expect("a row").rows;
    let expected =
        vec![Value::Integer(1), text("3"), text("{}"), text("2026-01-02 03:04:06"), Value::Integer(7), Value::Integer(1), text("x")];
    assert_eq!(rows.to_vec(), [expected]);
    drop(transaction);
    for (sql, parameters, words) in [
        ("SELECT $1::text, $2::bigint", vec![text("x"), text("y")], "$2: text in the place of int8"),
        ("SELECT $1::text", vec![text("a\0b")], "$1: PostgreSQL keeps no text with a NUL"),
        ("SELECT $1::text", vec![Value::Integer(1)], "$1: a whole number in the place of text"),
        ("SELECT $1::int", vec![Value::Integer(1 << 40)], "is no value of int4"),
        ("SELECT amount FROM typed", vec![], "column \"amount\" has the type numeric: cast it"),
    ] {
        let mut transaction = stage.database.begin().await.expect("a turn");
        let refused = transaction.execute(&statement(sql, parameters), None).await;
        assert!(matches!(&refused, Err(ExecutorError::InvalidStatement(why)) if why.contains(words)), "{sql}: {refused:?}");
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_certificate_and_a_password_is_believed_as_far_as_it_is_asked() {
    let mut server = PostgresServer::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = Certificate::new("localhost");
    let files = certificate.write_into(folder.path());
    server.secure(&files.certificate, &files.key).await;
    server.query("CREATE ROLE app LOGIN PASSWORD 'secret-word'; GRANT ALL ON DATABASE postgres TO app");
    let start = async |host: &str, password: &str, options: &str| {
        let url = format!("postgres://app:{password}@{host}:{}/postgres?{options}", server.port());
        let started = PostgresExecutor::start(PostgresSettings::new(PostgresAddress::parse(&url).expect("an address"))).await;
        started.map_err(|error| error.to_string())
    };
    let roots = format!("sslrootcert={}", files.certificate.display());
    for options in ["sslmode=require", "", &format!("sslmode=verify-full&{roots}")] {
        let executor = start("localhost", "secret-word", options).await.expect(options);
        assert_eq!(executor.ready().await, Ok(()), "{options}");
        assert!(executor.server().await.expect("it says").ends_with("over TLS"), "{options}");
        executor.close().await;
    }
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = Certificate::new("localhost").write_into(elsewhere.path());
    let others = format!("sslmode=verify-full&sslrootcert={}", other.certificate.display());
    for (host, password, options, words) in [
        ("localhost", "another-word", "sslmode=require", "password authentication failed"),
        ("localhost", "secret-word", "sslmode=disable", "pg_hba.conf"),
        ("127.0.0.1", "secret-word", &*format!("sslmode=verify-full&{roots}"), "certificate"),
        ("localhost", "secret-word", &others, "certificate"),
    ] {
        let refused = start(host, password, options).await.map(|_| ()).expect_err(options);
        assert!(refused.contains(words) && !refused.contains("word@"), "{options}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_has_a_size_for_its_quota() {
    let stage = Stage::postgres().await;
    assert!(
        stage.write(&[("INSERT INTO item (id, body) SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 2000) AS n", vec![])]).await
    );
    let held = eventually("a size", async || stage.executor.database_bytes("tests").filter(|bytes| *bytes > 1_000_000)).await;
    assert!(held < 10_000_000, "{held}");
    assert_eq!(stage.executor.size_bytes("tests").await, Ok(Some(held)));
    assert_eq!(stage.executor.size_bytes("other").await, Ok(Some(0)));
    let view = stage.database.snapshot().await.expect("a view");
    assert!(stage.executor.usage("tests").snapshot_age > Duration::ZERO);
    assert_eq!(stage.executor.usage("other").snapshot_age, Duration::ZERO);
    drop(view);
    assert_eq!(stage.executor.usage("tests").snapshot_age, Duration::ZERO);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_confirmed_survives_its_crash_and_service_goes_on() {
    let mut server = PostgresServer::start().await;
    let stage = Stage::on(connect(&server.url()).await, None, None).await;
    let mut confirmed = Vec::new();
    for round in 0..2 * syncline_tests::scale() {
        let base = i64::from(round * 1000);
        let mut id = base;
        let killed_at = base + 20;
        // Writes go on until one is not confirmed.
        loop {
            if id == killed_at {
                server.crash().await;
            }
            let written = async {
                let mut transaction = stage.database.begin().await?;
                transaction.execute(&stage.insert(id), None).await?;
                commit(transaction).await
            };
            match written.await {
                Ok(group) if stage.log.of(group).await => confirmed.push(id),
                _ => break,
            }
            id += 1;
        }
        server.start_again().await;
        assert_eq!(stage.ids().await, confirmed, "what was told as lost, or never told, is not there");
    }
    assert_eq!(stage.executor.ready().await, Ok(()));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_database_do_not_lose_each_others_writes() {
    const ROUNDS: i64 = 40;
    let first = Stage::postgres().await;
    assert!(first.write(&[("INSERT INTO item (id, number) VALUES (1, 0)", vec![])]).await);
    let executor = connect(first.postgres.as_ref().expect("schemas").url()).await;
    let (database, log) = open(&*executor, "main").await;
    let second = first.beside(executor, database, log);
    let count = async |stage: &Stage| {
        for _ in 0..ROUNDS {
            let mut transaction = stage.database.begin().await.expect("a turn");
            let read = transaction.execute(&stage.statement("SELECT number FROM item WHERE id = 1", vec![]), None).await.expect("a row");
            let Value::Real(number) = read.rows.to_vec()[0][0] else { panic!("a number") };
            let write = stage.statement("UPDATE item SET number = ? WHERE id = 1", vec![Value::Real(number + 1.0)]);
            transaction.execute(&write, None).await.expect("an update");
            assert!(stage.log.of(commit(transaction).await.expect("a commit")).await);
        }
    };
    tokio::join!(count(&first), count(&second));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let expected = Value::Real((2 * ROUNDS) as f64);
    assert_eq!(second.read("SELECT number FROM item WHERE id = 1").await.rows.to_vec(), [[expected]]);
    second.close().await;
    first.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_costs_only_its_transaction() {
    let stage = Stage::postgres().await;
    let mut slow = stage.database.begin().await.expect("a turn");
    let sleep = statement("SELECT 1 FROM pg_sleep(30)", vec![]);
    let limited = tokio::time::timeout(Duration::from_secs(10), slow.execute(&sleep, None)).await.expect("it ends long before");
    assert!(matches!(limited, Err(ExecutorError::Limit(_))), "{limited:?}");
    drop(slow);
    // Nor may several together take longer than one transaction.
    let mut slow = stage.database.begin().await.expect("a turn");
    let sleep = statement("SELECT 1 FROM pg_sleep(0.6)", vec![]);
    slow.execute(&sleep, None).await.expect("it is short enough");
    assert!(matches!(slow.execute(&sleep, None).await, Err(ExecutorError::Limit(_))));
    assert!(matches!(commit(slow).await, Err(ExecutorError::InvalidStatement(_) | ExecutorError::Limit(_))));
    assert!(stage.write(&[("INSERT INTO item (id) VALUES (1)", vec![])]).await);
    stage.close().await;
}
