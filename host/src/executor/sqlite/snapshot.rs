//! A consistent view over any number of queries, on a reader of its own.
//!
//! As long as it is open, the write-ahead log of its file cannot be started anew and grows with every commit. So a
//! snapshot has an end: whoever holds it for too long gets an error from its next query.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::connection::{Budget, Link};
use super::file::DatabaseFile;
use super::statement::{self, Access, executor_error};
use crate::executor::{ExecutorError, RowSet, Snapshot, Statement};

/// The reader of a snapshot, until it is ended.
#[derive(Debug)]
struct Held {
    since: Instant,
    reader: Mutex<Option<Link>>,
}

/// The snapshots of a file that are open.
#[derive(Debug, Default)]
pub(super) struct OpenSnapshots(Mutex<Vec<Weak<Held>>>);

impl OpenSnapshots {
    fn add(&self, held: &Arc<Held>) {
        let mut open = self.0.lock();
        open.retain(|held| held.strong_count() > 0);
        open.push(Arc::downgrade(held));
    }

    /// Ends those that are older; how many. One that is being read from right now is left to the next time.
    pub(super) fn end_older_than(&self, file: &DatabaseFile, age: Duration) -> usize {
        let open: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let overdue = open.iter().filter(|held| held.since.elapsed() >= age);
        let readers = overdue.filter_map(|held| held.reader.try_lock()?.take());
        readers.map(|reader| give_back(file, reader)).count()
    }

    /// How long the oldest has been open.
    pub(super) fn oldest(&self) -> Duration {
        let open: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        open.iter().map(|held| held.since.elapsed()).max().unwrap_or_default()
    }
}

fn give_back(file: &DatabaseFile, reader: Link) {
    match reader.own("ROLLBACK") {
        Ok(()) => file.return_reader(reader),
        Err(_) => file.drop_links(vec![reader]),
    }
}

/// See [`Snapshot`].
pub(super) struct SqliteSnapshot {
    file: Arc<DatabaseFile>,
    held: Arc<Held>,
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
        let begun = reader.own("BEGIN").and_then(|()| reader.own("SELECT 1 FROM sqlite_schema LIMIT 1"));
        if let Err(error) = begun {
            file.drop_links(vec![reader]);
            return Err(file.named(executor_error(error)));
        }
        let held = Arc::new(Held { since: Instant::now(), reader: Mutex::new(Some(reader)) });
        file.snapshots.add(&held);
        Ok(Self { file: Arc::clone(file), held, _permit: permit })
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn query(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        let mut held = self.held.reader.lock();
        let Some(reader) = &*held else { return Err(ExecutorError::Limit("time of an open snapshot".to_owned())) };
        let statement_end = Instant::now() + Duration::from_millis(self.file.settings.statement_ms_max);
        let limits = self.file.result_limits();
        let result = reader.for_component(Budget { statement_end, read_end: None }, |connection, watch| {
            statement::run(connection, watch, Access::Read, statement, row_limit, limits)
        });
        if result.is_err() && reader.is_autocommit() {
            // The next query would see another state.
            self.file.drop_links(held.take().into_iter().collect());
        }
        result.map_err(|error| self.file.named(error))
    }
}

impl Drop for SqliteSnapshot {
    fn drop(&mut self) {
        if let Some(reader) = self.held.reader.lock().take() {
            give_back(&self.file, reader);
        }
    }
}
