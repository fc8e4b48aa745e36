//! A plasma mount with a table so large that migrating it takes longer than any usual transaction may.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{Database, DatabaseName, Dialect, Executor, GroupObserver, Statement, TransactionTime, Value};
use tokio::sync::watch;

use crate::{DEADLINE, postgres};

/// Rows of the table.
pub const ROWS: u32 = 200_000;

/// The settings of the mount: first as it grew; then with another key, so that the table is built anew and its log with it.
pub fn settings(after: bool) -> Json {
    let key = if after { json!(["n", "id"]) } else { json!(["id"]) };
    let columns = json!({"id": {"type": "text"}, "n": {"type": if after { "text" } else { "integer" }}});
    json!({
        "path": "/sync", "schemaVersion": "7", "adminToken": "admin-secret",
        "auth": {"mode": "static", "tokens": {"tok-alice": {"userId": "alice"}}},
        "migrations": {"allowDestructive": true},
        "schema": {"tables": {"things": {"columns": columns, "primaryKey": key}}},
    })
}

/// Which schema the tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The first.
    Before,
    /// The second.
    After,
}

struct Told(watch::Sender<u64>);

impl GroupObserver for Told {
    fn settled(&self, _database: &DatabaseName, group: u64, durable: bool) {
        assert!(durable, "the group is on disk");
        self.0.send_replace(group);
    }
}

/// The database of the mount, while no server has it.
pub struct Tables {
    executor: Arc<dyn Executor>,
    database: Arc<dyn Database>,
    told: Arc<Told>,
}

impl Tables {
    /// Opens those of a data folder, or of what stands for it in PostgreSQL.
    pub async fn open(data: &Path, on_postgres: bool) -> Self {
        let executor = executor(data, on_postgres, None).await;
        let name = DatabaseName { mount: "plasma".into(), name: "plasma".into() };
        let told = Arc::new(Told(watch::Sender::new(0)));
        let database = executor.open(&name, told.clone()).await.expect("the database is there");
        Self { executor, database, told }
    }

    /// Adds the rows, past the log: there are too many to push them.
    pub async fn grow(self) {
        let mut transaction = self.database.begin_within(TransactionTime::Long(DEADLINE)).await.expect("a turn");
        let numbers = format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})");
        let sql = match self.database.info().dialect {
            Dialect::Sqlite => format!("INSERT INTO things (id, n) {numbers} SELECT 'thing ' || i, i FROM n"),
            Dialect::Postgres => format!("INSERT INTO things (id, n) SELECT 'thing ' || i, i FROM generate_series(1, {ROWS}) AS i"),
        };
        transaction.execute(&Statement { sql, parameters: Vec::new() }, None).await.expect("rows can be added");
        let mut ended_in = 0;
        transaction.commit(&mut |group| ended_in = group).await.expect("a commit");
        let mut told = self.told.0.subscribe();
        tokio::time::timeout(DEADLINE, told.wait_for(|group| *group >= ended_in)).await.expect("in time").expect("it lives");
        self.executor.close().await;
    }

    /// Which schema they have; all of it is that one.
    pub async fn look(self) -> Found {
        let mut view = self.database.snapshot().await.expect("a view");
        let mut cell = async |sql: &str| {
            let found = view.query(&Statement { sql: sql.into(), parameters: Vec::new() }, None).await.expect(sql);
            found.rows.to_vec()[0][0].clone()
        };
        let Value::Text(stored) = cell("SELECT value FROM _plasma_meta WHERE key = 'schema'").await else { panic!("a schema") };
        let stored: Json = serde_json::from_str(&stored).expect("it is JSON");
        let found = if stored == settings(true)["schema"] { Found::After } else { Found::Before };
        assert_eq!(stored, settings(found == Found::After)["schema"]);
        assert_eq!(cell("SELECT count(*) FROM things").await, Value::Integer(ROWS.into()));
        let type_of = match self.database.info().dialect {
            Dialect::Sqlite => "SELECT typeof(n) FROM things LIMIT 1",
            Dialect::Postgres => "SELECT pg_typeof(n)::text FROM things LIMIT 1",
        };
        let is_text = cell(type_of).await == Value::Text("text".into());
        let logged = cell("SELECT count(*) FROM _plasma_changes WHERE newest = 1").await;
        let migrations = cell("SELECT count(*) FROM _plasma_migrations").await;
        let all = (is_text, logged, migrations);
        let expected = match found {
            Found::Before => (false, Value::Integer(0), Value::Integer(0)),
            Found::After => (true, Value::Integer(ROWS.into()), Value::Integer(1)),
        };
        assert_eq!(all, expected, "half of it is {found:?}");
        drop(view);
        self.executor.close().await;
        found
    }
}

/// An executor on a data folder, or on what stands for it in PostgreSQL; with a limit for statements and transactions.
pub async fn executor(data: &Path, on_postgres: bool, limit_ms: Option<u64>) -> Arc<dyn Executor> {
    if on_postgres {
        let mut settings = PostgresSettings::new(PostgresAddress::parse(postgres::of_folder(data).await.url()).expect("an address"));
        settings.statement_ms_max = limit_ms.unwrap_or(settings.statement_ms_max);
        settings.transaction_ms_max = limit_ms.unwrap_or(settings.transaction_ms_max);
        Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"))
    } else {
        let mut settings = SqliteSettings::new(data);
        settings.statement_ms_max = limit_ms.unwrap_or(settings.statement_ms_max);
        settings.transaction_ms_max = limit_ms.unwrap_or(settings.transaction_ms_max);
        Arc::new(SqliteExecutor::start(settings).await.expect("a folder of ours"))
    }
}
