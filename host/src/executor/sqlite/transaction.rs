//! The open transaction of a database: a savepoint in the outer transaction of its group.

use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::Instant;

use super::connection::{Budget, Link};
use super::file::Turn;
use super::statement::{self, Access, executor_error};
use crate::executor::group::Ending;
use crate::executor::open::OpenTime;
use crate::executor::{Ended, ExecutorError, RowSet, Statement, Transaction, TransactionTime};

/// See [`Transaction`].
pub(super) struct SqliteTransaction {
    turn: Turn,
    time: TransactionTime,
    open_time: OpenTime,
    /// Open savepoints, rising.
    savepoints: Vec<u32>,
    savepoint_next: u32,
    /// Why the group is lost, if SQLite has rolled it back.
    lost: Option<ExecutorError>,
    /// How it ended; none as long as it has not.
    ending: Option<Ending>,
}

impl SqliteTransaction {
    /// Begins the transaction of a turn.
    pub(super) fn begin(turn: Turn, time: TransactionTime) -> Result<Self, ExecutorError> {
        let open_time = OpenTime::new(time.open_max(turn.file.settings.transaction_ms_max));
        let mut transaction = Self { turn, time, open_time, savepoints: Vec::new(), savepoint_next: 1, lost: None, ending: None };
        if let Err(error) = transaction.own("SAVEPOINT turn") {
            // Not begun, so there is nothing to roll back to; but what is left must be still a transaction.
            let whole = transaction.link().is_ok_and(|link| !link.is_autocommit());
            transaction.ending = Some(if whole { Ending::RolledBack } else { Ending::Lost });
            return Err(error);
        }
        Ok(transaction)
    }

    fn link(&self) -> Result<&Link, ExecutorError> {
        self.turn.link.as_ref().ok_or_else(|| ExecutorError::Unavailable("no connection".to_owned()))
    }

    fn own(&mut self, sql: &str) -> Result<(), ExecutorError> {
        let result = self.link()?.own(sql).map_err(executor_error);
        self.notice(result)
    }

    /// Puts the file's name to an error, and looks whether SQLite has rolled back more than a statement.
    fn notice<T>(&mut self, result: Result<T, ExecutorError>) -> Result<T, ExecutorError> {
        let result = result.map_err(|error| self.turn.file.named(error));
        if let Err(error) = &result
            && self.lost.is_none()
            && self.link()?.is_autocommit()
        {
            let file = &self.turn.file;
            tracing::warn!(mount = file.name.mount, database = file.name.name, group = self.turn.group, %error, "SQLite rolled a group back");
            file.failed(&error.to_string());
            self.lost = Some(error.clone());
        }
        result
    }

    fn check(&self) -> Result<(), ExecutorError> {
        if let Some(error) = &self.lost {
            return Err(error.clone());
        }
        self.open_time.left().map(drop)
    }

    /// Forgets the savepoints after one, which must be open.
    fn keep_up_to(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        match self.savepoints.binary_search(&savepoint) {
            Ok(index) => {
                self.savepoints.truncate(index + 1);
                Ok(())
            }
            Err(_) => Err(ExecutorError::InvalidStatement(format!("savepoint {savepoint} is not open"))),
        }
    }

    /// The name of the savepoint set last. Named by depth, so that few statements are prepared however many are set.
    fn deepest(&self) -> String {
        format!("s{}", self.savepoints.len())
    }

    fn undo(&mut self) -> Ending {
        if self.lost.is_none() && self.own("ROLLBACK TO turn").is_ok() && self.own("RELEASE turn").is_ok() {
            Ending::RolledBack
        } else {
            // Neither undone nor fit to go on: what others did in this group cannot be told from it.
            Ending::Lost
        }
    }
}

/// Runs what may take minutes, while other tasks of this thread go on elsewhere, as far as the runtime has other threads.
fn beside_other_tasks<T>(run: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(run),
        _ => run(),
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn execute(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        self.check()?;
        let file = &self.turn.file;
        let statement_end = Instant::now() + Duration::from_millis(self.time.step_ms_max(file.settings.statement_ms_max));
        let budget = Budget { statement_end, read_end: self.open_time.end() };
        let limits = file.result_limits();
        let link = self.link()?;
        let run = || {
            link.for_component(budget, |connection, watch| statement::run(connection, watch, Access::Write, statement, row_limit, limits))
        };
        let result = if self.time.is_long() { beside_other_tasks(run) } else { run() };
        self.notice(result)
    }

    async fn savepoint(&mut self) -> Result<u32, ExecutorError> {
        self.check()?;
        let number = self.savepoint_next;
        self.savepoints.push(number);
        if let Err(error) = self.own(&format!("SAVEPOINT {}", self.deepest())) {
            self.savepoints.pop();
            return Err(error);
        }
        self.savepoint_next += 1;
        Ok(number)
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.check()?;
        self.keep_up_to(savepoint)?;
        self.own(&format!("RELEASE {}", self.deepest()))?;
        self.savepoints.pop();
        Ok(())
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.check()?;
        self.keep_up_to(savepoint)?;
        self.own(&format!("ROLLBACK TO {}", self.deepest()))
    }

    fn stop_clock(&mut self, stopped: bool) {
        self.open_time.stop_clock(stopped);
    }

    async fn commit(mut self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError> {
        let result = self.check().and_then(|()| self.own("RELEASE turn"));
        let ending = if result.is_ok() { Ending::Committed } else { self.undo() };
        self.ending = Some(ending);
        // Before the drop at the end of this function, which passes the writer on.
        ended(self.turn.group);
        result
    }

    async fn rollback(mut self: Box<Self>, ended: Ended<'_>) {
        let ending = self.undo();
        self.ending = Some(ending);
        ended(self.turn.group);
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        self.turn.ending = match self.ending {
            Some(ending) => ending,
            None => self.undo(),
        };
    }
}
