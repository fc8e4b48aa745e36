//! A consistent view over any number of queries, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Connection;
use super::statement::{self, executor_error};
use super::writer::DatabaseParts;
use crate::executor::{ExecutorError, RowSet, Snapshot, Statement};

/// Since when the snapshots of each mount have been open.
#[derive(Default)]
pub(super) struct OpenSnapshots(Mutex<Vec<(u64, String, Instant)>>);

impl OpenSnapshots {
    fn add(&self, mount: &str) -> u64 {
        let mut open = self.0.lock();
        // They come in order, so the last has the greatest number.
        let number = open.last().map_or(0, |(number, ..)| number + 1);
        open.push((number, mount.to_owned(), Instant::now()));
        number
    }

    fn remove(&self, number: u64) {
        self.0.lock().retain(|(open, ..)| *open != number);
    }

    /// How long the oldest of a mount has been open.
    pub(super) fn oldest(&self, mount: &str) -> Duration {
        let open = self.0.lock();
        open.iter().find(|(_, of, _)| of == mount).map_or(Duration::ZERO, |(.., since)| since.elapsed())
    }
}

/// See [`Snapshot`].
pub(super) struct PostgresSnapshot {
    parts: Arc<DatabaseParts>,
    /// None after an error, behind which another query would see another state.
    connection: Option<Connection>,
    /// The query before failed: the view is whole again after going back to its savepoint.
    failed: bool,
    number: u64,
    end: Instant,
    _permit: OwnedSemaphorePermit,
}

impl PostgresSnapshot {
    /// Fixes a view. It holds what is durable: PostgreSQL shows a commit after the flush of its log.
    pub(super) async fn open(parts: Arc<DatabaseParts>) -> Result<Self, ExecutorError> {
        let (connection, permit) = parts.shared.pool.get_for_reader().await?;
        let settings = &parts.shared.settings;
        let (schema, statement_ms, snapshot_ms) = (&parts.schema, settings.statement_ms_max, settings.snapshot_ms_max);
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path TO {schema}; \
             SET LOCAL statement_timeout TO {statement_ms}; SET LOCAL idle_in_transaction_session_timeout TO {snapshot_ms}; \
             SELECT 1; SAVEPOINT query"
        );
        let end = Instant::now() + Duration::from_millis(snapshot_ms);
        let number = parts.shared.snapshots.add(&parts.name.mount);
        let view = Self { parts, connection: Some(connection), failed: false, number, end, _permit: permit };
        // BEGIN alone fixes nothing; the query in it does.
        view.connection()?.batch_execute(&begin).await.map_err(executor_error)?;
        Ok(view)
    }

    fn connection(&self) -> Result<&Connection, ExecutorError> {
        self.connection.as_ref().ok_or_else(|| ExecutorError::Unavailable("the view has ended with an error".into()))
    }
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    async fn query(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        if Instant::now() >= self.end {
            return Err(ExecutorError::Limit("time of an open snapshot".into()));
        }
        let limits = self.parts.shared.result_limits();
        // A query that is wrong does not take the view with it. Until the answer is there: whoever waits may go away.
        let failed = std::mem::replace(&mut self.failed, true);
        let connection = self.connection()?;
        let before = async { if failed { connection.batch_execute("ROLLBACK TO query").await.map_err(executor_error) } else { Ok(()) } };
        let run = async {
            let prepared = statement::prepare(connection, &self.parts.schema, statement).await?;
            statement::run(connection, &prepared, statement, row_limit, limits).await
        };
        // Polled, and so sent, in this order.
        let (before, result) = join(before, run).await;
        self.failed = result.is_err();
        if let Err(error) = before {
            self.connection = None;
            return Err(error);
        }
        result
    }
}

impl Drop for PostgresSnapshot {
    fn drop(&mut self) {
        self.parts.shared.snapshots.remove(self.number);
        let Some(connection) = self.connection.take() else { return };
        self.parts.shared.runtime.spawn(async move {
            if connection.batch_execute("ROLLBACK").await.is_err() {
                drop(Connection::take(connection));
            }
        });
    }
}
