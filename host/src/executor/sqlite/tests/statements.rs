//! Statements: what they give, what is refused, and limits.

use super::*;
use crate::executor::ConstraintKind;

async fn refused(fixture: &Fixture, text: &str) -> ExecutorError {
    let mut transaction = fixture.begin().await;
    transaction.execute(&sql(text), None).await.expect_err(text)
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let fixture = Fixture::new().await;
    let values = vec![
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-0.5),
        Value::Text("a\0b … ü".to_owned()),
        Value::Text(String::new()),
        Value::Blob(vec![0, 255]),
        Value::Blob(Vec::new()),
    ];
    let mut transaction = fixture.begin().await;
    let echo = Statement { sql: "SELECT ? AS a, ?, ?, ?, ?, ?, ?".to_owned(), parameters: values.clone() };
    let result = transaction.execute(&echo, None).await.unwrap();
    assert_eq!(result.rows.to_vec(), [values]);
    let broken = transaction.execute(&sql("SELECT CAST(x'61ff' AS TEXT)"), None).await.unwrap();
    assert_eq!(broken.rows.to_vec(), [vec![Value::Text("a\u{fffd}".to_owned())]]);
}

#[tokio::test]
async fn changes_are_counted() {
    let fixture = Fixture::new().await;
    let mut transaction = fixture.begin().await;
    let mut changed = async |text| transaction.execute(&sql(text), None).await.unwrap().changed;
    assert_eq!(changed("INSERT INTO item (id) VALUES (1), (2), (3)").await, 3);
    assert_eq!(changed("SELECT * FROM item").await, 0);
    assert_eq!(changed("CREATE TABLE other (id)").await, 0);
    assert_eq!(changed("UPDATE item SET body = 'x' WHERE id > 1").await, 2);
    assert_eq!(changed("UPDATE item SET body = 'x' WHERE id > 9").await, 0);
    assert_eq!(changed("DELETE FROM item").await, 3);
    let returning = transaction.execute(&sql("INSERT INTO item (id) VALUES (4), (5) RETURNING id"), Some(1)).await.unwrap();
    assert!(returning.truncated);
    assert_eq!(returning.changed, 2);
    let all = transaction.execute(&sql("SELECT id FROM item"), None).await.unwrap();
    assert_eq!(ids(all), [4, 5]);
}

#[tokio::test]
async fn a_batch_stops_at_the_first_error() {
    let fixture = Fixture::new().await;
    let mut transaction = fixture.begin().await;
    let batch = [insert(1), insert(1), insert(2)];
    assert!(matches!(transaction.execute_batch(&batch).await, Err(ExecutorError::Constraint(ConstraintKind::Unique, _))));
    assert_eq!(transaction.execute_batch(&[insert(3), sql("SELECT id FROM item ORDER BY id")]).await.unwrap()[1].rows.len(), 2);
}

#[tokio::test]
async fn constraints_have_their_kind() {
    let fixture = Fixture::new().await;
    let mut transaction = fixture.begin().await;
    let table = "CREATE TABLE kind (id INTEGER PRIMARY KEY, one TEXT UNIQUE, two TEXT NOT NULL DEFAULT 'x',
                 three INTEGER CONSTRAINT small CHECK (three < 9), item INTEGER REFERENCES item (id))";
    transaction.execute(&sql(table), None).await.unwrap();
    transaction.execute(&sql("CREATE TABLE exact (number INTEGER) STRICT"), None).await.unwrap();
    transaction.execute(&sql("INSERT INTO kind (id, one) VALUES (1, 'a')"), None).await.unwrap();
    for (text, kind, said) in [
        ("INSERT INTO kind (id) VALUES (1)", ConstraintKind::Unique, "kind.id"),
        ("INSERT INTO kind (one) VALUES ('a')", ConstraintKind::Unique, "kind.one"),
        ("INSERT INTO kind (two) VALUES (NULL)", ConstraintKind::NotNull, "kind.two"),
        ("INSERT INTO kind (three) VALUES (9)", ConstraintKind::Check, "small"),
        ("INSERT INTO kind (item) VALUES (9)", ConstraintKind::ForeignKey, "FOREIGN KEY constraint failed"),
        ("INSERT INTO exact VALUES ('x')", ConstraintKind::Other, "cannot store TEXT value in INTEGER column exact.number"),
    ] {
        let result = transaction.execute(&sql(text), None).await;
        assert_eq!(result, Err(ExecutorError::Constraint(kind, said.to_owned())), "{text}");
    }
    // Each undid no more than its own statement.
    assert!(fixture.commit(transaction).await);
}

