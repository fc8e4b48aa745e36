//! A consistent view over any number of queries, on a reader of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::connection::{Budget, Link};
use super::file::DatabaseFile;
use super::statement::{self, Access, executor_error};
use crate::executor::{ExecutorError, RowSet, Snapshot, Statement};

/// See [`Snapshot`].
pub(super) struct SqliteSnapshot {
    file: Arc<DatabaseFile>,
    reader: Option<Link>,
    _permit: OwnedSemaphorePermit,
}

impl SqliteSnapshot {
    /// Waits for a reader and fixes its view. It holds what is durable: SQLite publishes a commit in the log's index
    /// after the fsync of the log.
    pub(super) async fn open(file: &Arc<DatabaseFile>) -> Result<Self, ExecutorError> {
        let wait_ms_max = file.settings.begin_wait_ms_max;
        let permit = Arc::clone(&file.reader_permits).acquire_owned();
        let permit = match timeout(Duration::from_millis(wait_ms_max), permit).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(ExecutorError::Unavailable(format!("no turn to read within {wait_ms_max} ms"))),
        };
        let reader = file.reader().await?;
        // BEGIN alone fixes nothing; the first read does.
        if let Err(error) = reader.own("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1") {
            file.drop_links(vec![reader]);
            return Err(executor_error(error));
        }
        Ok(Self { file: Arc::clone(file), reader: Some(reader), _permit: permit })
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn query(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        let Some(reader) = &self.reader else { return Err(ExecutorError::Unavailable("no connection".to_owned())) };
        let statement_end = Instant::now() + Duration::from_millis(self.file.settings.statement_ms_max);
        let limits = self.file.result_limits();
        let result = reader.for_component(Budget { statement_end, read_end: None }, |connection, watch| {
            statement::run(connection, watch, Access::Read, statement, row_limit, limits)
        });
        if result.is_err() && reader.is_autocommit() {
            // The next query would see another state.
            let reader = self.reader.take();
            self.file.drop_links(reader.into_iter().collect());
        }
        result
    }
}

impl Drop for SqliteSnapshot {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        match reader.own("ROLLBACK") {
            Ok(()) => self.file.return_reader(reader),
            Err(_) => self.file.drop_links(vec![reader]),
        }
    }
}
