//! One open SQLite connection: how it is set up, what a component may not do on it, and its time budget.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use super::format::{DATABASE_FORMAT, named, open_existing, open_file, open_raw, vacuum};
use super::statement::executor_error;
use super::{OnOpen, Synchronous};
use crate::executor::ExecutorError;

/// The time budget is looked at after about so many instructions of SQLite's machine (tens of microseconds).
const BUDGET_CHECK_INSTRUCTIONS: i32 = 2_000;

/// Statements kept prepared per connection.
const STATEMENT_CACHE_COUNT: usize = 256;

/// The write-ahead log is cut back to this size when it was larger and is started anew.
pub(super) const LOG_BYTES_KEPT: i64 = 64 << 20;

/// No time budget.
const UNLIMITED: u64 = u64::MAX;

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

/// How statements begin that stay prepared for the backend. No component may send one that begins like this: it would find
/// the prepared one, past the authorizer.
pub(super) const OWN_PREFIX: &str = "/* own */ ";

/// A connection with the guard that stands between it and statements of components.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    guard: Arc<Guard>,
}

impl Link {
    /// Opens the writer of a file; `create`: making the file where there is none.
    pub(super) fn open_writer(
        path: &Path,
        create: bool,
        synchronous: Synchronous,
        on_open: Option<&OnOpen>,
    ) -> Result<Self, ExecutorError> {
        let failed = |error| named(path, executor_error(error));
        let mut connection = if create { open_file(path, DATABASE_FORMAT)? } else { open_existing(path, DATABASE_FORMAT)? };
        let synchronous = match synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Off => "OFF",
        };
        let settings = format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = {LOG_BYTES_KEPT}"
        );
        connection.execute_batch(&settings).map_err(failed)?;
        if let Some(on_open) = on_open {
            on_open(&mut connection);
        }
        Self::guarded(connection).map_err(failed)
    }

    /// Opens a reader of a file that a writer has opened before.
    pub(super) fn open_reader(path: &Path) -> Result<Self, ExecutorError> {
        let failed = |error| named(path, executor_error(error));
        let connection = open_raw(path, OpenFlags::empty()).map_err(failed)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cell_size_check = ON").map_err(failed)?;
        Self::guarded(connection).map_err(failed)
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
        // Plans that depend on parameters would have every cached statement prepared anew whenever it is bound.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let authorizer = Arc::clone(&guard);
        connection.authorizer(Some(move |context: AuthContext<'_>| authorizer.authorize(&context)))?;
        let watch = Arc::clone(&guard);
        connection.progress_handler(BUDGET_CHECK_INSTRUCTIONS, Some(move || watch.expired()))?;
        Ok(Self { connection, guard })
    }

    /// Runs one statement of the backend itself, which stays prepared.
    pub(super) fn own(&self, sql: &str) -> Result<(), rusqlite::Error> {
        let mut prepared = self.connection.prepare_cached(&[OWN_PREFIX, sql].concat())?;
        let mut rows = prepared.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// The number that a statement of the backend itself gives.
    pub(super) fn own_number(&self, sql: &str) -> Result<u64, rusqlite::Error> {
        let mut prepared = self.connection.prepare_cached(&[OWN_PREFIX, sql].concat())?;
        prepared.query_row([], |row| row.get::<_, i64>(0)).map(|number| u64::try_from(number).unwrap_or(0))
    }

    /// Gives back so many free pages at the end of the file, moving pages in use to the front.
    pub(super) fn vacuum(&self, pages: u32) -> Result<(), rusqlite::Error> {
        vacuum(&self.connection, pages)
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
