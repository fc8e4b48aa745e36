//! Tests of the executor, through its traits. Commits are held up and failed by a hook in the writer's connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::executor::{RowSet, Statement, Value};

mod damage;
mod groups;
mod histories;
mod openings;
mod space;
mod statements;

/// Everything that is waited for comes within this time, or the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("what the test waits for did not come")
}

/// Polls once: what the future does before it first waits has been done.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// What the observer was told, in order.
struct Log {
    settled: watch::Sender<Vec<(u64, bool)>>,
}

impl GroupObserver for Log {
    fn settled(&self, _database: &DatabaseName, group: u64, durable: bool) {
        self.settled.send_modify(|settled| settled.push((group, durable)));
    }
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self { settled: watch::Sender::new(Vec::new()) })
    }

    fn all(&self) -> Vec<(u64, bool)> {
        self.settled.borrow().clone()
    }

    /// Waits for a group; whether it is durable.
    async fn of(&self, group: u64) -> bool {
        let mut receiver = self.settled.subscribe();
        let settled = within(receiver.wait_for(|settled| settled.iter().any(|(number, _)| *number == group))).await.unwrap();
        settled.iter().find(|(number, _)| *number == group).unwrap().1
    }
}

/// Stands in the way of commits.
#[derive(Default)]
struct Hook {
    commit_count: AtomicU64,
    fail_next: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
    opened_count: AtomicU64,
    closed_count: watch::Sender<u64>,
}

/// Dropped with the connection that the hook is in.
struct Closing(Arc<Hook>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closed_count.send_modify(|count| *count += 1);
    }
}

impl Hook {
    fn on_open(self: &Arc<Self>) -> OnOpen {
        let hook = Arc::clone(self);
        Arc::new(move |connection| {
            hook.opened_count.fetch_add(1, Ordering::SeqCst);
            let closing = Closing(Arc::clone(&hook));
            connection.commit_hook(Some(move || closing.0.commit())).unwrap();
        })
    }

    /// Whether the commit is refused.
    fn commit(&self) -> bool {
        self.commit_count.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.lock();
        while *held {
            assert!(!self.released.wait_for(&mut held, DEADLINE).timed_out());
        }
        self.fail_next.swap(false, Ordering::SeqCst)
    }

    fn hold(&self) {
        *self.held.lock() = true;
    }

    fn release(&self) {
        *self.held.lock() = false;
        self.released.notify_all();
    }

    fn commit_count(&self) -> u64 {
        self.commit_count.load(Ordering::SeqCst)
    }
}

struct Fixture {
    folder: TempDir,
    executor: SqliteExecutor,
    database: Arc<dyn Database>,
    hook: Arc<Hook>,
    log: Arc<Log>,
}

fn name(name: &str) -> DatabaseName {
    DatabaseName { mount: "mount".to_owned(), name: name.to_owned() }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A database `main` with an empty table `item (id, body)`, made in group 1.
    async fn with(change: impl FnOnce(&mut SqliteSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hook = Arc::new(Hook::default());
        let mut settings = SqliteSettings::new(folder.path());
        settings.on_open = Some(hook.on_open());
        // Tests fail by `within`, not because the machine is slow.
        settings.statement_ms_max = 20_000;
        settings.transaction_ms_max = 20_000;
        settings.begin_wait_ms_max = 20_000;
        change(&mut settings);
        let executor = SqliteExecutor::start(settings).await.unwrap();
        let log = Log::new();
        let database = executor.open(&name("main"), log.clone()).await.unwrap();
        let fixture = Self { folder, executor, database, hook, log };
        let mut transaction = fixture.begin().await;
        transaction.execute(&sql("CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT)"), None).await.unwrap();
        assert!(fixture.commit(transaction).await);
        fixture
    }

    async fn begin(&self) -> Box<dyn Transaction> {
        within(self.database.begin()).await.unwrap()
    }

    /// Begins, inserts an item, and commits; the group.
    async fn insert(&self, id: i64) -> u64 {
        let mut transaction = self.begin().await;
        transaction.execute(&insert(id), None).await.unwrap();
        commit(transaction).await
    }

    /// Commits and waits; whether it is durable.
    async fn commit(&self, transaction: Box<dyn Transaction>) -> bool {
        self.log.of(commit(transaction).await).await
    }

    /// The items that a snapshot sees.
    async fn items(&self) -> Vec<i64> {
        ids(within(self.database.snapshot()).await.unwrap().query(&sql("SELECT id FROM item ORDER BY id"), None).await.unwrap())
    }
}

async fn commit(transaction: Box<dyn Transaction>) -> u64 {
    let mut group = 0;
    transaction.commit(&mut |number| group = number).await.unwrap();
    group
}

async fn rollback(transaction: Box<dyn Transaction>) -> u64 {
    let mut group = 0;
    transaction.rollback(&mut |number| group = number).await;
    group
}

fn sql(text: &str) -> Statement {
    Statement { sql: text.to_owned(), parameters: Vec::new() }
}

fn insert(id: i64) -> Statement {
    Statement { sql: "INSERT INTO item (id) VALUES (?)".to_owned(), parameters: vec![Value::Integer(id)] }
}

fn ids(result: RowSet) -> Vec<i64> {
    let id = |row: &Vec<Value>| if let [Value::Integer(id)] = row.as_slice() { *id } else { panic!("{row:?}") };
    result.rows.iter().map(|row| id(&row)).collect()
}
