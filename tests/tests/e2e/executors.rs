//! What every executor promises, on SQLite and on PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{
    ConstraintKind, Database, DatabaseName, Dialect, Executor, ExecutorError, GroupObserver, RowSet, Statement, Transaction,
    TransactionTime, Value,
};
use syncline_tests::DEADLINE;
use syncline_tests::postgres::PostgresSchemas;
use tempfile::TempDir;
use tokio::sync::watch;

/// A limit of time that a count of millions passes.
const SHORT_MS: u64 = 200;
/// Whoever waits for the writer here waits for as long as the other needs.
const PATIENCE_MS: u64 = 20_000;

/// What the observer was told, in order.
pub struct Log(pub watch::Sender<Vec<(u64, bool)>>);

impl GroupObserver for Log {
    fn settled(&self, _database: &DatabaseName, group: u64, durable: bool) {
        self.0.send_modify(|settled| settled.push((group, durable)));
    }
}

impl Log {
    /// Waits for a group; whether it is durable.
    pub async fn of(&self, group: u64) -> bool {
        let mut receiver = self.0.subscribe();
        let settled = receiver.wait_for(|settled| settled.iter().any(|(number, _)| *number == group));
        let settled = tokio::time::timeout(DEADLINE, settled).await.expect("every group is told of").expect("the log lives");
        settled.iter().find(|(number, _)| *number == group).expect("it was there").1
    }
}

/// An executor with one database that holds `item (id, body, number, bytes)`.
pub struct Stage {
    pub executor: Arc<dyn Executor>,
    pub database: Arc<dyn Database>,
    pub log: Arc<Log>,
    pub postgres: Option<PostgresSchemas>,
    _folder: Option<TempDir>,
}

pub async fn connect(url: &str) -> Arc<dyn Executor> {
    let settings = PostgresSettings::new(PostgresAddress::parse(url).expect("an address"));
    Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"))
}

pub async fn open(executor: &dyn Executor, name: &str) -> (Arc<dyn Database>, Arc<Log>) {
    let log = Arc::new(Log(watch::Sender::default()));
    let name = DatabaseName { mount: "tests".into(), name: name.into() };
    (executor.open(&name, log.clone()).await.expect("databases can be opened"), log)
}

