//! One open SQLite connection: how it is set up, what a component may not do on it, and its time budget.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use super::OnOpen;
use super::statement::executor_error;
use crate::executor::ExecutorError;

/// How long SQLite waits for a lock that somebody else holds. Within the process nobody holds one for longer than the
/// checkpoint of a closing connection.
const BUSY_MS_MAX: u64 = 500;

/// The time budget is looked at after about so many instructions of SQLite's machine (tens of microseconds).
const BUDGET_CHECK_INSTRUCTIONS: i32 = 2_000;

/// Largest text, blob, row or statement: SQLite's own limit of 1 GB would let one statement fill the memory.
const VALUE_BYTES_MAX: i32 = 64 << 20;

/// Statements kept prepared per connection.
const STATEMENT_CACHE_COUNT: usize = 256;

/// The write-ahead log is cut back to this size when it was larger and is started anew.
const LOG_BYTES_KEPT: i64 = 64 << 20;

/// No time budget.
const UNLIMITED: u64 = u64::MAX;

/// The kind and version of a file, held in its header (`application_id`, `user_version`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileFormat {
    /// Four letters.
    pub(crate) application: u32,
    /// Grows with every change that older programs do not understand.
    pub(crate) version: u32,
}

/// Databases of components.
pub(crate) const DATABASE_FORMAT: FileFormat = FileFormat { application: u32::from_be_bytes(*b"SYNd"), version: 1 };

/// Opens a file that is ours or new: an empty one is made ours, any other is refused before a byte of it changes.
/// Write-ahead logging is on, and nothing else is set.
pub(crate) fn open_file(path: &Path, format: FileFormat) -> Result<Connection, ExecutorError> {
    let unavailable = |error: rusqlite::Error| ExecutorError::Unavailable(format!("{}: {error}", path.display()));
    let connection = open_raw(path, OpenFlags::SQLITE_OPEN_CREATE).map_err(unavailable)?;
    let number = |name: &str| connection.query_row(name, [], |row| row.get::<_, i32>(0)).map_err(unavailable);
    // SQLite keeps both as signed 32-bit numbers.
    let application = number("PRAGMA application_id")?.cast_unsigned();
    let version = number("PRAGMA user_version")?.cast_unsigned();
    let entries = number("SELECT count(*) FROM sqlite_schema")?;
    let empty = (application, version, entries) == (0, 0, 0);
    if !empty && application != format.application {
        return Err(ExecutorError::Unavailable(format!("{} is not a file of this program", path.display())));
    }
    if version > format.version {
        let known = format.version;
        return Err(ExecutorError::Unavailable(format!(
            "{} has file format {version}, written by a newer version of this program, which knows {known}",
            path.display()
        )));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(unavailable)?;
    if mode != "wal" {
        return Err(ExecutorError::Unavailable(format!("{}: the file system allows no write-ahead log ({mode})", path.display())));
    }
    if empty {
        let FileFormat { application, version } = format;
        let application = application.cast_signed();
        let header = format!("BEGIN IMMEDIATE; PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT");
        connection.execute_batch(&header).map_err(unavailable)?;
    }
    Ok(connection)
}

fn open_raw(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    // No mutex: a connection is used by one thread at a time, which the borrow checker sees to.
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    Ok(connection)
}

/// Until when a statement may run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// The end for any statement.
    pub(super) statement_end: Instant,
    /// An earlier end for statements that only read, which are stopped without harm. (SQLite answers the interruption
    /// of a write by rolling back the whole group.)
    pub(super) read_end: Option<Instant>,
}

/// Shared by a connection and the hooks in it.
#[derive(Debug)]
struct Guard {
    epoch: Instant,
    /// Microseconds since `epoch`.
    deadline_us: AtomicU64,
    /// The statement being prepared comes from a component.
    component: AtomicBool,
    /// The statement prepared last makes or alters a table.
    alters_table: AtomicBool,
}

