//! `executor`: SQL for the component, one file per backend.
//!
//! [`Executor`] is an embedding interface: a program that uses the host as a library may bring its own. The shapes
//! ([`Statement`], [`RowSet`] …) are those of the contract, `wit/deps/host/executor.wit`.
//!
//! Durability comes in *groups*. `commit` returns as soon as a transaction is part of a group; the host holds back
//! everything that rests on the group until the executor reports it [`GroupObserver::settled`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use rows::{Cell, Rows};

use crate::backup::Standstill;

pub mod durable;
pub mod group;
mod open;
pub mod postgres;
mod probe;
mod rows;
pub mod sqlite;

/// A database of a mount. Names come from the component and are private to the mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseName {
    /// The mount; `syncline` is the host's own.
    pub mount: String,
    /// The component's name for it: any text, to be encoded where a backend has rules for names.
    pub name: String,
}

/// How the statements of a database are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Placeholders are `?`.
    Sqlite,
    /// Placeholders are `$1`, `$2` …
    Postgres,
}

/// What a component must know before it writes statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// The dialect.
    pub dialect: Dialect,
    /// Goes before every table and index name; empty where the database is the name's own.
    pub table_prefix: String,
}

/// An SQL value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// One statement and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Exactly one statement.
    pub sql: String,
    /// In the order of the placeholders.
    pub parameters: Vec<Value>,
}

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet {
    /// The rows.
    pub rows: Rows,
    /// Rows changed by INSERT, UPDATE, DELETE.
    pub changed: u64,
    /// More rows exist than the limit let through.
    pub truncated: bool,
}

/// Bytes, and rows, that the results of one batch may have together.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// See [`BATCH_BYTES_MAX`].
const BATCH_ROWS_MAX: usize = 1_000_000;

/// Which kind of constraint refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// UNIQUE or PRIMARY KEY.
    Unique,
    /// FOREIGN KEY.
    ForeignKey,
    /// NOT NULL.
    NotNull,
    /// CHECK.
    Check,
    /// Any other.
    Other,
}

/// Why a database did not do what it was asked. One variant per decision of the caller.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum ExecutorError {
    /// Nothing happened (deadlock, serialization failure): the whole call is run again.
    #[error("the transaction was aborted and may be run again")]
    Aborted,
    /// A constraint refused the change.
    #[error("a constraint refused the change: {1}")]
    Constraint(ConstraintKind, String),
    /// The statement is wrong.
    #[error("the statement is not valid: {0}")]
    InvalidStatement(String),
    /// Rows, bytes, time of an open transaction, or disk.
    #[error("a limit was reached: {0}")]
    Limit(String),
    /// Away, or broken.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
}

/// Opens databases by name.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Opens a database, creating it where there is none. The host asks once per name and keeps what it gets, so a
    /// backend that closes idle files does so behind its [`Database`]. `observer` is told of every group.
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError>;

    /// Whether the backend works right now (asked by `/readyz`): a real write and read, not a guess.
    async fn ready(&self) -> Result<(), ExecutorError>;

    /// Holds every writer still, and pins a view of all databases (also of those that are not open) for a backup.
    /// Dropped at any time, also before it returns, it lets the writers go on.
    async fn stand_still(&self) -> Result<Standstill, ExecutorError> {
        Err(ExecutorError::Unavailable("this backend is backed up by means of its own".into()))
    }

    /// Whether other processes may work on the same databases at the same time. Then the host asks before it does what
    /// one of them is to do once (it sends posts of the outbox that it could put off first), looks again and again for what
    /// others left, and takes no note away that they may rely on.
    fn is_shared(&self) -> bool {
        false
    }

    /// Bytes that the databases of a mount take up on disk; none where the backend cannot say.
    async fn size_bytes(&self, _mount: &str) -> Result<Option<u64>, ExecutorError> {
        Ok(None)
    }

    /// What the databases of a mount hold, in bytes, for its quota: opened or not, without space that is free. Asked for
    /// every write of a mount with a quota, so it must be cheap. None: this backend cannot tell, so there are no quotas.
    fn database_bytes(&self, _mount: &str) -> Option<u64> {
        None
    }

    /// What the databases of a mount take beside their content, for the metrics.
    fn usage(&self, _mount: &str) -> MountUsage {
        MountUsage::default()
    }

    /// The host stops: every open group is settled when this returns.
    async fn close(&self);
}

/// See [`Executor::usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountUsage {
    /// Bytes of the write-ahead logs.
    pub log_bytes: u64,
    /// How long the oldest snapshot has been open.
    pub snapshot_age: Duration,
}

