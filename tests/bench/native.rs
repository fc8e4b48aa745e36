//! The logic compiled for this machine, over the very database that the host gets: what is left between the two is what
//! the component and the host around it cost.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use syncline::executor as host;
use syncline::executor::{DatabaseName, Dialect, Ended, ExecutorError, GroupObserver};
use syncline_guest::contract::syncline::host::executor::Snapshot as SnapshotHandle;
use syncline_guest::imports::{
    ByteRange, ConnectionId, DatabaseInfo, Effects, Executor, Frame, Level, Member, Metric, ObjectInfo, OutboundPost, PubSub, Publication,
    Query, RowSet, Snapshot, SqlError, Statement, Storage, StorageError, Subscription, Transaction, Value,
};

/// SQLite in memory: every transaction is a group of its own and settled at once.
#[derive(Clone)]
pub struct MemoryDatabase {
    connection: Arc<Mutex<Connection>>,
}

impl MemoryDatabase {
    /// An empty one.
    pub fn new() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.set_prepared_statement_cache_capacity(256);
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    fn command(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.lock().prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Runs a statement and hands each row to `take`; the changed rows.
    fn run<V>(&self, sql: &str, parameters: Vec<rusqlite::types::Value>, value: fn(ValueRef<'_>) -> V) -> rusqlite::Result<Rows<V>> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        if columns == 0 {
            let changed = statement.execute(rusqlite::params_from_iter(parameters))? as u64;
            return Ok(Rows { rows: Vec::new(), changed });
        }
        let mut found = statement.query(rusqlite::params_from_iter(parameters))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push((0..columns).map(|index| row.get_ref(index).map(value)).collect::<Result<_, _>>()?);
        }
        Ok(Rows { rows, changed: 0 })
    }
}

struct Rows<V> {
    rows: Vec<Vec<V>>,
    changed: u64,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// For the host.

/// The databases that the host gets.
#[derive(Default)]
pub struct MemoryExecutor;

struct Opened {
    database: MemoryDatabase,
    name: DatabaseName,
    observer: Arc<dyn GroupObserver>,
    groups: Arc<Mutex<u64>>,
}

struct View {
    database: MemoryDatabase,
}

struct Writing {
    database: MemoryDatabase,
    name: DatabaseName,
    observer: Arc<dyn GroupObserver>,
    groups: Arc<Mutex<u64>>,
    open: bool,
}

fn unavailable(error: rusqlite::Error) -> ExecutorError {
    ExecutorError::Unavailable(error.to_string())
}

fn run_for_host(database: &MemoryDatabase, statement: &host::Statement) -> Result<host::RowSet, ExecutorError> {
    let parameters = statement.parameters.iter().map(|value| match value {
        host::Value::Null => rusqlite::types::Value::Null,
        host::Value::Integer(number) => (*number).into(),
        host::Value::Real(number) => (*number).into(),
        host::Value::Text(text) => text.clone().into(),
        host::Value::Blob(bytes) => bytes.clone().into(),
    });
    let value = |value: ValueRef<'_>| match value {
        ValueRef::Null => host::Value::Null,
        ValueRef::Integer(number) => host::Value::Integer(number),
        ValueRef::Real(number) => host::Value::Real(number),
        ValueRef::Text(bytes) => host::Value::Text(text(bytes)),
        ValueRef::Blob(bytes) => host::Value::Blob(bytes.to_vec()),
    };
    let Rows { rows: found, changed } = database.run(&statement.sql, parameters.collect(), value).map_err(unavailable)?;
    let mut rows = host::Rows::default();
    found.iter().for_each(|row| rows.push(row));
    Ok(host::RowSet { rows, changed, truncated: false })
}

#[async_trait]
impl host::Executor for MemoryExecutor {
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn host::Database>, ExecutorError> {
        let database = MemoryDatabase::new().map_err(unavailable)?;
        Ok(Arc::new(Opened { database, name: name.clone(), observer, groups: Arc::default() }))
    }
    async fn ready(&self) -> Result<(), ExecutorError> {
        Ok(())
    }
    async fn close(&self) {}
}

