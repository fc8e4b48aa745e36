//! SQLite: one file per database under a data folder, `<data>/<mount>/<name>.sqlite`.
//!
//! * One writer per file, write-ahead log, `synchronous = FULL` (unless [`Synchronous::Off`] is asked for). The
//!   transactions of components are savepoints within an outer transaction, the *group*; its one COMMIT makes all of
//!   them durable ([`super::group`] decides when).
//! * Readers have connections of their own and see what is durable, nothing else.
//! * Statements run where they are called: they are short and have a time budget. What may take long (COMMIT with its
//!   fsync, opening, closing) runs on the runtime's threads for blocking calls.
//! * A data folder belongs to one process, which holds a lock on `<data>/lock`; `<data>/format.json` says of which
//!   format it is.
//!
//! What a group costs those in it: SQLite rolls back the outer transaction, not just a statement, when a write is
//! interrupted (time budget), when the disk is full or fails, and for `ON CONFLICT ROLLBACK`. The whole group is then
//! lost; its callers learn it from the observer, as for a failed fsync.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use self::file::{DatabaseFile, Opening, Turn};
pub use self::folder::FolderError;
pub(crate) use self::folder::NOT_DATABASES;
use self::folder::{FolderLock, NAME_BYTES_MAX, check_format, create_folder, encode_name};
use self::snapshot::SqliteSnapshot;
use self::space::MountSpace;
use self::transaction::SqliteTransaction;
use self::worker::{Threads, Worker};
use super::probe::Probe;
use super::{
    Database, DatabaseInfo, DatabaseName, Dialect, Executor, ExecutorError, GroupObserver, Hold, MountUsage, Snapshot, Transaction,
    TransactionTime,
};
use crate::backup::Standstill;

pub(crate) mod backup;
pub(crate) mod connection;
mod file;
pub(crate) mod folder;
pub(crate) mod format;
mod snapshot;
mod space;
pub(crate) mod statement;
#[cfg(test)]
mod tests;
mod transaction;
pub mod worker;

/// Called with every new writer connection, before it is used; embedders register functions or hooks there. The
/// authorizer and the progress handler are the executor's own and set afterwards.
pub type OnOpen = Arc<dyn Fn(&mut rusqlite::Connection) + Send + Sync>;

/// When a group counts as being on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// When the disk has said so. What was acknowledged survives the end of the machine.
    #[default]
    Full,
    /// When it was handed to the operating system. What was acknowledged survives the end of the process, but not of the
    /// machine, which may also leave a damaged file. For tests and benchmarks.
    Off,
}

/// Settings of a [`SqliteExecutor`]. [`SqliteSettings::new`] has the defaults.
#[derive(Clone)]
pub struct SqliteSettings {
    /// The data folder; made where there is none.
    pub data_folder: PathBuf,
    /// How long one statement may run, in milliseconds (1000).
    pub statement_ms_max: u64,
    /// How long a transaction may stay open, in milliseconds (1000). Then its next statement and its commit fail.
    pub transaction_ms_max: u64,
    /// How long to wait for the writer, or for a reader, in milliseconds (4000).
    pub begin_wait_ms_max: u64,
    /// Rows in a result, where the caller names no limit of its own (100 000).
    pub rows_max: u32,
    /// Bytes in a result, 32 for each cell and its text or bytes (16 MiB).
    pub result_bytes_max: u64,
    /// Snapshots of one database open at the same time, each with a connection (16).
    pub readers_max: u32,
    /// Reader connections of a database kept when idle (4).
    pub readers_idle_max: u32,
    /// A file not used for so many milliseconds is closed, until it is used again (60 000).
    pub idle_close_ms: u64,
    /// How long a snapshot may stay open, in milliseconds (300 000). Then its next query fails. Looked at with the upkeep.
    pub snapshot_ms_max: u64,
    /// Every so many milliseconds (10 000) free pages of open files are given back and long logs are cut.
    pub upkeep_ms: u64,
    /// Transactions in a group (512).
    pub group_transactions_max: u32,
    /// Milliseconds that a group takes transactions for, as long as there are more waiting (10).
    pub group_ms_max: u64,
    /// When a group counts as being on disk ([`Synchronous::Full`]).
    pub synchronous: Synchronous,
    /// Called with every new writer connection.
    pub on_open: Option<OnOpen>,
    /// Takes blocking work; none: the runtime's threads for blocking calls do it.
    pub worker: Option<Arc<dyn Worker>>,
}

impl SqliteSettings {
    /// The defaults for a data folder.
    pub fn new(data_folder: impl Into<PathBuf>) -> Self {
        Self {
            data_folder: data_folder.into(),
            statement_ms_max: 1_000,
            transaction_ms_max: 1_000,
            begin_wait_ms_max: 4_000,
            rows_max: 100_000,
            result_bytes_max: 16 << 20,
            readers_max: 16,
            readers_idle_max: 4,
            idle_close_ms: 60_000,
            snapshot_ms_max: 300_000,
            upkeep_ms: 10_000,
            group_transactions_max: 512,
            group_ms_max: 10,
            synchronous: Synchronous::Full,
            on_open: None,
            worker: None,
        }
    }
}

