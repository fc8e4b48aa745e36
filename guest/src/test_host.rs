//! A host in memory, for the tests of every room: SQLite, objects and key-value, publications, log.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::types::ValueRef;

use crate::imports::*;

/// Where a failure is to happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Snapshot,
    Begin,
    Commit,
    /// The so-manieth statement of a transaction from now, 0 for the next.
    Statement(u32),
}

#[derive(Default)]
struct Faults {
    next: RefCell<Option<(Fault, SqlError)>>,
    answer_bytes_max: Cell<Option<usize>>,
}

impl Faults {
    fn check(&self, at: Fault) -> Result<(), SqlError> {
        let mut next = self.next.borrow_mut();
        match (next.take(), at) {
            (Some((fault, error)), _) if fault == at => Err(error),
            (Some((Fault::Statement(after), error)), Fault::Statement(0)) => {
                *next = Some((Fault::Statement(after - 1), error));
                Ok(())
            }
            (other, _) => {
                *next = other;
                Ok(())
            }
        }
    }
}

/// SQLite in memory.
pub struct TestExecutor {
    connection: Rc<rusqlite::Connection>,
    faults: Rc<Faults>,
    /// Transactions begun, those within another one left out.
    pub begun: Cell<u32>,
    /// Statements that were run.
    pub statements: Rc<Cell<u32>>,
    /// Their texts.
    pub texts: Rc<RefCell<BTreeSet<String>>>,
    savepoints: Rc<Cell<u32>>,
    published: Rc<RefCell<Vec<Publication>>>,
    steps: Rc<RefCell<Vec<String>>>,
}

/// What a view undoes when it is dropped.
#[derive(Clone, Copy, PartialEq)]
enum Opened {
    Snapshot,
    Transaction,
    /// A transaction within another one.
    Savepoint(u32),
}

struct View {
    connection: Rc<rusqlite::Connection>,
    faults: Rc<Faults>,
    statements: Rc<Cell<u32>>,
    texts: Rc<RefCell<BTreeSet<String>>>,
    savepoints: Rc<Cell<u32>>,
    published: Rc<RefCell<Vec<Publication>>>,
    /// Publications that were there when it began, and when each savepoint was set.
    published_before: RefCell<Vec<(u32, usize)>>,
    opened: Opened,
    open: Cell<bool>,
}

impl TestExecutor {
    fn view(&self, opened: Opened) -> View {
        View {
            connection: self.connection.clone(),
            faults: self.faults.clone(),
            statements: self.statements.clone(),
            texts: self.texts.clone(),
            savepoints: self.savepoints.clone(),
            published: self.published.clone(),
            published_before: RefCell::new(vec![(0, self.published.borrow().len())]),
            opened,
            open: Cell::new(true),
        }
    }
}

fn failed(error: rusqlite::Error) -> SqlError {
    match &error {
        rusqlite::Error::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::ConstraintViolation => {
            let kind = match code.extended_code {
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY => ConstraintKind::Unique,
                rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
                rusqlite::ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
                rusqlite::ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
                _ => ConstraintKind::Other,
            };
            SqlError::Constraint((kind, error.to_string()))
        }
        _ => SqlError::InvalidStatement(error.to_string()),
    }
}

fn run(connection: &rusqlite::Connection, statement: Statement, limit: Option<u32>) -> Result<RowSet, SqlError> {
    let mut prepared = connection.prepare_cached(&statement.sql).map_err(failed)?;
    let parameters = statement.parameters.into_iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(number) => number.into(),
        Value::Real(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => bytes.into(),
    });
    let columns = prepared.column_count();
    if columns == 0 {
        let changed = prepared.execute(rusqlite::params_from_iter(parameters)).map_err(failed)? as u64;
        return Ok(RowSet { rows: Vec::new(), changed, truncated: false });
    }
    let mut found = prepared.query(rusqlite::params_from_iter(parameters)).map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        if limit.is_some_and(|limit| rows.len() >= limit as usize) {
            return Ok(RowSet { rows, changed: 0, truncated: true });
        }
        let value = |index| match row.get_ref(index).unwrap() {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        rows.push((0..columns).map(value).collect());
    }
    let changed = rows.len() as u64;
    Ok(RowSet { rows, changed, truncated: false })
}

impl Query for View {
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError> {
        self.note(&statement);
        let found = run(&self.connection, statement, row_limit)?;
        let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
        let bytes: usize = found.rows.iter().flatten().map(length).sum();
        let too_large = self.faults.answer_bytes_max.get().is_some_and(|limit| bytes > limit);
        if too_large { Err(SqlError::Limit("bytes".into())) } else { Ok(found) }
    }
}