#[async_trait]
impl host::Database for Opened {
    fn info(&self) -> host::DatabaseInfo {
        host::DatabaseInfo { dialect: Dialect::Sqlite, table_prefix: String::new() }
    }
    async fn snapshot(&self) -> Result<Box<dyn host::Snapshot>, ExecutorError> {
        Ok(Box::new(View { database: self.database.clone() }))
    }
    async fn begin(&self) -> Result<Box<dyn host::Transaction>, ExecutorError> {
        self.database.command("BEGIN IMMEDIATE").map_err(unavailable)?;
        let (name, observer, groups) = (self.name.clone(), self.observer.clone(), self.groups.clone());
        Ok(Box::new(Writing { database: self.database.clone(), name, observer, groups, open: true }))
    }
}

#[async_trait]
impl host::Snapshot for View {
    async fn query(&mut self, statement: &host::Statement, _: Option<u32>) -> Result<host::RowSet, ExecutorError> {
        run_for_host(&self.database, statement)
    }
}

impl Writing {
    fn end(&mut self, sql: &str, ended: Ended<'_>) -> Result<(), ExecutorError> {
        self.database.command(sql).map_err(unavailable)?;
        self.open = false;
        let group = {
            let mut groups = self.groups.lock();
            *groups += 1;
            *groups
        };
        ended(group);
        self.observer.settled(&self.name, group, true);
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.open {
            // The connection is in memory and nobody else's: what fails here fails at the next BEGIN, aloud.
            let _ = self.database.command("ROLLBACK");
        }
    }
}

#[async_trait]
impl host::Transaction for Writing {
    async fn execute(&mut self, statement: &host::Statement, _: Option<u32>) -> Result<host::RowSet, ExecutorError> {
        run_for_host(&self.database, statement)
    }
    async fn savepoint(&mut self) -> Result<u32, ExecutorError> {
        Err(ExecutorError::Limit("no savepoints in this measurement".into()))
    }
    async fn release(&mut self, _: u32) -> Result<(), ExecutorError> {
        Err(ExecutorError::Limit("no savepoints in this measurement".into()))
    }
    async fn rollback_to(&mut self, _: u32) -> Result<(), ExecutorError> {
        Err(ExecutorError::Limit("no savepoints in this measurement".into()))
    }
    async fn commit(mut self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError> {
        self.end("COMMIT", ended)
    }
    async fn rollback(mut self: Box<Self>, ended: Ended<'_>) {
        // As for a drop.
        let _ = self.end("ROLLBACK", ended);
    }
}

// For the logic, without a host.

/// The imports of the logic over a [`MemoryDatabase`]; what it lets out is counted and dropped.
pub struct NativeImports {
    database: MemoryDatabase,
    published: std::cell::Cell<u64>,
}

struct NativeView {
    database: MemoryDatabase,
    open: std::cell::Cell<bool>,
}

impl NativeImports {
    /// Over an empty database.
    pub fn new() -> rusqlite::Result<Self> {
        Ok(Self { database: MemoryDatabase::new()?, published: std::cell::Cell::new(0) })
    }

