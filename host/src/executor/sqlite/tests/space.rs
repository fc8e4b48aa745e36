//! Space on disk: what a mount holds, files and logs that shrink, snapshots that end.

use super::*;

/// About 4 MB.
const FILL: &str = "INSERT INTO item (id, body) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
     SELECT i, hex(randomblob(1000)) FROM n";

async fn run(fixture: &Fixture, statement: &str) {
    let mut transaction = fixture.begin().await;
    transaction.execute(&sql(statement), None).await.unwrap();
    assert!(fixture.commit(transaction).await);
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Waits for what the upkeep does by itself.
async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_and_its_log_shrink_after_a_large_deletion_while_others_write() {
    let fixture = Fixture::with(|settings| settings.upkeep_ms = 20).await;
    let path = fixture.folder.path().join("mount/main.sqlite");
    run(&fixture, FILL).await;
    run(&fixture, "DELETE FROM item WHERE id > 10").await;
    let writer = async {
        for id in 10_000..10_200 {
            let group = fixture.insert(id).await;
            assert!(fixture.log.of(group).await);
        }
    };
    let shrunk = until(|| length(&path) < 1 << 20 && length(&path.with_extension("sqlite-wal")) < 1 << 20);
    tokio::join!(writer, shrunk);
    assert_eq!(fixture.items().await.len(), 210);
    assert!(fixture.executor.usage("mount").log_bytes < 1 << 20);
}

/// A file that somebody brought without the setting keeps its free pages; it is not tried for ever.
#[tokio::test]
async fn a_file_that_cannot_shrink_is_left_alone() {
    let fixture = Fixture::new().await;
    run(&fixture, FILL).await;
    within(fixture.executor.close()).await;
    let path = fixture.folder.path().join("mount/main.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
    let log = Log::new();
    let executor = SqliteExecutor::start(SqliteSettings::new(fixture.folder.path())).await.unwrap();
    let database = executor.open(&name("main"), log.clone()).await.unwrap();
    let mut transaction = database.begin().await.unwrap();
    transaction.execute(&sql("DELETE FROM item"), None).await.unwrap();
    assert!(log.of(commit(transaction).await).await);
    let file = executor.inner.files.lock().open().next().unwrap();
    let before = log.all().len();
    assert_eq!(within(file.compact()).await, Ok(false));
    assert!(log.all().len() <= before + 1, "one try, and no more");
    assert!(length(&path) > 3 << 20);
}

#[tokio::test]
async fn what_a_mount_holds_is_known_for_files_that_are_open_and_for_others() {
    let fixture = Fixture::new().await;
    let held = |executor: &SqliteExecutor| executor.database_bytes("mount").unwrap();
    let empty = held(&fixture.executor);
    assert!(empty > 0 && empty < 100_000, "{empty}");
    run(&fixture, FILL).await;
    let full = held(&fixture.executor);
    assert!(full > empty + (3 << 20), "{full}");
    fixture.executor.open(&name("second"), Log::new()).await.unwrap();
    assert!(held(&fixture.executor) > full);
    assert_eq!(fixture.executor.database_bytes("other"), Some(0));
    run(&fixture, "DELETE FROM item").await;
    assert!(held(&fixture.executor) < 200_000, "free space counts for nothing");
    run(&fixture, FILL).await;
    within(fixture.executor.close()).await;
    let executor = SqliteExecutor::start(SqliteSettings::new(fixture.folder.path())).await.unwrap();
    assert!(held(&executor) > 3 << 20, "nobody has opened it yet");
    executor.open(&name("main"), Log::new()).await.unwrap();
    let again = held(&executor);
    assert!(again >= full && again < full + 200_000, "{again}: a file counts once");
}

#[tokio::test]
async fn a_snapshot_that_is_held_for_too_long_ends_and_lets_the_log_go() {
    let fixture = Fixture::with(|settings| (settings.upkeep_ms, settings.snapshot_ms_max) = (20, 300)).await;
    let log_path = fixture.folder.path().join("mount/main.sqlite-wal");
    let mut view = fixture.database.snapshot().await.unwrap();
    assert!(view.query(&sql("SELECT id FROM item"), None).await.unwrap().rows.is_empty());
    for _ in 0..3 {
        run(&fixture, FILL).await;
        run(&fixture, "DELETE FROM item").await;
    }
    let grown = length(&log_path);
    assert!(grown > 10 << 20, "the log holds all that the snapshot does not see: {grown}");
    let mut ended = None;
    within(async {
        while ended.is_none() {
            ended = view.query(&sql("SELECT id FROM item"), None).await.err();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(ended, Some(ExecutorError::Limit("time of an open snapshot".into())));
    until(|| length(&log_path) < grown / 2).await;
    assert!(fixture.items().await.is_empty());
    drop(view);
    assert_eq!(fixture.executor.usage("mount").snapshot_age, Duration::ZERO);
}

/// A database that is full says so with every write, serves reads, and goes on when there is space.
#[tokio::test]
async fn a_full_database_refuses_and_resumes() {
    let pages_max = Arc::new(AtomicU64::new(100));
    let limit = Arc::clone(&pages_max);
    let fixture = Fixture::with(|settings| {
        settings.idle_close_ms = 20;
        settings.on_open = Some(Arc::new(move |connection| {
            connection.pragma_update(None, "max_page_count", limit.load(Ordering::SeqCst).cast_signed()).unwrap();
        }));
    })
    .await;
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    for _ in 0..3 {
        let mut transaction = fixture.begin().await;
        let refused = transaction.execute(&sql(&FILL.replace("SELECT i,", "SELECT i + 1,")), None).await;
        assert_eq!(refused.err(), Some(ExecutorError::Limit("disk".into())));
        drop(transaction);
        assert_eq!(fixture.items().await, [1]);
    }
    pages_max.store(1 << 20, Ordering::SeqCst);
    within(async {
        loop {
            // An idle file is opened anew, with the limit as it is by then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut transaction = fixture.begin().await;
            if transaction.execute(&sql(&FILL.replace("SELECT i,", "SELECT i + 1,")), None).await.is_ok() {
                assert!(fixture.commit(transaction).await);
                break;
            }
        }
    })
    .await;
    assert_eq!(fixture.items().await.len(), 2001);
    within(fixture.executor.ready()).await.unwrap();
}