/// Learns which groups became durable.
pub trait GroupObserver: Send + Sync {
    /// Called once per group of a database, in the order of groups. Not durable: the group is lost, none of its
    /// transactions happened, and no later transaction has seen them. It returns soon and never calls back into the executor.
    fn settled(&self, database: &DatabaseName, group: u64, durable: bool);
}

/// One database.
#[async_trait]
pub trait Database: Send + Sync {
    /// Dialect and table prefix.
    fn info(&self) -> DatabaseInfo;

    /// A consistent view of what is durable.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError>;

    /// Says that the caller may begin another transaction soon: as long as the hold lives, and for some milliseconds at
    /// most, a group need not be brought to disk only because nobody waits to join it.
    fn hold(&self) -> Hold {
        Hold::default()
    }

    /// Waits until this caller is the only writer. The transaction sees everything committed before it, durable or not.
    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError>;

    /// The same, within other limits of time than those that the executor is set to. A backend without such limits ignores it.
    async fn begin_within(&self, _time: TransactionTime) -> Result<Box<dyn Transaction>, ExecutorError> {
        self.begin().await
    }
}

/// How long a transaction may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionTime {
    /// As the executor is set.
    #[default]
    AsSet,
    /// It may stay open for so long; its statements and its wait for its turn are bounded as the executor is set.
    Open(Duration),
    /// Rare work that must be done as one (a migration): so long it may wait for its turn, so long stay open, and so long each of
    /// its statements may run.
    Long(Duration),
}

impl TransactionTime {
    /// How long it may stay open, where the executor is set to so many milliseconds.
    fn open_max(self, set_ms: u64) -> Duration {
        match self {
            Self::AsSet => Duration::from_millis(set_ms),
            Self::Open(open_max) | Self::Long(open_max) => open_max,
        }
    }

    /// How long one of its statements may run, or how long it may wait for its turn, in milliseconds, where the executor is set to
    /// so many.
    fn step_ms_max(self, set_ms: u64) -> u64 {
        match self {
            Self::AsSet | Self::Open(_) => set_ms,
            Self::Long(max) => u64::try_from(max.as_millis()).unwrap_or(u64::MAX).max(set_ms),
        }
    }

    /// Whether it is of the rare kind.
    fn is_long(self) -> bool {
        matches!(self, Self::Long(_))
    }
}

/// See [`Database::hold`]. Dropping it ends it.
#[derive(Default)]
pub struct Hold {
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Hold {
    /// A hold that is ended by a function.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { on_drop: Some(Box::new(end)) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(end) = self.on_drop.take() {
            end();
        }
    }
}

/// A consistent view over any number of queries; dropping it ends it.
#[async_trait]
pub trait Snapshot: Send {
    /// Runs a query. At most `row_limit` rows come back.
    async fn query(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError>;
}

/// Told the number of the group that a transaction ended in.
///
/// Called within `commit` or `rollback`, before any later transaction of the database can end: the order of these
/// calls is the commit order.
pub type Ended<'a> = &'a mut (dyn FnMut(u64) + Send);

/// The open transaction of a database; dropping it rolls back.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement. At most `row_limit` rows come back.
    async fn execute(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError>;

    /// Runs several in order, up to the first error.
    async fn execute_batch(&mut self, statements: &[Statement]) -> Result<Vec<RowSet>, ExecutorError> {
        let (mut results, mut bytes, mut rows) = (Vec::with_capacity(statements.len()), 0, 0);
        for statement in statements {
            let result = self.execute(statement, None).await?;
            (bytes, rows) = (bytes + result.rows.content_bytes(), rows + result.rows.len());
            if bytes > BATCH_BYTES_MAX || rows > BATCH_ROWS_MAX {
                return Err(ExecutorError::Limit("size of the results of a batch".into()));
            }
            results.push(result);
        }
        Ok(results)
    }

    /// Marks a point to go back to; numbers grow.
    async fn savepoint(&mut self) -> Result<u32, ExecutorError>;

    /// Forgets a savepoint and those after it, keeping the changes.
    async fn release(&mut self, savepoint: u32) -> Result<(), ExecutorError>;

    /// Undoes everything since a savepoint, which stays; those after it are gone.
    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), ExecutorError>;

    /// Stops the clock of the open transaction's time limit while an app works in it, whose time has a limit of its own,
    /// and lets it go on. A backend without such a limit need not do anything.
    fn stop_clock(&mut self, _stopped: bool) {}

    /// Makes the transaction part of the current group. After an error nothing happened.
    async fn commit(self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError>;

    /// Undoes the transaction. What it saw may rest on the current group, so it has a place in the order too.
    async fn rollback(self: Box<Self>, ended: Ended<'_>);
}