#[tokio::test]
async fn what_would_break_the_machinery_is_refused() {
    let fixture = Fixture::new().await;
    for text in [
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ROLLBACK TO turn",
        "SAVEPOINT mine",
        "RELEASE turn",
        "ATTACH ':memory:' AS other",
        "ATTACH ':mem' || 'ory:' AS other",
        "ATTACH (SELECT ':memory:') AS other",
        "DETACH main",
        "DETACH 'ma' || 'in'",
        "VACUUM",
        "VACUUM INTO '/tmp/nowhere'",
        "PRAGMA synchronous = OFF",
        "PRAGMA journal_mode",
        "SELECT * FROM pragma_table_info('item')",
        "CREATE TEMP TABLE mine (id)",
        "CREATE TEMP VIEW mine AS SELECT 1",
        "UPDATE sqlite_schema SET sql = ''",
        "SELECT load_extension('x')",
        "CREATE TABLE later (id REFERENCES item (id) DEFERRABLE INITIALLY Deferred)",
        "ALTER TABLE item ADD COLUMN other REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELECT 1 \0",
        "SELECT",
        "SELECT ?",
        "SELECT nothing FROM nowhere",
        "INSERT INTO item (id) VALUES ('no number')",
    ] {
        let error = refused(&fixture, text).await;
        assert!(matches!(error, ExecutorError::InvalidStatement(_)), "{text}: {error:?}");
    }
    let mut transaction = fixture.begin().await;
    transaction.execute(&sql("INSERT INTO item (id, body) VALUES (1, 'deferred');"), None).await.unwrap();
    assert!(fixture.commit(transaction).await);
    // Nothing that was refused has cost a group.
    assert!(fixture.log.all().iter().all(|(_, durable)| *durable));
}