/// The databases of a data folder.
pub struct SqliteExecutor {
    inner: Arc<Inner>,
    /// For [`Executor::ready`]; opened when it is first asked.
    probe: tokio::sync::Mutex<Option<Probe>>,
}

struct Inner {
    settings: Arc<SqliteSettings>,
    runtime: Threads,
    /// Held by every open file too: the folder is given back when nothing works in it any more.
    lock: Arc<FolderLock>,
    files: Mutex<Files>,
    /// Held for reading while a file is opened, for writing while none may be.
    opening: Arc<tokio::sync::RwLock<()>>,
}

#[derive(Default)]
struct Files {
    by_name: BTreeMap<DatabaseName, Place>,
    /// What mounts use, as far as somebody has opened a file of them or asked.
    spaces: HashMap<String, Arc<MountSpace>>,
    closed: bool,
}

enum Place {
    Opening,
    Open(Weak<DatabaseFile>),
}

impl Place {
    fn file(&self) -> Option<Arc<DatabaseFile>> {
        match self {
            Self::Opening => None,
            Self::Open(file) => file.upgrade(),
        }
    }

    fn is_taken(&self) -> bool {
        match self {
            Self::Opening => true,
            Self::Open(file) => file.strong_count() > 0,
        }
    }
}

impl SqliteExecutor {
    /// Takes a data folder, which no other process may have. Called within a tokio runtime with time enabled.
    pub async fn start(mut settings: SqliteSettings) -> Result<Self, FolderError> {
        let runtime = Threads { runtime: Handle::current(), worker: settings.worker.clone() };
        let folder = settings.data_folder.clone();
        let taken = runtime.spawn_blocking(move || take_folder(&folder)).await;
        let taken = taken
            .unwrap_or_else(|error| Err(FolderError::Io { folder: settings.data_folder.clone(), source: std::io::Error::other(error) }));
        let (folder, lock) = taken?;
        settings.data_folder = folder;
        let lock = Arc::new(lock);
        let inner = Arc::new(Inner { settings: Arc::new(settings), runtime, lock, files: Mutex::default(), opening: Arc::default() });
        inner.runtime.spawn(close_idle_files(Arc::downgrade(&inner), inner.settings.idle_close_ms));
        inner.runtime.spawn(keep_up_files(Arc::downgrade(&inner), inner.settings.upkeep_ms));
        Ok(Self { inner, probe: tokio::sync::Mutex::new(None) })
    }
}

/// Makes and locks a data folder. Its path comes back whole, so that it stays right wherever the process goes, and so
/// that SQLite never takes it for a URI.
fn take_folder(folder: &Path) -> Result<(PathBuf, FolderLock), FolderError> {
    let failed = |source| FolderError::Io { folder: folder.to_owned(), source };
    create_folder(folder).map_err(failed)?;
    let whole = folder.canonicalize().map_err(failed)?;
    let lock = FolderLock::take(&whole, "lock")?;
    check_format(&whole)?;
    Ok((whole, lock))
}

async fn close_idle_files(inner: Weak<Inner>, idle_close_ms: u64) {
    let mut rounds = tokio::time::interval(Duration::from_millis((idle_close_ms / 2).max(1)));
    loop {
        rounds.tick().await;
        let Some(files) = open_files(&inner) else { return };
        for file in files {
            if file.close_if_idle() {
                tracing::debug!(mount = file.name.mount, database = file.name.name, "idle database closed");
            }
        }
    }
}

async fn keep_up_files(inner: Weak<Inner>, upkeep_ms: u64) {
    let pause = Duration::from_millis(upkeep_ms.max(1));
    // At the start no file is open yet.
    let mut rounds = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
    loop {
        rounds.tick().await;
        let Some(files) = open_files(&inner) else { return };
        for file in files {
            file.keep_up().await;
        }
    }
}

/// The files that are open; none if no more will be.
fn open_files(inner: &Weak<Inner>) -> Option<Vec<Arc<DatabaseFile>>> {
    let inner = inner.upgrade()?;
    let mut files = inner.files.lock();
    if files.closed {
        return None;
    }
    files.by_name.retain(|_, place| place.is_taken());
    Some(files.open().collect())
}

impl Files {
    fn open(&self) -> impl Iterator<Item = Arc<DatabaseFile>> {
        self.by_name.values().filter_map(Place::file)
    }
}

impl Inner {
    fn folder_of(&self, mount: &str) -> PathBuf {
        self.settings.data_folder.join(encode_name(mount, NAME_BYTES_MAX))
    }

    fn path_of(&self, name: &DatabaseName) -> PathBuf {
        self.folder_of(&name.mount).join(format!("{}.sqlite", encode_name(&name.name, NAME_BYTES_MAX)))
    }