impl Snapshot for View {
    fn into_handle(self: Box<Self>) -> Option<crate::contract::syncline::host::executor::Snapshot> {
        None
    }
}

impl View {
    fn note(&self, statement: &Statement) {
        self.statements.set(self.statements.get() + 1);
        if !self.texts.borrow().contains(&statement.sql) {
            self.texts.borrow_mut().insert(statement.sql.clone());
        }
    }

    fn command(&self, text: &str) -> Result<(), SqlError> {
        self.connection.execute_batch(text).map_err(failed)
    }
}

impl Transaction for View {
    fn execute(&self, statement: Statement) -> Result<RowSet, SqlError> {
        self.faults.check(Fault::Statement(0))?;
        self.note(&statement);
        run(&self.connection, statement, None)
    }
    fn execute_batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, SqlError> {
        statements.into_iter().map(|statement| self.execute(statement)).collect()
    }
    fn savepoint(&self) -> Result<u32, SqlError> {
        let number = self.savepoints.get() + 1;
        self.savepoints.set(number);
        self.published_before.borrow_mut().push((number, self.published.borrow().len()));
        self.command(&format!("SAVEPOINT s{number}"))?;
        Ok(number)
    }
    fn release(&self, savepoint: u32) -> Result<(), SqlError> {
        self.command(&format!("RELEASE s{savepoint}"))
    }
    fn rollback_to(&self, savepoint: u32) -> Result<(), SqlError> {
        let before = self.published_before.borrow().iter().find(|(number, _)| *number == savepoint).map(|(_, length)| *length);
        self.published.borrow_mut().truncate(before.expect("a savepoint of this transaction"));
        self.command(&format!("ROLLBACK TO s{savepoint}"))
    }
    fn commit(self: Box<Self>) -> Result<(), SqlError> {
        if let Opened::Savepoint(number) = self.opened {
            self.open.set(false);
            return self.command(&format!("RELEASE s{number}"));
        }
        self.faults.check(Fault::Commit)?;
        self.open.set(false);
        self.connection.execute_batch("COMMIT").map_err(|error| SqlError::Unavailable(error.to_string()))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if !self.open.get() {
            return;
        }
        match self.opened {
            Opened::Snapshot => return,
            Opened::Transaction => self.command("ROLLBACK").unwrap(),
            Opened::Savepoint(number) => self.command(&format!("ROLLBACK TO s{number}; RELEASE s{number}")).unwrap(),
        }
        // What was published within a transaction shares its fate.
        self.published.borrow_mut().truncate(self.published_before.borrow()[0].1);
    }
}

impl Executor for TestExecutor {
    fn describe(&self, _: &str) -> Result<DatabaseInfo, SqlError> {
        Ok(DatabaseInfo { dialect: Dialect::Sqlite, table_prefix: "t_".into() })
    }
    fn snapshot(&self, _: &str) -> Result<Box<dyn Snapshot>, SqlError> {
        self.faults.check(Fault::Snapshot)?;
        if !self.connection.is_autocommit() {
            return Err(SqlError::InvalidStatement("a view beside an open transaction".into()));
        }
        self.steps.borrow_mut().push("read".into());
        Ok(Box::new(self.view(Opened::Snapshot)))
    }
    fn begin(&self, _: &str) -> Result<Box<dyn Transaction>, SqlError> {
        self.faults.check(Fault::Begin)?;
        if !self.connection.is_autocommit() {
            let number = self.savepoints.get() + 1;
            self.savepoints.set(number);
            self.connection.execute_batch(&format!("SAVEPOINT s{number}")).map_err(failed)?;
            return Ok(Box::new(self.view(Opened::Savepoint(number))));
        }
        self.begun.set(self.begun.get() + 1);
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Ok(Box::new(self.view(Opened::Transaction)))
    }
}

/// The SHA-256 of bytes in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    crate::encoding::hex(&sha2::Sha256::digest(bytes))
}

/// Objects and key-value facts in memory. Nothing in it ever ends by time.
#[derive(Default)]
pub struct TestStorage {
    pub objects: RefCell<BTreeMap<String, Vec<u8>>>,
    pub values: RefCell<BTreeMap<String, Vec<u8>>>,
    /// When a listing says that objects were made.
    pub created_ms: Cell<u64>,
    /// Keys of objects that came into the store without passing the host.
    pub direct: RefCell<BTreeSet<String>>,
    /// Keys of objects that are there and cannot be read.
    pub damaged: RefCell<BTreeSet<String>>,
    /// Whether the store answers nobody.
    pub is_away: Cell<bool>,
    /// Whether the store signs URLs.
    pub signs: Cell<bool>,
}

