//! Backups while others write: what is copied is of one moment.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tempfile::TempDir;

use super::restore::{RestoreError, UNFINISHED, check, restore};
use super::*;
use crate::executor::durable::DurableDatabase;
use crate::executor::sqlite::{SqliteExecutor, SqliteSettings};
use crate::executor::{Statement, Value};
use crate::pubsub::memory::MemoryPubSub;
use crate::storage::Storage;
use crate::storage::files::FileObjects;
use crate::storage::sqlite::SqliteKeyValue;

const MOUNT: &str = "m";

async fn open(data: &Path) -> Backends {
    Backends {
        executor: Arc::new(SqliteExecutor::start(SqliteSettings::new(data)).await.unwrap()),
        storage: Storage {
            objects: Arc::new(FileObjects::open(data.join("objects")).await.unwrap()),
            keyvalue: Arc::new(SqliteKeyValue::open(data).await.unwrap()),
        },
        pubsub: Arc::new(MemoryPubSub::default()),
    }
}

fn statement(sql: &str, parameters: &[i64]) -> Statement {
    Statement { sql: sql.into(), parameters: parameters.iter().map(|number| Value::Integer(*number)).collect() }
}

async fn table(backends: &Backends, name: &str) -> DurableDatabase {
    let database = DurableDatabase::open(&*backends.executor, name).await.unwrap();
    database.write(&[statement("CREATE TABLE IF NOT EXISTS steps (number INTEGER PRIMARY KEY)", &[])]).await.unwrap();
    database
}

async fn steps(database: &DurableDatabase) -> Vec<i64> {
    let rows = database.read(&statement("SELECT number FROM steps ORDER BY number", &[])).await.unwrap().rows;
    let number = |row: Vec<Value>| if let Value::Integer(number) = row[0] { number } else { panic!("{row:?}") };
    rows.iter().map(number).collect()
}

fn key(number: i64) -> String {
    format!("object-{number}")
}

/// Rows of `first` name objects; `second` and a fact follow `first`. Old rows go, and their objects after them.
async fn write_on(backends: Backends, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let (first, second) = (table(&backends, "first").await, table(&backends, "second").await);
    let objects = &backends.storage.objects;
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let content = Bytes::from(format!("content of {number}"));
        objects.write(MOUNT, &key(number), "", content).await.unwrap();
        objects.write(MOUNT, "replaced", "", Bytes::from(number.to_string())).await.unwrap();
        let (old, insert) = (number - 3, statement("INSERT INTO steps VALUES (?)", &[number]));
        first.write(&[insert.clone(), statement("DELETE FROM steps WHERE number <= ?", &[old])]).await.unwrap();
        second.write(&[insert]).await.unwrap();
        backends.storage.keyvalue.set(MOUNT, "number", number.to_string().into_bytes(), None).await.unwrap();
        if old > 0 {
            objects.delete(MOUNT, &key(old)).await.unwrap();
        }
        done.store(u64::try_from(number).unwrap(), Ordering::Relaxed);
    }
}

