//! Space on disk: how much a mount uses, and giving back what files no longer need.
//!
//! Deletions leave free pages in a file; `auto_vacuum = INCREMENTAL` lets them go in steps, each a short transaction
//! that waits for its turn like any other, so that nobody is held up for long. Then the write-ahead log is copied back
//! and cut.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::OpenFlags;

use super::file::{DatabaseFile, Turn};
use super::format::{beside, named, open_raw};
use super::statement::executor_error;
use crate::executor::ExecutorError;
use crate::executor::group::Ending;

/// So many free pages (1 MiB) are worth a round; fewer will be used again soon.
const FREE_PAGES_MIN: u64 = 256;
/// Pages given back in one transaction (1 MiB): a few milliseconds.
const STEP_PAGES: u32 = 256;
/// Transactions in one round, so that a round ends.
const STEPS_MAX: usize = 256;
/// A write-ahead log above this is copied back and cut. SQLite itself copies it back at 4 MiB, but never cuts it below
/// the size that it keeps.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// What the databases of one mount hold: pages in use, without what is free in them.
#[derive(Debug, Default)]
pub(super) struct MountSpace {
    files: Mutex<Sizes>,
}

#[derive(Debug, Default)]
struct Sizes {
    by_path: HashMap<PathBuf, u64>,
    total_bytes: u64,
}

impl MountSpace {
    /// Looks at all files of a mount, those that nobody has opened among them.
    pub(super) fn of_folder(folder: &Path) -> Self {
        let space = Self::default();
        // Where the folder cannot be read nothing can be opened either, and that is told then.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "sqlite") {
                space.set(&path, file_bytes(&path));
            }
        }
        space
    }

    /// Notes what a file holds.
    pub(super) fn set(&self, path: &Path, bytes: u64) {
        let mut sizes = self.files.lock();
        let before = sizes.by_path.insert(path.to_owned(), bytes).unwrap_or(0);
        sizes.total_bytes = sizes.total_bytes.saturating_sub(before) + bytes;
    }

    /// All files together.
    pub(super) fn total_bytes(&self) -> u64 {
        self.files.lock().total_bytes
    }
}

/// The length of a file; 0 where there is none.
fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

impl DatabaseFile {
    /// The length of the write-ahead log.
    pub(super) fn log_bytes(&self) -> u64 {
        file_bytes(&beside(&self.path, "-wal"))
    }

    /// One round of upkeep: ends snapshots that are too old, gives back free pages, cuts the write-ahead log.
    pub(super) async fn keep_up(self: &Arc<Self>) {
        let ended_count = self.snapshots.end_older_than(self, Duration::from_millis(self.settings.snapshot_ms_max));
        if ended_count > 0 {
            tracing::warn!(
                mount = self.name.mount,
                database = self.name.name,
                ended_count,
                "snapshots were held for too long and are ended"
            );
        }
        let kept_up = async {
            if self.compact().await? || self.log_bytes() > LOG_BYTES_MAX {
                self.log_to_cut.store(true, Ordering::Relaxed);
            }
            if self.log_to_cut.load(Ordering::Relaxed) {
                let file = Arc::clone(self);
                let cut = self.blocking(move || cut_log(&file.path)).await??;
                self.log_to_cut.store(!cut, Ordering::Relaxed);
            }
            Ok::<(), ExecutorError>(())
        };
        if let Err(error) = kept_up.await {
            tracing::warn!(mount = self.name.mount, database = self.name.name, %error, "the upkeep of a database failed; it will be tried again");
        }
    }

    /// Gives back free pages; whether any went.
    pub(super) async fn compact(self: &Arc<Self>) -> Result<bool, ExecutorError> {
        let mut free_before = u64::MAX;
        for step in 0..STEPS_MAX {
            let free_pages = self.free_pages.load(Ordering::Relaxed);
            // A file made without `auto_vacuum` keeps them all.
            if free_pages < FREE_PAGES_MIN || free_pages >= free_before {
                return Ok(step > 1 || step == 1 && free_pages < free_before);
            }
            free_before = free_pages;
            let mut turn = Turn::begin(self).await?;
            let result = turn.vacuum(STEP_PAGES);
            drop(turn);
            result?;
            // The number of free pages is known when the group is on disk.
            self.rest().await;
        }
        Ok(true)
    }

    /// Writes what is there already, with a sync of the disk; whether that works. Asked where a commit failed before.
    pub(super) async fn write_again(self: &Arc<Self>) -> Result<(), ExecutorError> {
        let mut turn = Turn::begin(self).await?;
        let result = turn.rewrite_header();
        drop(turn);
        result?;
        self.rest().await;
        self.failure().map_or(Ok(()), |failure| Err(ExecutorError::Unavailable(failure)))
    }
}

impl Turn {
    fn vacuum(&mut self, pages: u32) -> Result<(), ExecutorError> {
        self.work(|link| link.vacuum(pages))
    }

    fn rewrite_header(&mut self) -> Result<(), ExecutorError> {
        self.work(|link| {
            let version = link.own_number("PRAGMA user_version")?;
            link.own(&format!("PRAGMA user_version = {version}"))
        })
    }

    /// Does work of the backend itself as a transaction of the group.
    fn work(&mut self, run: impl FnOnce(&super::connection::Link) -> Result<(), rusqlite::Error>) -> Result<(), ExecutorError> {
        let Some(link) = &self.link else { return Err(ExecutorError::Unavailable("no connection".to_owned())) };
        let result = link.own("SAVEPOINT turn").and_then(|()| run(link)).and_then(|()| link.own("RELEASE turn"));
        self.ending = match &result {
            Ok(()) => Ending::Committed,
            Err(_) if !link.is_autocommit() && link.own("ROLLBACK TO turn").is_ok() && link.own("RELEASE turn").is_ok() => {
                Ending::RolledBack
            }
            Err(_) => Ending::Lost,
        };
        result.map_err(|error| self.file.named(executor_error(error)))
    }
}

/// Copies the write-ahead log back and cuts it, as far as readers and the writer let it right now; whether it is cut.
/// Blocks.
fn cut_log(path: &Path) -> Result<bool, ExecutorError> {
    let cut = || {
        let connection = open_raw(path, OpenFlags::empty())?;
        // What takes long does not keep the writer waiting; the rest gives way to it.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
    };
    cut().map_err(|error| named(path, executor_error(error)))
}
