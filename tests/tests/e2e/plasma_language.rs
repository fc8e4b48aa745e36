//! Random queries of plasma give on both databases what they give in memory.

use std::sync::Arc;

use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{Database, DatabaseName, Executor, GroupObserver, Statement, Transaction, Value};
use syncline_guest::imports::{Dialect, RowSet, Statement as GuestStatement, Value as GuestValue};
use syncline_guest::plasma::language::testing::{Case, Random};
use syncline_guest::plasma::language::{Sources, compile_query, parse_query};
use syncline_guest::plasma::schema::create_schema;
use syncline_tests::postgres::PostgresSchemas;
use syncline_tests::scale;

/// Queries of each case.
const QUERIES: u32 = 20;
/// Limits of time are not what is tested here.
const PATIENCE_MS: u64 = 60_000;

/// Nothing is committed, so nothing is told.
struct NobodyWaits;

impl GroupObserver for NobodyWaits {
    fn settled(&self, _database: &DatabaseName, _group: u64, _durable: bool) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_give_in_sqlite_what_they_give_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = SqliteSettings { transaction_ms_max: PATIENCE_MS, ..SqliteSettings::new(folder.path()) };
    let executor = SqliteExecutor::start(settings).await.expect("a folder of ours");
    queries_give_what_they_give_in_memory(Arc::new(executor), Dialect::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_queries_give_in_postgres_what_they_give_in_memory() {
    let schemas = PostgresSchemas::new().await;
    let address = PostgresAddress::parse(schemas.url()).expect("an address");
    // One transaction holds a whole case, and nothing is known of its tables when its queries are planned.
    let settings = PostgresSettings { transaction_ms_max: PATIENCE_MS, statement_ms_max: PATIENCE_MS, ..PostgresSettings::new(address) };
    let executor = PostgresExecutor::start(settings).await.expect("the server is there");
    queries_give_what_they_give_in_memory(Arc::new(executor), Dialect::Postgres).await;
}

async fn queries_give_what_they_give_in_memory(executor: Arc<dyn Executor>, dialect: Dialect) {
    let name = DatabaseName { mount: "tests".into(), name: "language".into() };
    let database = executor.open(&name, Arc::new(NobodyWaits)).await.expect("databases can be opened");
    for _ in 0..40 * scale() {
        let seed = rand::random();
        case_gives_what_it_gives_in_memory(&*database, dialect, seed).await;
    }
    executor.close().await;
}

/// One schema with its rows, in a transaction that is rolled back.
async fn case_gives_what_it_gives_in_memory(database: &dyn Database, dialect: Dialect, seed: u64) {
    let mut random = Random::new(seed);
    let case = Case::generate(&mut random);
    let mut transaction = database.begin().await.expect("a turn");
    for sql in create_schema(&case.schema, dialect, "p_") {
        run(&mut *transaction, GuestStatement { sql, parameters: Vec::new() }).await;
    }
    for statement in case.inserts(dialect, "p_") {
        run(&mut *transaction, statement).await;
    }
    let sources = Sources::of_prefix("p_");
    for round in 0..QUERIES {
        let source = case.query(&mut random);
        let query = parse_query(&case.schema, &source).expect("the query is right");
        let read_auth = round % 4 != 0;
        let compiled = compile_query(&case.schema, &query, dialect, &sources, read_auth);
        let statement = compiled.statement(&case.bindings()).expect("the values fit");
        let sql = statement.sql.clone();
        let found = compiled.rows(&run(&mut *transaction, statement).await);
        assert_eq!(found, case.expected(&query, read_auth), "seed {seed}, query {source}, {sql}");
    }
}

async fn run(transaction: &mut dyn Transaction, statement: GuestStatement) -> RowSet {
    let into_host = |value| match value {
        GuestValue::Null => Value::Null,
        GuestValue::Integer(number) => Value::Integer(number),
        GuestValue::Real(number) => Value::Real(number),
        GuestValue::Text(text) => Value::Text(text),
        GuestValue::Blob(bytes) => Value::Blob(bytes),
    };
    let from_host = |value| match value {
        Value::Null => GuestValue::Null,
        Value::Integer(number) => GuestValue::Integer(number),
        Value::Real(number) => GuestValue::Real(number),
        Value::Text(text) => GuestValue::Text(text),
        Value::Blob(bytes) => GuestValue::Blob(bytes),
    };
    let parameters = statement.parameters.into_iter().map(into_host).collect();
    let statement = Statement { sql: statement.sql, parameters };
    let found = transaction.execute(&statement, None).await.unwrap_or_else(|error| panic!("{error}: {}", statement.sql));
    let rows = found.rows.iter().map(|row| row.into_iter().map(from_host).collect()).collect();
    RowSet { rows, changed: found.changed, truncated: found.truncated }
}