impl TestStorage {
    fn check(&self, key: &str) -> Result<(), StorageError> {
        let fails = self.is_away.get() || self.damaged.borrow().contains(key);
        if fails { Err(StorageError::Unavailable(format!("{key} cannot be read"))) } else { Ok(()) }
    }

    fn info(&self, key: &str, content: &[u8], content_type: &str) -> ObjectInfo {
        let created = self.created_ms.get();
        let sha256 = (!self.direct.borrow().contains(key)).then(|| sha256(content));
        ObjectInfo { size: content.len() as u64, content_type: content_type.into(), sha256, created, etag: String::new() }
    }
}

impl Storage for TestStorage {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.values.borrow().get(key).cloned())
    }
    fn set(&self, key: &str, value: Vec<u8>, _: Option<u64>) -> Result<(), StorageError> {
        self.values.borrow_mut().insert(key.into(), value);
        Ok(())
    }
    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.values.borrow_mut().remove(key);
        Ok(())
    }
    fn increment(&self, key: &str, delta: i64, _: Option<u64>) -> Result<i64, StorageError> {
        let mut values = self.values.borrow_mut();
        let before = match values.get(key) {
            Some(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(StorageError::Conflict)?,
            None => 0,
        };
        values.insert(key.into(), (before + delta).to_string().into_bytes());
        Ok(before + delta)
    }
    fn compare_and_set(&self, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError> {
        let mut values = self.values.borrow_mut();
        let equal = values.get(key) == expected.as_ref();
        if equal {
            values.insert(key.into(), value);
        }
        Ok(equal)
    }
    fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError> {
        let values = self.values.borrow();
        let wanted = values.keys().filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        Ok(wanted.take(limit as usize).cloned().collect())
    }
    fn head_object(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        self.check(key)?;
        self.objects.borrow().get(key).map(|content| self.info(key, content, "")).ok_or(StorageError::NotFound)
    }
    fn read_object(&self, key: &str, range: Option<ByteRange>) -> Result<Vec<u8>, StorageError> {
        self.check(key)?;
        let content = self.objects.borrow().get(key).cloned().ok_or(StorageError::NotFound)?;
        let Some(ByteRange { start, length }) = range else { return Ok(content) };
        Ok(content.into_iter().skip(start as usize).take(length as usize).collect())
    }
    fn presign_download(&self, key: &str, valid_ms: u64) -> Result<Option<String>, StorageError> {
        Ok(self.signs.get().then(|| format!("https://store/{key}?get={valid_ms}")))
    }
    fn presign_upload(&self, key: &str, _: &str, _: u64, valid_ms: u64) -> Result<Option<String>, StorageError> {
        Ok(self.signs.get().then(|| format!("https://store/{key}?put={valid_ms}")))
    }
    fn write_object(&self, key: &str, content_type: &str, content: Vec<u8>) -> Result<ObjectInfo, StorageError> {
        let info = self.info(key, &content, content_type);
        assert!(self.objects.borrow_mut().insert(key.into(), content).is_none(), "an object was overwritten");
        Ok(info)
    }
    fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        self.objects.borrow_mut().remove(key);
        Ok(())
    }
    fn list_objects(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let objects = self.objects.borrow();
        let wanted = objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        Ok(wanted.take(limit as usize).map(|(key, content)| (key.clone(), self.info(key, content, ""))).collect())
    }
}

/// Remembers what was published, who subscribed, and which jobs wait.
#[derive(Default)]
pub struct TestPubSub {
    pub published: Rc<RefCell<Vec<Publication>>>,
    /// By connection and topic.
    pub subscriptions: RefCell<BTreeMap<(ConnectionId, String), Subscription>>,
    pub sent: RefCell<Vec<(ConnectionId, Frame)>>,
    pub jobs: RefCell<BTreeMap<String, u64>>,
    steps: Rc<RefCell<Vec<String>>>,
}

impl PubSub for TestPubSub {
    fn publish(&self, publication: Publication) {
        self.published.borrow_mut().push(publication);
    }
    fn subscribe(&self, connection: ConnectionId, subscription: Subscription) {
        self.steps.borrow_mut().push(format!("subscribe {}", subscription.topic));
        self.subscriptions.borrow_mut().insert((connection, subscription.topic.clone()), subscription);
    }
    fn unsubscribe(&self, connection: ConnectionId, topic: &str) {
        self.subscriptions.borrow_mut().remove(&(connection, topic.to_owned()));
    }
    fn members(&self, topic: &str) -> Vec<Member> {
        let subscriptions = self.subscriptions.borrow();
        let members = subscriptions.iter().filter(|((_, name), _)| name == topic);
        members
            .filter_map(|((connection, _), subscription)| {
                Some(Member { connection: *connection, presence: subscription.presence.clone()? })
            })
            .collect()
    }
    fn send(&self, connection: ConnectionId, frame: Frame) {
        self.sent.borrow_mut().push((connection, frame));
    }
    fn schedule(&self, name: &str, due_ms: u64, _: Vec<u8>) {
        self.jobs.borrow_mut().insert(name.into(), due_ms);
    }
    fn cancel(&self, name: &str) {
        self.jobs.borrow_mut().remove(name);
    }
}