/// What a data folder holds hangs together, and reaches at least as far as `done`.
async fn assert_one_moment(data: &Path, done: i64) {
    let backends = open(data).await;
    let (first, second) = (steps(&table(&backends, "first").await).await, steps(&table(&backends, "second").await).await);
    let last = *first.last().unwrap();
    assert!(last >= done, "{last} < {done}");
    let behind = second.last().copied().unwrap_or(0);
    assert_eq!(second, (1..=behind).collect::<Vec<_>>(), "no holes");
    assert!(behind == last || behind == last - 1, "{behind} does not fit {last}");
    let fact = backends.storage.keyvalue.get(MOUNT, "number").await.unwrap().unwrap_or_else(|| b"0".to_vec());
    let fact: i64 = String::from_utf8(fact).unwrap().parse().unwrap();
    assert!(fact == behind || fact == behind - 1, "{fact} does not fit {behind}");
    let objects = &backends.storage.objects;
    for number in &first {
        assert_eq!(objects.read(MOUNT, &key(*number), None).await, Ok(format!("content of {number}").into()), "a row without its object");
    }
    let replaced = String::from_utf8(objects.read(MOUNT, "replaced", None).await.unwrap().to_vec()).unwrap();
    assert!([last, last + 1].map(|number| number.to_string()).contains(&replaced), "{replaced} is not of the moment of {last}");
    let listed = objects.list(MOUNT, "object-", None, 100).await.unwrap();
    // Before its row, and until its row is gone for good, an object lies alone.
    assert!(listed.len() <= first.len() + 2, "{listed:?} is more than {first:?} and what was under way");
    backends.executor.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_copied_under_load_is_of_one_moment() {
    let (data, backups) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let backends = open(data.path()).await;
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writing = tokio::spawn(write_on(backends.clone(), done.clone(), stop.clone()));
    let mut made = Vec::new();
    for round in 0..6 {
        while done.load(Ordering::Relaxed) < 3 * round {
            tokio::task::yield_now().await;
        }
        let before = i64::try_from(done.load(Ordering::Relaxed)).unwrap();
        let folder = backups.path().join(round.to_string());
        let manifest = back_up(&backends, &folder, CallOff::default()).await.unwrap();
        assert!(manifest.files.iter().any(|file| file.path == "keyvalue.sqlite"));
        // Before the first row there is nothing to compare.
        if before > 0 {
            made.push((folder, before));
        }
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert!(made.len() >= 4);
    for (folder, before) in made {
        let restored = folder.join("restored");
        restore(&folder, &restored).unwrap();
        assert_one_moment(&restored, before).await;
    }
    let kept = std::fs::read_dir(data.path().join("objects/.temporary")).unwrap().count();
    assert_eq!(kept, 0, "nothing is kept for backups that are over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_nobody_has_open_belong_to_it_and_files_of_others_do_not() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let backends = open(data.path()).await;
    table(&backends, "closed").await.write(&[statement("INSERT INTO steps VALUES (7)", &[])]).await.unwrap();
    backends.executor.close().await;
    drop(backends);
    rusqlite::Connection::open(data.path().join("syncline/foreign.sqlite")).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    let backends = open(data.path()).await;
    let folder = backup.path().join("new/backup");
    let manifest = back_up(&backends, &folder, CallOff::default()).await.unwrap();
    let paths: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["format.json", "keyvalue.sqlite", "syncline/closed.sqlite"]);
    assert_eq!(check(&folder).unwrap(), manifest);
    let restored = backup.path().join("restored");
    restore(&folder, &restored).unwrap();
    let backends = open(&restored).await;
    assert_eq!(steps(&table(&backends, "closed").await).await, [7]);
}

#[tokio::test]
async fn a_backup_that_is_called_off_or_has_no_place_leaves_nothing_behind() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let backends = open(data.path()).await;
    table(&backends, "some").await;
    let (call_off, folder) = (CallOff::default(), backup.path().join("new"));
    call_off.now();
    assert!(matches!(back_up(&backends, &folder, call_off).await, Err(BackupError::CalledOff)));
    assert!(!folder.exists());
    std::fs::write(backup.path().join("something"), b"").unwrap();
    let refused = back_up(&backends, backup.path(), CallOff::default()).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty { unfinished: false, .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(backup.path()).unwrap().count(), 1);
    // Writers go on, and another backup may be made.
    table(&backends, "more").await;
    back_up(&backends, &folder, CallOff::default()).await.unwrap();
    std::fs::remove_file(folder.join(MANIFEST)).unwrap();
    let refused = back_up(&backends, &folder, CallOff::default()).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty { unfinished: true, .. })), "{refused:?}");
}

#[tokio::test]
async fn only_a_whole_backup_is_restored_and_only_into_an_empty_folder() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let backends = open(data.path()).await;
    table(&backends, "some").await;
    let folder = backup.path().join("backup");
    back_up(&backends, &folder, CallOff::default()).await.unwrap();
    let into = backup.path().join("data");

    let copied = folder.join(DATA).join("syncline/some.sqlite");
    let whole = std::fs::read(&copied).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (content, what) in [(Some(&flipped[..]), "content"), (Some(&whole[..9]), "length"), (None, "missing")] {
        match content {
            Some(content) => std::fs::write(&copied, content).unwrap(),
            None => std::fs::remove_file(&copied).unwrap(),
        }
        let refused = restore(&folder, &into);
        assert!(
            matches!(&refused, Err(RestoreError::Damaged { path, what: found }) if *path == copied && found.contains(what)),
            "{refused:?}"
        );
        assert!(!into.exists(), "nothing is written before everything is checked");
    }
    std::fs::write(&copied, &whole).unwrap();

    assert!(matches!(restore(backup.path(), &into), Err(RestoreError::NotABackup(_))));
    assert!(matches!(restore(&folder, data.path()), Err(RestoreError::Folder(_))), "in use");
    restore(&folder, &into).unwrap();
    assert!(matches!(restore(&folder, &into), Err(RestoreError::NotEmpty { unfinished: false, .. })));
    std::fs::write(into.join(UNFINISHED), b"").unwrap();
    assert!(matches!(restore(&folder, &into), Err(RestoreError::NotEmpty { unfinished: true, .. })));
}