    /// How much was published.
    pub fn published(&self) -> u64 {
        self.published.get()
    }
}

fn broken(error: rusqlite::Error) -> SqlError {
    SqlError::Unavailable(error.to_string())
}

impl Query for NativeView {
    fn query(&self, statement: Statement, _: Option<u32>) -> Result<RowSet, SqlError> {
        let parameters = statement.parameters.into_iter().map(|value| match value {
            Value::Null => rusqlite::types::Value::Null,
            Value::Integer(number) => number.into(),
            Value::Real(number) => number.into(),
            Value::Text(text) => text.into(),
            Value::Blob(bytes) => bytes.into(),
        });
        let value = |value: ValueRef<'_>| match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(bytes) => Value::Text(text(bytes)),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        let Rows { rows, changed } = self.database.run(&statement.sql, parameters.collect(), value).map_err(broken)?;
        Ok(RowSet { rows, changed, truncated: false })
    }
}

impl Snapshot for NativeView {
    fn into_handle(self: Box<Self>) -> Option<SnapshotHandle> {
        None
    }
}

impl Transaction for NativeView {
    fn execute(&self, statement: Statement) -> Result<RowSet, SqlError> {
        self.query(statement, None)
    }
    fn execute_batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, SqlError> {
        statements.into_iter().map(|statement| self.execute(statement)).collect()
    }
    fn savepoint(&self) -> Result<u32, SqlError> {
        Err(SqlError::Limit("no savepoints in this measurement".into()))
    }
    fn release(&self, _: u32) -> Result<(), SqlError> {
        Err(SqlError::Limit("no savepoints in this measurement".into()))
    }
    fn rollback_to(&self, _: u32) -> Result<(), SqlError> {
        Err(SqlError::Limit("no savepoints in this measurement".into()))
    }
    fn commit(self: Box<Self>) -> Result<(), SqlError> {
        self.open.set(false);
        self.database.command("COMMIT").map_err(broken)
    }
}

impl Drop for NativeView {
    fn drop(&mut self) {
        if self.open.get() {
            // As for the host's.
            let _ = self.database.command("ROLLBACK");
        }
    }
}

impl Executor for NativeImports {
    fn describe(&self, _: &str) -> Result<DatabaseInfo, SqlError> {
        Ok(DatabaseInfo { dialect: syncline_guest::imports::Dialect::Sqlite, table_prefix: String::new() })
    }
    fn snapshot(&self, _: &str) -> Result<Box<dyn Snapshot>, SqlError> {
        Ok(Box::new(NativeView { database: self.database.clone(), open: std::cell::Cell::new(false) }))
    }
    fn begin(&self, _: &str) -> Result<Box<dyn Transaction>, SqlError> {
        self.database.command("BEGIN IMMEDIATE").map_err(broken)?;
        Ok(Box::new(NativeView { database: self.database.clone(), open: std::cell::Cell::new(true) }))
    }
}

const NO_STORAGE: &str = "no storage in this measurement";

fn no_storage<T>() -> Result<T, StorageError> {
    Err(StorageError::Unavailable(NO_STORAGE.into()))
}

impl Storage for NativeImports {
    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StorageError> {
        no_storage()
    }
    fn set(&self, _: &str, _: Vec<u8>, _: Option<u64>) -> Result<(), StorageError> {
        no_storage()
    }
    fn delete(&self, _: &str) -> Result<(), StorageError> {
        no_storage()
    }
    fn increment(&self, _: &str, _: i64, _: Option<u64>) -> Result<i64, StorageError> {
        no_storage()
    }
    fn compare_and_set(&self, _: &str, _: Option<Vec<u8>>, _: Vec<u8>) -> Result<bool, StorageError> {
        no_storage()
    }
    fn keys(&self, _: &str, _: Option<&str>, _: u32) -> Result<Vec<String>, StorageError> {
        no_storage()
    }
    fn head_object(&self, _: &str) -> Result<ObjectInfo, StorageError> {
        no_storage()
    }
    fn read_object(&self, _: &str, _: Option<ByteRange>) -> Result<Vec<u8>, StorageError> {
        no_storage()
    }
    fn write_object(&self, _: &str, _: &str, _: Vec<u8>) -> Result<ObjectInfo, StorageError> {
        no_storage()
    }
    fn delete_object(&self, _: &str) -> Result<(), StorageError> {
        no_storage()
    }
    fn list_objects(&self, _: &str, _: Option<&str>, _: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        no_storage()
    }
}

impl PubSub for NativeImports {
    fn publish(&self, _: Publication) {
        self.published.set(self.published.get() + 1);
    }
    fn subscribe(&self, _: ConnectionId, _: Subscription) {}
    fn unsubscribe(&self, _: ConnectionId, _: &str) {}
    fn members(&self, _: &str) -> Vec<Member> {
        Vec::new()
    }
    fn send(&self, _: ConnectionId, _: Frame) {}
    fn schedule(&self, _: &str, _: u64, _: Vec<u8>) {}
    fn cancel(&self, _: &str) {}
}

impl Effects for NativeImports {
    fn post(&self, _: OutboundPost) {}
    fn measure(&self, _: Metric) {}
    fn measured(&self) -> Vec<Metric> {
        Vec::new()
    }
    fn log(&self, _: Level, _: &str, _: &str) {}
    fn refresh_document(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
}
