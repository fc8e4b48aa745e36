//! Key-value facts in one SQLite file.
//!
//! Every change is one transaction, so `increment` and `compare_and_set` are atomic, and survives a crash of the
//! process. It does not wait for the disk: after a power cut the last changes may be missing, never half of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, ToSql, TransactionBehavior, params};
use tokio::runtime::Handle;

use super::memory::{Clock, counter_sum, system_clock};
use super::{KeyValue, StorageError};
use crate::backup::Pinned;
use crate::executor::ExecutorError;
use crate::executor::sqlite::backup::pin_file;
use crate::executor::sqlite::folder::create_folder;
use crate::executor::sqlite::format::{FileFormat, FileIdentity, open_existing, open_file, vacuum};
use crate::executor::sqlite::statement::executor_error;

pub(crate) const FORMAT: FileFormat = FileFormat { application: u32::from_be_bytes(*b"SYNk"), version: 1 };

/// The file in a data folder.
pub(crate) const FILE: &str = "keyvalue.sqlite";

/// After so many changes expired facts are swept and the log is copied back. SQLite's own default for the latter is
/// 1000 pages, of which a change touches one or two.
const UPKEEP_CHANGES: u32 = 1_000;

/// How long a change waits for another process.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Facts swept at once; so long others wait.
const SWEEP_COUNT: u32 = 200;

/// Free pages given back at once (1 MiB).
const VACUUM_PAGES: u32 = 256;