impl Stage {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let executor: Arc<dyn Executor> =
            Arc::new(SqliteExecutor::start(SqliteSettings::new(folder.path())).await.expect("a folder of ours"));
        Self::on(executor, Some(folder), None).await
    }

    pub async fn postgres() -> Self {
        let schemas = PostgresSchemas::new().await;
        Self::on(connect(schemas.url()).await, None, Some(schemas)).await
    }

    /// On SQLite where statements and transactions may take so long, and newcomers wait for long.
    async fn sqlite_within(limit_ms: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = SqliteSettings {
            statement_ms_max: limit_ms,
            transaction_ms_max: limit_ms,
            begin_wait_ms_max: PATIENCE_MS,
            ..SqliteSettings::new(folder.path())
        };
        let executor: Arc<dyn Executor> = Arc::new(SqliteExecutor::start(settings).await.expect("a folder of ours"));
        Self::on(executor, Some(folder), None).await
    }

    /// The same on PostgreSQL.
    async fn postgres_within(limit_ms: u64) -> Self {
        let schemas = PostgresSchemas::new().await;
        let address = PostgresAddress::parse(schemas.url()).expect("an address");
        let settings = PostgresSettings {
            statement_ms_max: limit_ms,
            transaction_ms_max: limit_ms,
            begin_wait_ms_max: PATIENCE_MS,
            ..PostgresSettings::new(address)
        };
        let executor: Arc<dyn Executor> = Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"));
        Self::on(executor, None, Some(schemas)).await
    }

    pub async fn on(executor: Arc<dyn Executor>, folder: Option<TempDir>, postgres: Option<PostgresSchemas>) -> Self {
        let (database, log) = open(&*executor, "main").await;
        let stage = Self { executor, database, log, _folder: folder, postgres };
        let bytes = if stage.is_postgres() { "BYTEA" } else { "BLOB" };
        let create =
            format!("CREATE TABLE item (id BIGINT PRIMARY KEY, body TEXT CHECK (body <> 'bad'), number DOUBLE PRECISION, bytes {bytes})");
        assert!(stage.write(&[(&create, vec![])]).await);
        stage
    }

    /// The same tables, seen through another executor.
    pub fn beside(&self, executor: Arc<dyn Executor>, database: Arc<dyn Database>, log: Arc<Log>) -> Self {
        Self { executor, database, log, postgres: None, _folder: None }
    }

    fn is_postgres(&self) -> bool {
        self.database.info().dialect == Dialect::Postgres
    }

    /// A statement with the placeholders of the dialect for those of SQLite.
    pub fn statement(&self, sql: &str, parameters: Vec<Value>) -> Statement {
        let mut count = 0;
        let numbered = sql.split('?').reduce_placeholders(|| {
            count += 1;
            if self.is_postgres() { format!("${count}") } else { "?".into() }
        });
        Statement { sql: numbered, parameters }
    }

    pub fn insert(&self, id: i64) -> Statement {
        self.statement("INSERT INTO item (id) VALUES (?)", vec![Value::Integer(id)])
    }

    /// One transaction; whether it is durable.
    pub async fn write(&self, statements: &[(&str, Vec<Value>)]) -> bool {
        let mut transaction = self.database.begin().await.expect("a turn");
        for (sql, parameters) in statements {
            transaction.execute(&self.statement(sql, parameters.clone()), None).await.expect(sql);
        }
        self.log.of(commit(transaction).await.expect("a commit")).await
    }

    pub async fn read(&self, sql: &str) -> RowSet {
        let mut view = self.database.snapshot().await.expect("a view");
        view.query(&self.statement(sql, vec![]), None).await.expect(sql)
    }

    pub async fn ids(&self) -> Vec<i64> {
        ids(&self.read("SELECT id FROM item ORDER BY id").await)
    }

    pub async fn close(self) {
        self.executor.close().await;
    }
}

trait Placeholders {
    fn reduce_placeholders(self, next: impl FnMut() -> String) -> String;
}

impl<'a, I: Iterator<Item = &'a str>> Placeholders for I {
    fn reduce_placeholders(mut self, mut next: impl FnMut() -> String) -> String {
        let mut whole = self.next().unwrap_or_default().to_owned();
        for part in self {
            whole.push_str(&next());
            whole.push_str(part);
        }
        whole
    }
}

pub fn ids(rows: &RowSet) -> Vec<i64> {
    let id = |row: &Vec<Value>| match row.first() {
        Some(Value::Integer(id)) => *id,
        other => panic!("an id was expected, not {other:?}"),
    };
    rows.rows.iter().map(|row| id(&row)).collect()
}

pub async fn commit(transaction: Box<dyn Transaction>) -> Result<u64, ExecutorError> {
    let mut group = 0;
    transaction.commit(&mut |ended| group = ended).await.map(|()| group)
}

/// One story on both executors.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Stage::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Stage::postgres().await).await;
            })*
        }
    };
}

on_both!(
    values_come_back_as_they_went_in,
    changes_are_counted,
    what_a_component_may_not_do_is_refused,
    constraints_have_their_kind,
    savepoints_nest,
    what_is_dropped_is_undone,
    increments_of_many_at_once_all_count,
    a_view_stays_as_it_is,
    results_have_limits,
    it_says_whether_it_works,
    a_transaction_ends_when_its_time_is_over,
    only_what_others_may_use_is_shared,
);

