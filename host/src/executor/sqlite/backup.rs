//! Views of SQLite files for a backup: an open read transaction each, copied by SQLite's backup interface while
//! writers go on.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::OwnedRwLockWriteGuard;

use super::file::{DatabaseFile, Turn, closed};
use super::folder::{FORMAT_FILE, FolderLock};
use super::format::DATABASE_FORMAT;
use super::statement::executor_error;
use super::transaction::SqliteTransaction;
use super::{Inner, NOT_DATABASES, Place};
use crate::backup::{BackupError, Pinned, Standstill, Target};
use crate::executor::{ExecutorError, TransactionTime};

/// Pages copied between two looks at whether the backup is called off.
const PAGES_AT_ONCE: i32 = 256;
/// How long SQLite waits for a lock.
const BUSY_MAX: Duration = Duration::from_millis(500);
/// Ending of files that hold a database.
pub(crate) const SUFFIX: &str = ".sqlite";

/// A file whose view can be pinned.
pub(crate) struct PinnedFile {
    /// Below the data folder.
    relative: PathBuf,
    connection: Connection,
}

impl PinnedFile {
    /// Opens a file that a writer has opened before. Blocks.
    pub(crate) fn open(folder: &Path, relative: PathBuf) -> Result<Self, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(folder.join(&relative), flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.execute_batch("PRAGMA query_only = ON")?;
        Ok(Self { relative, connection })
    }

    /// Fixes the view. Blocks for as long as a read takes.
    pub(crate) fn pin(&self) -> Result<(), rusqlite::Error> {
        // BEGIN alone fixes nothing; the first read does.
        self.connection.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
    }

    fn is_database(&self) -> Result<bool, rusqlite::Error> {
        let application: i32 = self.connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        Ok(application.cast_unsigned() == DATABASE_FORMAT.application)
    }

    fn copy_to(&self, path: &Path, target: &Target) -> Result<(), BackupError> {
        let failed = |error: rusqlite::Error| BackupError::io(path, std::io::Error::other(error));
        let mut copy = Connection::open(path).map_err(failed)?;
        // Nobody reads it before it is whole, and it is brought to disk once, at the end.
        copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
        {
            let backup = Backup::new(&self.connection, &mut copy).map_err(failed)?;
            while backup.step(PAGES_AT_ONCE).map_err(failed)? != StepResult::Done {
                target.check()?;
            }
        }
        copy.close().map_err(|(_, error)| failed(error))
    }
}

impl Pinned for PinnedFile {
    fn copy(self: Box<Self>, target: &mut Target) -> Result<(), BackupError> {
        let path = target.place(&self.relative)?;
        self.copy_to(&path, target)?;
        target.finished(&self.relative)
    }
}

/// All databases of a data folder.
struct PinnedDatabases {
    folder: PathBuf,
    files: Vec<PinnedFile>,
    _lock: Arc<FolderLock>,
}

impl Pinned for PinnedDatabases {
    fn copy(self: Box<Self>, target: &mut Target) -> Result<(), BackupError> {
        for file in self.files {
            // Each view is given up as soon as it is copied, so that its log can be cut back.
            Box::new(file).copy(target)?;
        }
        // It is written once, before anything else.
        let path = self.folder.join(FORMAT_FILE);
        let mut file = File::open(&path).map_err(|error| BackupError::io(&path, error))?;
        target.copy(&mut file, Path::new(FORMAT_FILE))
    }
}

impl Inner {
    /// Takes the turn of every writer, keeps files from being opened, and pins a view of every file.
    pub(super) async fn stand_still(self: &Arc<Self>) -> Result<Standstill, ExecutorError> {
        // Most files are opened before anybody is held up: that takes longest. Those that no writer has open are pinned
        // as the others are, since none is opened meanwhile.
        let folder = self.settings.data_folder.clone();
        let files = self.blocking(move || open_missing(&folder, Vec::new(), false)).await?;
        let (turns, opening) = self.take_turns().await?;
        let folder = self.settings.data_folder.clone();
        let pinned = self.blocking(move || pin_all(&folder, files)).await?;
        let pinned = PinnedDatabases { folder: self.settings.data_folder.clone(), files: pinned, _lock: Arc::clone(&self.lock) };
        Ok(Standstill { databases: Box::new(pinned), writers: Box::new((turns, opening)) })
    }

    /// Takes the turns first, and only then keeps files from being opened: whoever has a turn may be opening one.
    async fn take_turns(&self) -> Result<(Vec<SqliteTransaction>, OwnedRwLockWriteGuard<()>), ExecutorError> {
        let (mut turns, mut taken) = (Vec::new(), HashSet::new());
        loop {
            let opening = Arc::clone(&self.opening).write_owned().await;
            let missing: Vec<Arc<DatabaseFile>> = {
                let files = self.files.lock();
                if files.closed {
                    return Err(closed());
                }
                files.by_name.values().filter_map(Place::file).filter(|file| !taken.contains(&file.name)).collect()
            };
            if missing.is_empty() {
                return Ok((turns, opening));
            }
            drop(opening);
            turns.extend(
                try_join_all(
                    missing.iter().map(|file| async move { SqliteTransaction::begin(Turn::begin(file).await?, TransactionTime::AsSet) }),
                )
                .await?,
            );
            taken.extend(missing.iter().map(|file| file.name.clone()));
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ExecutorError> + Send + 'static,
    ) -> Result<T, ExecutorError> {
        self.runtime.spawn_blocking(work).await.unwrap_or_else(|_| Err(closed()))
    }
}

fn pin_all(folder: &Path, files: Vec<PinnedFile>) -> Result<Vec<PinnedFile>, ExecutorError> {
    let files = open_missing(folder, files, true)?;
    for file in &files {
        file.pin().map_err(|error| unavailable(&file.relative, error))?;
    }
    Ok(files)
}

/// Opens the databases of a folder that are not among `files`. Until it is `settled` that no file is just being made,
/// one without our mark may still get it.
fn open_missing(folder: &Path, mut files: Vec<PinnedFile>, settled: bool) -> Result<Vec<PinnedFile>, ExecutorError> {
    let known: HashSet<PathBuf> = files.iter().map(|file| file.relative.clone()).collect();
    for relative in find_databases(folder).map_err(|error| unavailable(folder, error))? {
        if known.contains(&relative) {
            continue;
        }
        let file = PinnedFile::open(folder, relative.clone()).map_err(|error| unavailable(&relative, error))?;
        if file.is_database().map_err(|error| unavailable(&relative, error))? {
            files.push(file);
        } else if settled {
            tracing::warn!(file = %relative.display(), "a file that is no database of this program is left out of the backup");
        }
    }
    Ok(files)
}

fn unavailable(path: &Path, error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Unavailable(format!("{}: {error}", path.display()))
}

/// Database files below a data folder, open or not, in order.
pub(crate) fn find_databases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for mount in names(folder)? {
        // No encoded name has a dot.
        if NOT_DATABASES.contains(&mount.as_str()) || mount.contains('.') || !folder.join(&mount).is_dir() {
            continue;
        }
        for name in names(&folder.join(&mount))? {
            if name.ends_with(SUFFIX) {
                found.push(Path::new(&mount).join(name));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn names(folder: &Path) -> std::io::Result<HashSet<String>> {
    std::fs::read_dir(folder)?.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
}

/// Pins one file at once. Blocks.
pub(crate) fn pin_file(folder: &Path, relative: &str) -> Result<PinnedFile, ExecutorError> {
    let file = PinnedFile::open(folder, relative.into()).map_err(executor_error)?;
    file.pin().map_err(executor_error)?;
    Ok(file)
}