/// Remembers the log, posts and metrics.
#[derive(Default)]
pub struct TestEffects {
    pub lines: RefCell<Vec<(Level, String)>>,
    pub posts: RefCell<Vec<OutboundPost>>,
    pub metrics: RefCell<Vec<Metric>>,
    /// What a document is when it is fetched again.
    pub documents: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl Effects for TestEffects {
    fn post(&self, post: OutboundPost) {
        self.posts.borrow_mut().push(post);
    }
    fn measure(&self, metric: Metric) {
        self.metrics.borrow_mut().push(metric);
    }
    fn measured(&self) -> Vec<Metric> {
        // As hosts tell mounts apart.
        let with_mount = |metric: &Metric| {
            let labels = std::iter::once(("mount".to_owned(), "m".to_owned())).chain(metric.labels.iter().cloned()).collect();
            Metric { labels, ..metric.clone() }
        };
        self.metrics.borrow().iter().map(with_mount).collect()
    }
    fn log(&self, level: Level, message: &str, fields: &str) {
        self.lines.borrow_mut().push((level, format!("{message} {fields}")));
    }
    fn refresh_document(&self, name: &str) -> Option<Vec<u8>> {
        self.documents.borrow().get(name).cloned()
    }
}

/// Everything that a host gives, in memory.
pub struct HostInMemory {
    pub executor: TestExecutor,
    pub storage: TestStorage,
    pub pubsub: TestPubSub,
    pub effects: TestEffects,
    pub now_ms: Cell<u64>,
    /// Reads and subscriptions, in order.
    pub steps: Rc<RefCell<Vec<String>>>,
    faults: Rc<Faults>,
}

impl Default for HostInMemory {
    fn default() -> Self {
        let steps = Rc::new(RefCell::new(Vec::new()));
        let faults = Rc::new(Faults::default());
        let connection = Rc::new(rusqlite::Connection::open_in_memory().unwrap());
        connection.set_prepared_statement_cache_capacity(200);
        let published = Rc::<RefCell<Vec<Publication>>>::default();
        Self {
            executor: TestExecutor {
                connection,
                faults: faults.clone(),
                begun: Cell::new(0),
                statements: Rc::default(),
                texts: Rc::default(),
                savepoints: Rc::default(),
                published: published.clone(),
                steps: steps.clone(),
            },
            storage: TestStorage::default(),
            pubsub: TestPubSub { published, steps: steps.clone(), ..TestPubSub::default() },
            effects: TestEffects::default(),
            now_ms: Cell::new(1_000_000),
            steps,
            faults,
        }
    }
}

impl HostInMemory {
    /// The imports of one call, without an app.
    pub fn imports(&self) -> Imports<'_> {
        self.imports_with(&NoApp)
    }

    /// The imports of one call.
    pub fn imports_with<'a>(&'a self, app: &'a dyn App) -> Imports<'a> {
        Imports {
            executor: &self.executor,
            storage: &self.storage,
            pubsub: &self.pubsub,
            effects: &self.effects,
            app,
            now_ms: self.now_ms.get(),
        }
    }

    /// The next use of the database fails.
    pub fn fail(&self, at: Fault, error: SqlError) {
        self.faults.next.replace(Some((at, error)));
    }

    /// A failure that did not happen yet does not happen any more.
    pub fn no_faults(&self) {
        self.faults.next.replace(None);
    }

    /// Answers of more text than this are too large from now on.
    pub fn limit_answers(&self, bytes: usize) {
        self.faults.answer_bytes_max.set(Some(bytes));
    }

    /// How the database would carry out a statement, one line a step.
    pub fn plan(&self, text: &str) -> Vec<String> {
        let mut prepared = self.executor.connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
        let nulls = vec![rusqlite::types::Value::Null; prepared.parameter_count()];
        let steps = prepared.query_map(rusqlite::params_from_iter(nulls), |row| row.get("detail")).unwrap();
        steps.collect::<Result<_, _>>().unwrap()
    }

    /// Asks the database itself.
    pub fn sql(&self, text: &str) -> Vec<Vec<Value>> {
        run(&self.executor.connection, Statement { sql: text.into(), parameters: Vec::new() }, None).unwrap().rows
    }
}