mod limited {
    //! Where one statement may not take long.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rare_work_may_take_long_and_others_wait_for_it_on_sqlite() {
        super::rare_work_may_take_long_and_others_wait_for_it(super::Stage::sqlite_within(super::SHORT_MS).await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rare_work_may_take_long_and_others_wait_for_it_on_postgres() {
        super::rare_work_may_take_long_and_others_wait_for_it(super::Stage::postgres_within(super::SHORT_MS).await).await;
    }
}

async fn values_come_back_as_they_went_in(stage: Stage) {
    let row = vec![Value::Integer(i64::MIN), Value::Text("… ü".into()), Value::Real(-0.5), Value::Blob(vec![0, 255])];
    assert!(stage.write(&[("INSERT INTO item (id, body, number, bytes) VALUES (?, ?, ?, ?)", row.clone())]).await);
    let nulls = vec![Value::Integer(1), Value::Null, Value::Null, Value::Null];
    assert!(stage.write(&[("INSERT INTO item (id, body, number, bytes) VALUES (?, ?, ?, ?)", nulls.clone())]).await);
    let rows = stage.read("SELECT id, body, number, bytes FROM item ORDER BY id").await;
    assert_eq!(rows.rows.to_vec(), [row, nulls]);
    stage.close().await;
}

async fn changes_are_counted(stage: Stage) {
    let mut transaction = stage.database.begin().await.expect("a turn");
    let mut changed = async |sql: &str| transaction.execute(&stage.statement(sql, vec![]), None).await.expect(sql).changed;
    assert_eq!(changed("INSERT INTO item (id) VALUES (1), (2), (3)").await, 3);
    assert_eq!(changed("SELECT * FROM item").await, 0);
    assert_eq!(changed("WITH every AS (SELECT id FROM item) SELECT id FROM every").await, 0);
    assert_eq!(changed("CREATE TABLE other (id BIGINT)").await, 0);
    assert_eq!(changed("UPDATE item SET body = 'x' WHERE id > 1").await, 2);
    assert_eq!(changed("DELETE FROM item").await, 3);
    let returning = stage.statement("INSERT INTO item (id) VALUES (4), (5) RETURNING id", vec![]);
    let returned = transaction.execute(&returning, Some(1)).await.expect("an insert");
    assert_eq!((returned.truncated, returned.changed, ids(&returned)), (true, 2, vec![4]));
    drop(transaction);
    stage.close().await;
}

async fn what_a_component_may_not_do_is_refused(stage: Stage) {
    for sql in ["COMMIT", "BEGIN", "ROLLBACK", "SELECT 1; SELECT 2", "SELECT no_such_column FROM item", "nonsense", ""] {
        let mut transaction = stage.database.begin().await.expect("a turn");
        let refused = transaction.execute(&stage.statement(sql, vec![]), None).await;
        assert!(matches!(refused, Err(ExecutorError::InvalidStatement(_))), "{sql}: {refused:?}");
    }
    let mut transaction = stage.database.begin().await.expect("a turn");
    let missing = Statement { parameters: vec![], ..stage.insert(1) };
    assert!(matches!(transaction.execute(&missing, None).await, Err(ExecutorError::InvalidStatement(_))));
    drop(transaction);
    let mut view = stage.database.snapshot().await.expect("a view");
    assert!(matches!(view.query(&stage.insert(1), None).await, Err(ExecutorError::InvalidStatement(_))));
    assert_eq!(ids(&view.query(&stage.statement("SELECT id FROM item", vec![]), None).await.expect("it goes on")), [0; 0]);
    drop(view);
    assert_eq!(stage.ids().await, [0; 0]);
    stage.close().await;
}

async fn constraints_have_their_kind(stage: Stage) {
    assert!(
        stage
            .write(&[
                ("CREATE TABLE part (item BIGINT NOT NULL REFERENCES item (id))", vec![]),
                ("INSERT INTO item (id) VALUES (1)", vec![])
            ])
            .await
    );
    for (sql, kind) in [
        ("INSERT INTO item (id) VALUES (1)", ConstraintKind::Unique),
        ("INSERT INTO item (id, body) VALUES (2, 'bad')", ConstraintKind::Check),
        ("INSERT INTO part (item) VALUES (NULL)", ConstraintKind::NotNull),
        ("INSERT INTO part (item) VALUES (9)", ConstraintKind::ForeignKey),
    ] {
        let mut transaction = stage.database.begin().await.expect("a turn");
        let refused = transaction.execute(&stage.statement(sql, vec![]), None).await;
        assert!(matches!(&refused, Err(ExecutorError::Constraint(found, _)) if *found == kind), "{sql}: {refused:?}");
    }
    stage.close().await;
}

async fn savepoints_nest(stage: Stage) {
    let mut transaction = stage.database.begin().await.expect("a turn");
    transaction.execute(&stage.insert(1), None).await.expect("an insert");
    let outer = transaction.savepoint().await.expect("a savepoint");
    transaction.execute(&stage.insert(2), None).await.expect("an insert");
    let inner = transaction.savepoint().await.expect("a savepoint");
    // An error costs what came since the savepoint, and nothing else.
    assert!(transaction.execute(&stage.insert(1), None).await.is_err());
    transaction.rollback_to(inner).await.expect("it is open");
    transaction.execute(&stage.insert(3), None).await.expect("an insert");
    transaction.release(inner).await.expect("it is open");
    assert!(matches!(transaction.rollback_to(inner).await, Err(ExecutorError::InvalidStatement(_))));
    let second = transaction.savepoint().await.expect("a savepoint");
    transaction.execute(&stage.insert(4), None).await.expect("an insert");
    transaction.rollback_to(second).await.expect("it is open");
    transaction.release(outer).await.expect("it is open");
    let group = commit(transaction).await.expect("a commit");
    assert!(stage.log.of(group).await);
    assert_eq!(stage.ids().await, [1, 2, 3]);
    stage.close().await;
}

async fn what_is_dropped_is_undone(stage: Stage) {
    for id in 0..3 {
        let mut transaction = stage.database.begin().await.expect("a turn");
        transaction.execute(&stage.insert(id), None).await.expect("an insert");
        match id {
            0 => drop(transaction),
            1 => transaction.rollback(&mut |_| {}).await,
            _ => assert!(stage.log.of(commit(transaction).await.expect("a commit")).await),
        }
    }
    drop(stage.database.begin().await.expect("a turn"));
    assert_eq!(stage.ids().await, [2]);
    stage.close().await;
}

async fn increments_of_many_at_once_all_count(stage: Stage) {
    const TASKS: i64 = 8;
    const ROUNDS: i64 = 25;
    assert!(stage.write(&[("INSERT INTO item (id, number) VALUES (1, 0)", vec![])]).await);
    let stage = Arc::new(stage);
    let tasks = (0..TASKS).map(|_| {
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                // Read and written apart: only one writer at a time makes that right.
                let mut transaction = stage.database.begin().await.expect("a turn");
                let read =
                    transaction.execute(&stage.statement("SELECT number FROM item WHERE id = 1", vec![]), None).await.expect("a row");
                let Value::Real(number) = read.rows.to_vec()[0][0] else { panic!("a number") };
                let write = stage.statement("UPDATE item SET number = ? WHERE id = 1", vec![Value::Real(number + 1.0)]);
                transaction.execute(&write, None).await.expect("an update");
                assert!(stage.log.of(commit(transaction).await.expect("a commit")).await);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no task fails");
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let expected = Value::Real((TASKS * ROUNDS) as f64);
    assert_eq!(stage.read("SELECT number FROM item WHERE id = 1").await.rows.to_vec(), [[expected]]);
    let settled = stage.log.0.borrow().clone();
    assert!(settled.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0) && settled.iter().all(|(_, durable)| *durable), "{settled:?}");
}

async fn a_view_stays_as_it_is(stage: Stage) {
    assert!(stage.write(&[("INSERT INTO item (id) VALUES (1)", vec![])]).await);
    let mut view = stage.database.snapshot().await.expect("a view");
    assert!(stage.write(&[("INSERT INTO item (id) VALUES (2)", vec![])]).await);
    let all = stage.statement("SELECT id FROM item ORDER BY id", vec![]);
    assert_eq!(ids(&view.query(&all, None).await.expect("rows")), [1]);
    assert_eq!(stage.ids().await, [1, 2]);
    drop(view);
    stage.close().await;
}

async fn results_have_limits(stage: Stage) {
    let body = Value::Text("x".repeat(1 << 20));
    for id in 0..20 {
        assert!(stage.write(&[("INSERT INTO item (id, body) VALUES (?, ?)", vec![Value::Integer(id), body.clone()])]).await);
    }
    let mut view = stage.database.snapshot().await.expect("a view");
    let all = stage.statement("SELECT body FROM item", vec![]);
    assert!(matches!(view.query(&all, None).await, Err(ExecutorError::Limit(_))));
    let some = view.query(&all, Some(3)).await.expect("a limit keeps it small");
    assert_eq!((some.rows.len(), some.truncated), (3, true));
    drop(view);
    stage.close().await;
}

async fn it_says_whether_it_works(stage: Stage) {
    assert_eq!(stage.executor.ready().await, Ok(()));
    assert_eq!(stage.executor.ready().await, Ok(()));
    assert!(stage.executor.size_bytes("tests").await.expect("a size").is_some_and(|bytes| bytes > 0));
    stage.close().await;
}

/// Counts in one statement, for longer than most statements may run.
const COUNT_LONG: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n";

async fn a_transaction_ends_when_its_time_is_over(stage: Stage) {
    let open_max = Duration::from_millis(500);
    let begun = Instant::now();
    let mut transaction = stage.database.begin_within(TransactionTime::Open(open_max)).await.expect("a turn");
    transaction.execute(&stage.insert(1), None).await.expect("an insert");
    // As long as an app works the time is not this transaction's.
    transaction.stop_clock(true);
    let mut id = 2;
    while begun.elapsed() < open_max * 3 {
        transaction.execute(&stage.insert(id), None).await.expect("an insert while the clock is stopped");
        id += 1;
    }
    transaction.stop_clock(false);
    let refused = loop {
        assert!(begun.elapsed() < DEADLINE, "the transaction may stay open for ever");
        match transaction.execute(&stage.insert(id), None).await {
            Ok(_) => id += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ExecutorError::Limit(_)), "{refused:?}");
    let refused = commit(transaction).await.expect_err("nothing is committed");
    assert!(matches!(refused, ExecutorError::Limit(_)), "{refused:?}");
    assert_eq!(stage.ids().await, [0; 0]);
    stage.close().await;
}

async fn rare_work_may_take_long_and_others_wait_for_it(stage: Stage) {
    let count = stage.statement(COUNT_LONG, vec![]);
    let mut usual = stage.database.begin().await.expect("a turn");
    let refused = usual.execute(&count, None).await.expect_err("it takes too long");
    assert!(matches!(refused, ExecutorError::Limit(_)), "{refused:?}");
    drop(usual);
    let mut long = stage.database.begin_within(TransactionTime::Long(DEADLINE)).await.expect("a turn");
    long.execute(&stage.insert(1), None).await.expect("an insert");
    let other = {
        let (database, insert) = (stage.database.clone(), stage.insert(2));
        tokio::spawn(async move {
            let mut other = database.begin().await.expect("a turn, when the long one is over");
            other.execute(&insert, None).await.expect("an insert");
            commit(other).await.expect("a commit")
        })
    };
    let inner = long.savepoint().await.expect("a savepoint");
    assert_eq!(long.execute(&count, None).await.expect("it has the time").rows.to_vec(), [[Value::Integer(3_000_000)]]);
    long.rollback_to(inner).await.expect("it is open");
    long.execute(&count, None).await.expect("it has the time still");
    let group = commit(long).await.expect("a commit");
    assert!(stage.log.of(group).await);
    assert!(stage.log.of(other.await.expect("it does not fail")).await);
    assert_eq!(stage.ids().await, [1, 2]);
    // Those that follow in the same group or on the same connection have the usual limits again.
    let mut usual = stage.database.begin().await.expect("a turn");
    assert!(matches!(usual.execute(&count, None).await, Err(ExecutorError::Limit(_))));
    drop(usual);
    stage.close().await;
}

async fn only_what_others_may_use_is_shared(stage: Stage) {
    assert_eq!(stage.executor.is_shared(), stage.is_postgres());
    stage.close().await;
}