#[tokio::test]
async fn what_sqlite_does_for_itself_is_allowed() {
    let fixture = Fixture::new().await;
    let mut transaction = fixture.begin().await;
    for text in [
        "INSERT INTO item (id, body) VALUES (1, 'some words')",
        "ALTER TABLE item ADD COLUMN state TEXT NOT NULL DEFAULT 'open' CHECK (state <> '')",
        "ALTER TABLE item RENAME COLUMN state TO status",
        "ALTER TABLE item DROP COLUMN status",
        "CREATE VIRTUAL TABLE words USING fts5 (body, content = 'item', content_rowid = 'id')",
        "INSERT INTO words (words) VALUES ('rebuild')",
        "CREATE TRIGGER follow AFTER INSERT ON item BEGIN INSERT INTO words (rowid, body) VALUES (new.id, new.body); END",
        "INSERT INTO item (id, body) VALUES (2, 'other words')",
        "SELECT 1 / (count(*) = 1) FROM words WHERE words MATCH 'other'",
        "CREATE INDEX item_body ON item (body)",
        "ANALYZE",
        "REINDEX item_body",
        "SELECT value FROM json_each('[1, 2]')",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT count(*), max(i) FROM n",
        "CREATE VIEW view AS SELECT count(*) AS count FROM item WHERE upper(body) LIKE 'S%'",
        "SELECT count, rank() OVER (ORDER BY count) FROM view",
        "EXPLAIN QUERY PLAN SELECT * FROM item",
        "DROP TRIGGER follow",
        "DROP TABLE words",
        "CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1)",
        "INSERT INTO boxes VALUES (1, 0, 1)",
    ] {
        transaction.execute(&sql(text), None).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    assert!(fixture.commit(transaction).await);
}

#[tokio::test]
async fn results_have_limits() {
    let fixture = Fixture::with(|settings| {
        settings.rows_max = 3;
        settings.result_bytes_max = 1_000;
    })
    .await;
    for id in 1..=4 {
        fixture.insert(id).await;
    }
    let mut transaction = fixture.begin().await;
    let all = sql("SELECT id FROM item ORDER BY id");
    assert!(matches!(transaction.execute(&all, None).await, Err(ExecutorError::Limit(_))));
    let three = transaction.execute(&all, Some(3)).await.unwrap();
    assert!(three.truncated);
    assert_eq!(ids(three), [1, 2, 3]);
    let four = transaction.execute(&all, Some(4)).await.unwrap();
    assert!(!four.truncated);
    assert_eq!(ids(four), [1, 2, 3, 4]);
    let large = transaction.execute(&sql("SELECT zeroblob(2000)"), None).await;
    assert!(matches!(large, Err(ExecutorError::Limit(_))), "{large:?}");
    let too_large = transaction.execute(&sql("SELECT zeroblob(2000000000)"), None).await;
    assert!(matches!(too_large, Err(ExecutorError::Limit(_))), "{too_large:?}");
    assert!(transaction.execute(&sql("SELECT zeroblob(900)"), None).await.is_ok());
}

#[tokio::test]
async fn a_statement_has_a_time_limit() {
    let fixture = Fixture::with(|settings| settings.statement_ms_max = 50).await;
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let read = sql(&format!("{endless} SELECT count(*) FROM n"));
    let mut transaction = fixture.begin().await;
    transaction.execute(&insert(1), None).await.unwrap();
    assert!(matches!(transaction.execute(&read, None).await, Err(ExecutorError::Limit(_))));
    assert!(fixture.commit(transaction).await, "a read is stopped without harm");

    let write = sql(&format!("INSERT INTO item (body) {endless} SELECT i FROM n"));
    let mut transaction = fixture.begin().await;
    assert!(matches!(transaction.execute(&write, None).await, Err(ExecutorError::Limit(_))));
    let mut group = 0;
    assert!(matches!(transaction.commit(&mut |number| group = number).await, Err(ExecutorError::Limit(_))));
    assert!(!fixture.log.of(group).await);

    let mut snapshot = fixture.database.snapshot().await.unwrap();
    assert!(matches!(snapshot.query(&read, None).await, Err(ExecutorError::Limit(_))));
    assert_eq!(ids(snapshot.query(&sql("SELECT id FROM item"), None).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_snapshot_only_reads() {
    let fixture = Fixture::new().await;
    let mut snapshot = fixture.database.snapshot().await.unwrap();
    for text in ["INSERT INTO item (id) VALUES (1)", "CREATE TABLE other (id)", "COMMIT", "PRAGMA query_only = OFF", "DELETE FROM item"] {
        let result = snapshot.query(&sql(text), None).await;
        assert!(matches!(result, Err(ExecutorError::InvalidStatement(_))), "{text}: {result:?}");
    }
    assert!(snapshot.query(&sql("SELECT id FROM item"), None).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn readers_are_bounded_and_used_again() {
    let fixture = Fixture::with(|settings| {
        settings.readers_max = 2;
        settings.readers_idle_max = 1;
        settings.begin_wait_ms_max = 50;
    })
    .await;
    let first = fixture.database.snapshot().await.unwrap();
    let second = fixture.database.snapshot().await.unwrap();
    let third = fixture.database.snapshot().await.err();
    assert!(matches!(third, Some(ExecutorError::Unavailable(_))), "{third:?}");
    drop((first, second));
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    assert_eq!(fixture.items().await, [1]);
}

#[tokio::test]
async fn a_full_disk_is_a_limit() {
    let fixture = Fixture::with(|settings| {
        let on_open = settings.on_open.take().unwrap();
        settings.on_open = Some(Arc::new(move |connection| {
            on_open(connection);
            connection.query_row("PRAGMA max_page_count = 20", [], |_| Ok(())).unwrap();
        }));
    })
    .await;
    let mut transaction = fixture.begin().await;
    let large = sql("INSERT INTO item (body) VALUES (hex(zeroblob(100000)))");
    assert_eq!(transaction.execute(&large, None).await, Err(ExecutorError::Limit("disk".to_owned())));
    drop(transaction);
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    assert_eq!(fixture.items().await, [1]);
}
