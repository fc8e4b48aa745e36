//! The open transaction of a database: a savepoint in the outer transaction of its group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::writer::{DatabaseParts, Turn};
use crate::executor::group::Ending;
use crate::executor::open::OpenTime;
use crate::executor::{Ended, ExecutorError, RowSet, Statement, Transaction, TransactionTime};

/// No statement is given less time than this, in milliseconds: 0 would be no limit.
const STATEMENT_MS_MIN: u64 = 50;
/// The server keeps the time of statements; whoever has not heard of it for this much longer hears no more.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// See [`Transaction`].
pub(super) struct PostgresTransaction {
    parts: Arc<DatabaseParts>,
    /// None once it has ended.
    turn: Option<Turn>,
    time: TransactionTime,
    open_time: OpenTime,
    /// Open savepoints, rising.
    savepoints: Vec<u32>,
    savepoint_next: u32,
    /// A statement failed, or was left alone before its answer came: PostgreSQL only goes back now.
    failed: bool,
}

impl PostgresTransaction {
    /// The transaction of a turn.
    pub(super) fn new(parts: Arc<DatabaseParts>, mut turn: Turn, time: TransactionTime) -> Result<Self, ExecutorError> {
        turn.begin(&parts, time)?;
        let open_time = OpenTime::new(time.open_max(parts.shared.settings.transaction_ms_max));
        Ok(Self { parts, turn: Some(turn), time, open_time, savepoints: Vec::new(), savepoint_next: 1, failed: false })
    }

    fn link(&mut self) -> Result<&mut Link, ExecutorError> {
        self.turn.as_mut().ok_or_else(no_connection)?.link()
    }

    fn check(&self) -> Result<(), ExecutorError> {
        self.open_time.left()?;
        if self.failed {
            return Err(ExecutorError::InvalidStatement("a statement failed: go back to a savepoint before it".into()));
        }
        Ok(())
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

    async fn run(&mut self, statements: &[Statement], row_limit: Option<u32>) -> Result<Vec<RowSet>, ExecutorError> {
        let left = self.open_time.left()?;
        let settings = &self.parts.shared.settings;
        let statement_ms = statement_ms(left, self.time.step_ms_max(settings.statement_ms_max));
        let opening_max = Duration::from_millis(self.time.step_ms_max(settings.begin_wait_ms_max));
        let parts = Arc::clone(&self.parts);
        // Until the answer is there: whoever waits for it may go away.
        self.failed = true;
        let link = self.link()?;
        let opens = !link.is_opened();
        let until = Instant::now() + left + if opens { opening_max } else { Duration::ZERO };
        let running = link.run(&parts, statements, row_limit, statement_ms, until);
        let Ok(result) = timeout_at(until + ANSWER_MAX, running).await else {
            link.give_up();
            return Err(ExecutorError::Unavailable("PostgreSQL does not answer".into()));
        };
        if opens {
            self.open_time.keep_half();
        }
        self.failed = result.is_err();
        result
    }

    fn end_turn(&mut self, keep: bool, ended: Option<Ended<'_>>) {
        let Some(turn) = self.turn.take() else { return };
        // Before the turn ends, which passes the writer on.
        if let Some(ended) = ended {
            ended(turn.group);
        }
        turn.end(if keep { Ending::Committed } else { Ending::RolledBack });
    }
}

fn no_connection() -> ExecutorError {
    ExecutorError::Unavailable("no connection".into())
}

/// How long a statement may run. In steps, so that short transactions never need to say it.
fn statement_ms(left: Duration, statement_ms_max: u64) -> u64 {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    if left_ms >= statement_ms_max - statement_ms_max / 4 {
        return statement_ms_max;
    }
    left_ms.next_multiple_of(STATEMENT_MS_MIN).clamp(STATEMENT_MS_MIN, statement_ms_max.max(STATEMENT_MS_MIN))
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn execute(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        let results = self.run(std::slice::from_ref(statement), row_limit).await?;
        results.into_iter().next().ok_or_else(|| ExecutorError::Unavailable("a statement without a result".into()))
    }

    async fn execute_batch(&mut self, statements: &[Statement]) -> Result<Vec<RowSet>, ExecutorError> {
        if statements.is_empty() { Ok(Vec::new()) } else { self.run(statements, None).await }
    }

    async fn savepoint(&mut self) -> Result<u32, ExecutorError> {
        self.check()?;
        let number = self.savepoint_next;
        self.link()?.owe(&format!("SAVEPOINT s{number}"));
        self.savepoints.push(number);
        self.savepoint_next += 1;
        Ok(number)
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.check()?;
        self.keep_up_to(savepoint)?;
        self.link()?.owe(&format!("RELEASE s{savepoint}"));
        self.savepoints.pop();
        Ok(())
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.open_time.left()?;
        self.keep_up_to(savepoint)?;
        self.link()?.owe_rollback_to(&format!("s{savepoint}"));
        self.failed = false;
        Ok(())
    }

    fn stop_clock(&mut self, stopped: bool) {
        self.open_time.stop_clock(stopped);
    }

    async fn commit(mut self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError> {
        let result = self.check().and_then(|()| if self.link()?.is_broken() { Err(no_connection()) } else { Ok(()) });
        self.end_turn(result.is_ok(), Some(ended));
        result
    }

    async fn rollback(mut self: Box<Self>, ended: Ended<'_>) {
        self.end_turn(false, Some(ended));
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        self.end_turn(false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_gets_what_is_left_of_the_transaction() {
        for (left_ms, expected_ms) in [(1000, 1000), (760, 1000), (740, 750), (101, 150), (100, 100), (1, 50)] {
            assert_eq!(statement_ms(Duration::from_millis(left_ms), 1000), expected_ms);
        }
        assert_eq!(statement_ms(Duration::from_millis(10), 20), 50);
    }
}