// Keys are blobs: any text is one, and bytes compare as bytes.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS kv (
        mount TEXT NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        expires_ms INTEGER,
        PRIMARY KEY (mount, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS kv_expires ON kv (expires_ms) WHERE expires_ms IS NOT NULL;
    CREATE TABLE IF NOT EXISTS ready (id INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;
";

/// Key-value facts in one SQLite file.
///
/// Calls run where they are made: they touch memory, not the disk. Upkeep, which does, has a thread of its own.
pub struct SqliteKeyValue {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    folder: PathBuf,
    path: PathBuf,
    /// What is written to a file that was moved or deleted would be lost.
    identity: FileIdentity,
    connection: Mutex<Connection>,
    /// For copying the log back while `connection` goes on.
    upkeep: Mutex<Connection>,
    upkeep_runs: AtomicBool,
    changes: AtomicU32,
    clock: Clock,
}

impl SqliteKeyValue {
    /// Opens `<data_folder>/keyvalue.sqlite`, making it where there is none. Called within a tokio runtime.
    pub async fn open(data_folder: impl Into<PathBuf>) -> Result<Self, StorageError> {
        Self::open_at(data_folder.into(), system_clock()).await
    }

    /// As [`SqliteKeyValue::open`]; `clock` gives milliseconds since 1970.
    pub async fn open_with_clock(
        data_folder: impl Into<PathBuf>,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, StorageError> {
        Self::open_at(data_folder.into(), Box::new(clock)).await
    }

    async fn open_at(data_folder: PathBuf, clock: Clock) -> Result<Self, StorageError> {
        let runtime = Handle::current();
        let opened = runtime.spawn_blocking(move || open_both(&data_folder)).await;
        let (folder, connection, upkeep) = opened.map_err(|error| StorageError::Unavailable(error.to_string()))??;
        let path = folder.join(FILE);
        let identity = FileIdentity::of(&path).map_err(|error| StorageError::Unavailable(format!("{}: {error}", path.display())))?;
        let shared = Arc::new(Shared {
            folder,
            path,
            identity,
            connection: Mutex::new(connection),
            upkeep: Mutex::new(upkeep),
            upkeep_runs: AtomicBool::new(false),
            changes: AtomicU32::new(UPKEEP_CHANGES),
            clock,
        });
        let keyvalue = Self { shared, runtime };
        keyvalue.changed();
        Ok(keyvalue)
    }

    /// Counts a change; after many of them, upkeep begins.
    fn changed(&self) {
        let shared = &self.shared;
        if shared.changes.fetch_add(1, Ordering::Relaxed) < UPKEEP_CHANGES || shared.upkeep_runs.swap(true, Ordering::AcqRel) {
            return;
        }
        shared.changes.store(0, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        self.runtime.spawn_blocking(move || {
            if let Err(error) = shared.keep_up() {
                tracing::warn!(%error, "the upkeep of the key-value file failed; it will be tried again");
            }
            shared.upkeep_runs.store(false, Ordering::Release);
        });
    }

    /// Runs a change as one transaction.
    fn change<T>(&self, run: impl FnOnce(&Connection, i64) -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.shared.identity.check(&self.shared.path).map_err(from_executor)?;
        let now_ms = stored_ms((self.shared.clock)());
        let mut connection = self.shared.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(storage_error)?;
        let result = run(&transaction, now_ms)?;
        transaction.commit().map_err(storage_error)?;
        drop(connection);
        self.changed();
        Ok(result)
    }
}

impl Shared {
    /// Sweeps what has expired, gives back free pages and copies the log back. Blocks.
    fn keep_up(&self) -> Result<(), rusqlite::Error> {
        let now_ms = stored_ms((self.clock)());
        loop {
            let swept = self.connection.lock().execute(
                "DELETE FROM kv WHERE (mount, key) IN (SELECT mount, key FROM kv WHERE expires_ms <= ?1 LIMIT ?2)",
                params![now_ms, SWEEP_COUNT],
            )?;
            if swept < SWEEP_COUNT as usize {
                break;
            }
        }
        let mut free_before = u32::MAX;
        loop {
            let connection = self.connection.lock();
            let free_pages = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            // A file made without `auto_vacuum` keeps them all.
            if free_pages < VACUUM_PAGES || free_pages >= free_before {
                break;
            }
            free_before = free_pages;
            vacuum(&connection, VACUUM_PAGES)?;
        }
        self.upkeep.lock().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// The folder, and two connections to its file.
fn open_both(folder: &Path) -> Result<(PathBuf, Connection, Connection), StorageError> {
    let failed = |error: std::io::Error| StorageError::Unavailable(format!("{}: {error}", folder.display()));
    create_folder(folder).map_err(failed)?;
    // Whole, so that SQLite never takes it for a URI.
    let folder = folder.canonicalize().map_err(failed)?;
    let path = folder.join(FILE);
    let connection = open_file(&path, FORMAT).map_err(from_executor)?;
    // Nobody else holds the lock but another process, if there is one, and that for microseconds at a time.
    connection.busy_timeout(BUSY_MAX).map_err(storage_error)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0").map_err(storage_error)?;
    connection.execute_batch(SCHEMA).map_err(storage_error)?;
    let upkeep = open_existing(&path, FORMAT).map_err(from_executor)?;
    upkeep.execute_batch("PRAGMA synchronous = NORMAL").map_err(storage_error)?;
    Ok((folder, connection, upkeep))
}

fn from_executor(error: ExecutorError) -> StorageError {
    match error {
        ExecutorError::Limit(what) => StorageError::Limit(what),
        ExecutorError::Unavailable(what) => StorageError::Unavailable(what),
        other => StorageError::Unavailable(other.to_string()),
    }
}

fn storage_error(error: rusqlite::Error) -> StorageError {
    match from_executor(executor_error(error)) {
        StorageError::Unavailable(what) => StorageError::Unavailable(format!("{FILE}: {what}")),
        other => other,
    }
}

/// Times beyond what SQLite can hold are never reached.
fn stored_ms(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX)
}

fn expires_ms(now_ms: i64, time_to_live_ms: Option<u64>) -> Option<i64> {
    time_to_live_ms.map(|time_to_live_ms| now_ms.saturating_add(stored_ms(time_to_live_ms)))
}

/// A value and when it expires.
type Fact = (Vec<u8>, Option<i64>);

/// A fact that is there and has not expired.
fn read(connection: &Connection, mount: &str, key: &str, now_ms: i64) -> Result<Option<Fact>, StorageError> {
    let sql = "SELECT value, expires_ms FROM kv WHERE mount = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)";
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    let row = statement.query_row(params![mount, key.as_bytes(), now_ms], |row| Ok((row.get(0)?, row.get(1)?)));
    row.optional().map_err(storage_error)
}

fn write(connection: &Connection, mount: &str, key: &str, value: &[u8], expires_ms: Option<i64>) -> Result<(), StorageError> {
    let sql = "INSERT OR REPLACE INTO kv (mount, key, value, expires_ms) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
    statement.execute(params![mount, key.as_bytes(), value, expires_ms]).map_err(storage_error)?;
    Ok(())
}

/// The first byte string behind all that have this prefix; none where there is no end.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[async_trait]
impl KeyValue for SqliteKeyValue {
    async fn get(&self, mount: &str, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let now_ms = stored_ms((self.shared.clock)());
        let connection = self.shared.connection.lock();
        Ok(read(&connection, mount, key, now_ms)?.map(|(value, _)| value))
    }

    async fn set(&self, mount: &str, key: &str, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), StorageError> {
        self.change(|connection, now_ms| write(connection, mount, key, &value, expires_ms(now_ms, time_to_live_ms)))
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.change(|connection, _| {
            let mut statement = connection.prepare_cached("DELETE FROM kv WHERE mount = ?1 AND key = ?2").map_err(storage_error)?;
            statement.execute(params![mount, key.as_bytes()]).map_err(storage_error)?;
            Ok(())
        })
    }

    async fn increment(&self, mount: &str, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, StorageError> {
        self.change(|connection, now_ms| {
            let current = read(connection, mount, key, now_ms)?;
            let sum = counter_sum(current.as_ref().map(|(value, _)| value.as_slice()), delta)?;
            let expires_ms = current.map_or_else(|| expires_ms(now_ms, time_to_live_ms), |(_, expires_ms)| expires_ms);
            write(connection, mount, key, sum.to_string().as_bytes(), expires_ms)?;
            Ok(sum)
        })
    }

    async fn compare_and_set(&self, mount: &str, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError> {
        self.change(|connection, now_ms| {
            let current = read(connection, mount, key, now_ms)?.map(|(value, _)| value);
            let same = current == expected;
            if same {
                write(connection, mount, key, &value, None)?;
            }
            Ok(same)
        })
    }

    async fn keys(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError> {
        let now_ms = stored_ms((self.shared.clock)());
        let connection = self.shared.connection.lock();
        let sql = "SELECT key FROM kv WHERE mount = ?1 AND key >= ?2 AND (?3 IS NULL OR key > ?3) AND (?4 IS NULL OR key < ?4)
                   AND (expires_ms IS NULL OR expires_ms > ?5) ORDER BY key LIMIT ?6";
        let mut statement = connection.prepare_cached(sql).map_err(storage_error)?;
        let start = after.map_or(prefix, |after| after.max(prefix));
        let end = end_of_prefix(prefix.as_bytes());
        let parameters: [&dyn ToSql; 6] = [&mount, &start.as_bytes(), &after.map(str::as_bytes), &end, &now_ms, &limit];
        let keys = statement.query_map(parameters, |row| row.get::<_, Vec<u8>>(0)).map_err(storage_error)?;
        let text = |key: Result<Vec<u8>, rusqlite::Error>| {
            String::from_utf8(key.map_err(storage_error)?).map_err(|_| StorageError::Unavailable("a key is no text".to_owned()))
        };
        keys.map(text).collect()
    }

    async fn pin(&self) -> Result<Box<dyn Pinned>, StorageError> {
        let folder = self.shared.folder.clone();
        let pinned = self.runtime.spawn_blocking(move || pin_file(&folder, FILE)).await;
        let pinned = pinned.map_err(|error| StorageError::Unavailable(error.to_string()))?;
        Ok(Box::new(pinned.map_err(from_executor)?))
    }

    async fn ready(&self) -> Result<(), StorageError> {
        self.change(|connection, now_ms| {
            let sql = "INSERT OR REPLACE INTO ready (id, number) VALUES (1, ?1)";
            connection.execute(sql, [now_ms]).map_err(storage_error)?;
            let read: i64 = connection.query_row("SELECT number FROM ready WHERE id = 1", [], |row| row.get(0)).map_err(storage_error)?;
            if read == now_ms { Ok(()) } else { Err(StorageError::Unavailable("read something else than was written".to_owned())) }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::memory::suite::{self, ManualClock, block_on};

    #[tokio::test]
    async fn keyvalue_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let store = SqliteKeyValue::open_with_clock(folder.path(), clock.read()).await.unwrap();
        suite::keyvalue(&store, &clock).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_history_of_keyvalue(acts in suite::acts()) {
            let folder = tempfile::tempdir().unwrap();
            let clock = ManualClock::default();
            block_on(async {
                let store = SqliteKeyValue::open_with_clock(folder.path(), clock.read()).await.unwrap();
                suite::history(&store, &clock, acts).await;
            });
        }
    }

    #[tokio::test]
    async fn facts_and_their_times_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let store = SqliteKeyValue::open_with_clock(folder.path(), clock.read()).await.unwrap();
        store.set("m", "stays", vec![1], None).await.unwrap();
        store.set("m", "goes", vec![2], Some(10)).await.unwrap();
        drop(store);
        let store = SqliteKeyValue::open_with_clock(folder.path(), clock.read()).await.unwrap();
        assert_eq!(store.get("m", "goes").await, Ok(Some(vec![2])));
        clock.pass(10);
        assert_eq!(store.get("m", "goes").await, Ok(None));
        assert_eq!(store.get("m", "stays").await, Ok(Some(vec![1])));
    }

    #[tokio::test]
    async fn a_full_store_refuses_reads_on_and_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteKeyValue::open(folder.path()).await.unwrap();
        store.set("m", "small", vec![1], None).await.unwrap();
        let pages_max = |pages: u32| store.shared.connection.lock().pragma_update(None, "max_page_count", pages).unwrap();
        pages_max(20);
        for _ in 0..3 {
            assert_eq!(store.set("m", "large", vec![2; 200_000], None).await, Err(StorageError::Limit("disk".into())));
            assert_eq!(store.get("m", "large").await, Ok(None));
            assert_eq!(store.get("m", "small").await, Ok(Some(vec![1])));
            assert_eq!(store.increment("m", "counter", 1, None).await.map(|_| ()), Ok(()), "what fits is taken");
        }
        pages_max(1 << 20);
        store.set("m", "large", vec![2; 200_000], None).await.unwrap();
        assert_eq!(store.get("m", "large").await, Ok(Some(vec![2; 200_000])));
        assert_eq!(store.increment("m", "counter", 0, None).await, Ok(3));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_takes_no_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteKeyValue::open(folder.path()).await.unwrap();
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        for refused in [store.set("m", "k", vec![1], None).await, store.ready().await] {
            assert!(matches!(&refused, Err(StorageError::Unavailable(what)) if what.contains(FILE)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn upkeep_of_a_file_that_cannot_shrink_ends() {
        let folder = tempfile::tempdir().unwrap();
        drop(open_file(&folder.path().join(FILE), FORMAT).unwrap());
        let foreign = Connection::open(folder.path().join(FILE)).unwrap();
        foreign.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
        assert_eq!(foreign.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)), Ok(0));
        drop(foreign);
        let store = SqliteKeyValue::open(folder.path()).await.unwrap();
        store.set("m", "large", vec![1; 4 * VACUUM_PAGES as usize * 4096], None).await.unwrap();
        store.delete("m", "large").await.unwrap();
        let shared = Arc::clone(&store.shared);
        let kept_up = tokio::task::spawn_blocking(move || shared.keep_up());
        tokio::time::timeout(Duration::from_secs(20), kept_up).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn damage_in_the_middle_is_said_by_name_and_costs_no_other_facts() {
        const PAGE_BYTES: usize = 4096;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let store = SqliteKeyValue::open(folder.path()).await.unwrap();
        let key = |number: usize| format!("{number:04}");
        for number in 0..500 {
            store.set("m", &key(number), vec![7; 200], None).await.unwrap();
        }
        // On the connection of the upkeep: it may copy the log back at this very moment.
        let busy: i64 = store.shared.upkeep.lock().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        drop(store);
        let mut content = std::fs::read(&path).unwrap();
        let middle = content.windows(4).position(|window| window == b"0250").unwrap() / PAGE_BYTES * PAGE_BYTES;
        content[middle..middle + PAGE_BYTES].fill(0xA5);
        std::fs::write(&path, content).unwrap();
        let store = SqliteKeyValue::open(folder.path()).await.unwrap();
        for refused in [store.get("m", &key(250)).await.map(|_| ()), store.set("m", &key(250), vec![8], None).await] {
            let Err(StorageError::Unavailable(said)) = refused else { panic!("{refused:?}") };
            assert!(said.contains(FILE) && said.contains("damaged") && said.contains("restore a backup"), "{said}");
        }
        assert_eq!(store.get("m", &key(0)).await, Ok(Some(vec![7; 200])));
        store.set("m", &key(499), vec![9], None).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_increment_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        // Two stores on one file, as two processes would have them.
        let stores = [SqliteKeyValue::open(folder.path()).await.unwrap(), SqliteKeyValue::open(folder.path()).await.unwrap()];
        let stores = stores.map(Arc::new);
        let tasks = (0..8).map(|task| {
            let store = Arc::clone(&stores[task % 2]);
            tokio::spawn(async move {
                for _ in 0..50 {
                    store.increment("m", "n", 1, None).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        }
        assert_eq!(stores[0].increment("m", "n", 0, None).await, Ok(400));
    }

    #[tokio::test]
    async fn what_has_expired_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let store = SqliteKeyValue::open_with_clock(folder.path(), clock.read()).await.unwrap();
        for number in 0..=SWEEP_COUNT {
            store.set("m", &number.to_string(), vec![], Some(1)).await.unwrap();
        }
        store.set("m", "stays", vec![], None).await.unwrap();
        clock.pass(1);
        let shared = Arc::clone(&store.shared);
        tokio::task::spawn_blocking(move || shared.keep_up()).await.unwrap().unwrap();
        let count: i64 = store.shared.connection.lock().query_row("SELECT count(*) FROM kv", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn prefixes_end_behind_themselves() {
        assert_eq!(end_of_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(end_of_prefix(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(end_of_prefix(&[255]), None);
        assert_eq!(end_of_prefix(b""), None);
    }
}