    fn space_of(&self, mount: &str) -> Arc<MountSpace> {
        let mut files = self.files.lock();
        match files.spaces.get(mount) {
            Some(space) => Arc::clone(space),
            // Once per mount: it reads a folder with the files locked.
            None => {
                Arc::clone(files.spaces.entry(mount.to_owned()).or_insert_with(|| Arc::new(MountSpace::of_folder(&self.folder_of(mount)))))
            }
        }
    }

    /// Opens a file. Blocks.
    fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<DatabaseFile>, ExecutorError> {
        {
            let mut files = self.files.lock();
            if files.closed {
                return Err(file::closed());
            }
            if files.by_name.get(name).is_some_and(Place::is_taken) {
                // Two writers of one file would fail each other's transactions.
                let DatabaseName { mount, name } = name;
                return Err(ExecutorError::Unavailable(format!("the database {name:?} of {mount:?} is open already")));
            }
            files.by_name.insert(name.clone(), Place::Opening);
        }
        let opening = Opening {
            path: self.path_of(name),
            settings: Arc::clone(&self.settings),
            observer,
            space: self.space_of(&name.mount),
            lock: Arc::clone(&self.lock),
        };
        let opened = DatabaseFile::open(name.clone(), opening, self.runtime.clone()).map(Arc::new);
        let mut files = self.files.lock();
        files.by_name.remove(name);
        let file = opened?;
        if files.closed {
            return Err(file::closed());
        }
        files.by_name.insert(name.clone(), Place::Open(Arc::downgrade(&file)));
        Ok(file)
    }
}

#[async_trait]
impl Executor for SqliteExecutor {
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError> {
        let inner = Arc::clone(&self.inner);
        let name = name.clone();
        let opening = Arc::clone(&inner.opening).read_owned().await;
        let open = move || {
            let _opening = opening;
            inner.open(&name, observer)
        };
        let opened = self.inner.runtime.spawn_blocking(open).await;
        let file = opened.map_err(|error| ExecutorError::Unavailable(format!("the host is stopping: {error}")))??;
        Ok(Arc::new(SqliteDatabase { file }))
    }

    async fn ready(&self) -> Result<(), ExecutorError> {
        let mut probe = self.probe.lock().await;
        let probe = match &mut *probe {
            Some(probe) => probe,
            none => none.insert(Probe::open(self).await?),
        };
        probe.run().await?;
        let failing = |file: &Arc<DatabaseFile>| file.failure().is_some();
        let failing: Vec<_> = self.inner.files.lock().open().filter(failing).collect();
        for file in failing {
            file.write_again().await?;
        }
        Ok(())
    }

    fn database_bytes(&self, mount: &str) -> Option<u64> {
        Some(self.inner.space_of(mount).total_bytes())
    }

    fn usage(&self, mount: &str) -> MountUsage {
        let files: Vec<_> = self.inner.files.lock().open().filter(|file| file.name.mount == mount).collect();
        MountUsage {
            log_bytes: files.iter().map(|file| file.log_bytes()).sum(),
            snapshot_age: files.iter().map(|file| file.snapshots.oldest()).max().unwrap_or_default(),
        }
    }

    async fn stand_still(&self) -> Result<Standstill, ExecutorError> {
        self.inner.stand_still().await
    }

    async fn size_bytes(&self, mount: &str) -> Result<Option<u64>, ExecutorError> {
        let folder = self.inner.settings.data_folder.join(encode_name(mount, NAME_BYTES_MAX));
        let sized = self.inner.runtime.spawn_blocking(move || folder::size_bytes(&folder)).await;
        let failed = |error: &dyn std::fmt::Display| ExecutorError::Unavailable(error.to_string());
        sized.map_err(|error| failed(&error))?.map(Some).map_err(|error| failed(&error))
    }

    async fn close(&self) {
        let files: Vec<_> = {
            let mut files = self.inner.files.lock();
            files.closed = true;
            files.open().collect()
        };
        let mut closing = JoinSet::new();
        for file in files {
            closing.spawn_on(async move { file.close().await }, &self.inner.runtime.runtime);
        }
        closing.join_all().await;
        self.inner.lock.release();
    }
}

struct SqliteDatabase {
    file: Arc<DatabaseFile>,
}

#[async_trait]
impl Database for SqliteDatabase {
    fn info(&self) -> DatabaseInfo {
        DatabaseInfo { dialect: Dialect::Sqlite, table_prefix: String::new() }
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError> {
        Ok(Box::new(SqliteSnapshot::open(&self.file).await?))
    }

    fn hold(&self) -> Hold {
        self.file.hold()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError> {
        self.begin_within(TransactionTime::AsSet).await
    }

    async fn begin_within(&self, time: TransactionTime) -> Result<Box<dyn Transaction>, ExecutorError> {
        let turn = Turn::begin_within(&self.file, time.step_ms_max(self.file.settings.begin_wait_ms_max)).await?;
        Ok(Box::new(SqliteTransaction::begin(turn, time)?))
    }
}