impl Guard {
    fn expired(&self) -> bool {
        let deadline_us = self.deadline_us.load(Ordering::Relaxed);
        deadline_us != UNLIMITED && self.epoch.elapsed().as_micros() >= u128::from(deadline_us)
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.component.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        match context.action {
            AuthAction::CreateTable { .. } | AuthAction::AlterTable { .. } => {
                self.alters_table.store(true, Ordering::Relaxed);
                Authorization::Allow
            }
            // SQLite itself asks these: for full-text and box indexes, and to check rows when a column is added.
            AuthAction::Pragma { pragma_name: "data_version" | "page_size", pragma_value: None } => Authorization::Allow,
            AuthAction::Pragma { pragma_name: "quick_check", .. } => Authorization::Allow,
            AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. }
            | AuthAction::Pragma { .. }
            // Temporary things live as long as a connection, which no component knows anything of.
            | AuthAction::CreateTempIndex { .. }
            | AuthAction::CreateTempTable { .. }
            | AuthAction::CreateTempTrigger { .. }
            | AuthAction::CreateTempView { .. }
            // So is, for one, an ATTACH whose file name is computed.
            | AuthAction::Unknown { .. } => Authorization::Deny,
            _ => Authorization::Allow,
        }
    }
}

/// A connection with the guard that stands between it and statements of components.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    guard: Arc<Guard>,
}

impl Link {
    /// Opens the writer of a file, making the file where there is none.
    pub(super) fn open_writer(path: &Path, on_open: Option<&OnOpen>) -> Result<Self, ExecutorError> {
        let mut connection = open_file(path, DATABASE_FORMAT)?;
        let settings = format!(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = {LOG_BYTES_KEPT}"
        );
        connection.execute_batch(&settings).map_err(executor_error)?;
        if let Some(on_open) = on_open {
            on_open(&mut connection);
        }
        Self::guarded(connection).map_err(executor_error)
    }

    /// Opens a reader of a file that a writer has opened before.
    pub(super) fn open_reader(path: &Path) -> Result<Self, ExecutorError> {
        let connection = open_raw(path, OpenFlags::empty()).map_err(executor_error)?;
        connection.execute_batch("PRAGMA query_only = ON").map_err(executor_error)?;
        Self::guarded(connection).map_err(executor_error)
    }

    fn guarded(mut connection: Connection) -> Result<Self, rusqlite::Error> {
        let guard = Arc::new(Guard {
            epoch: Instant::now(),
            deadline_us: AtomicU64::new(UNLIMITED),
            component: AtomicBool::new(false),
            alters_table: AtomicBool::new(false),
        });
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_COUNT);
        // Full-text indexes keep their data in tables that only they may write.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        let authorizer = Arc::clone(&guard);
        connection.authorizer(Some(move |context: AuthContext<'_>| authorizer.authorize(&context)))?;
        let watch = Arc::clone(&guard);
        connection.progress_handler(BUDGET_CHECK_INSTRUCTIONS, Some(move || watch.expired()))?;
        Ok(Self { connection, guard })
    }

    /// Runs statements of the backend itself. Never cached: a component's statement of the same text would find it,
    /// past the authorizer.
    pub(super) fn own(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.connection.execute_batch(sql)
    }

    /// Whether no transaction is open.
    pub(super) fn is_autocommit(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Lends the connection for a statement of a component.
    pub(super) fn for_component<T>(&self, budget: Budget, run: impl FnOnce(&Connection, &Watch<'_>) -> T) -> T {
        let watch = Watch { guard: &self.guard, budget };
        watch.until(budget.statement_end);
        self.guard.alters_table.store(false, Ordering::Relaxed);
        self.guard.component.store(true, Ordering::Relaxed);
        run(&self.connection, &watch)
    }
}

/// The time budget of the statement that runs. Dropping it makes the connection the backend's own again.
pub(super) struct Watch<'a> {
    guard: &'a Guard,
    budget: Budget,
}

impl Watch<'_> {
    fn until(&self, end: Instant) {
        let deadline_us = end.saturating_duration_since(self.guard.epoch).as_micros();
        self.guard.deadline_us.store(u64::try_from(deadline_us).unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// The statement turned out to read only.
    pub(super) fn only_reads(&self) {
        if let Some(end) = self.budget.read_end {
            self.until(end.min(self.budget.statement_end));
        }
    }

    /// Whether the statement prepared last makes or alters a table.
    pub(super) fn alters_table(&self) -> bool {
        self.guard.alters_table.load(Ordering::Relaxed)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.guard.component.store(false, Ordering::Relaxed);
        self.guard.deadline_us.store(UNLIMITED, Ordering::Relaxed);
    }
}
