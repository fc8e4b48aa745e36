//! Files: opening, closing, formats, names, and the data folder.

use proptest::prelude::*;

use super::*;

fn settings(folder: &TempDir) -> SqliteSettings {
    SqliteSettings::new(folder.path())
}

#[tokio::test]
async fn data_is_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    let Fixture { folder, executor, database, .. } = fixture;
    within(executor.close()).await;
    let closed = database.begin().await.err();
    assert!(matches!(closed, Some(ExecutorError::Unavailable(_))), "{closed:?}");
    assert!(database.snapshot().await.is_err());
    assert!(executor.open(&name("other"), Log::new()).await.is_err());

    let executor = SqliteExecutor::start(settings(&folder)).await.unwrap();
    let database = executor.open(&name("main"), Log::new()).await.unwrap();
    let mut snapshot = database.snapshot().await.unwrap();
    assert_eq!(ids(snapshot.query(&sql("SELECT id FROM item"), None).await.unwrap()), [1]);
}

#[tokio::test]
async fn closing_waits_until_the_last_group_is_settled() {
    let fixture = Fixture::new().await;
    fixture.hook.hold();
    fixture.insert(1).await;
    let mut waits = fixture.database.begin();
    assert!(poll_once(&mut waits).await.is_none());
    let mut close = fixture.executor.close();
    assert!(poll_once(&mut close).await.is_none());
    assert!(matches!(within(waits).await.err(), Some(ExecutorError::Unavailable(_))));
    fixture.hook.release();
    within(close).await;
    assert_eq!(fixture.log.all(), [(1, true), (2, true)]);
}

#[tokio::test]
async fn an_idle_file_is_closed_and_opened_again() {
    let fixture = Fixture::with(|settings| settings.idle_close_ms = 20).await;
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    let mut closed_count = fixture.hook.closed_count.subscribe();
    within(closed_count.wait_for(|count| *count > 0)).await.unwrap();
    assert_eq!(fixture.items().await, [1]);
    let next = fixture.insert(2).await;
    assert_eq!(next, group + 1, "group numbers go on");
    assert!(fixture.log.of(next).await);
    assert!(fixture.hook.opened_count.load(Ordering::SeqCst) > 1);
    assert_eq!(fixture.items().await, [1, 2]);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let fixture = Fixture::new().await;
    within(fixture.executor.close()).await;
    let path = fixture.folder.path().join("mount/main.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let executor = SqliteExecutor::start(settings(&fixture.folder)).await.unwrap();
    let refused = executor.open(&name("main"), Log::new()).await.err();
    let Some(ExecutorError::Unavailable(said)) = refused else { panic!("{refused:?}") };
    assert!(said.contains("99") && said.contains("main.sqlite"), "{said}");
}

#[tokio::test]
async fn a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mount")).unwrap();
    let path = folder.path().join("mount/main.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE precious (id)").unwrap();
    let before = std::fs::read(&path).unwrap();
    std::fs::write(
        folder.path().join("mount/text.sqlite"),
        "no database at all, but longer than a header of SQLite is, which has 100 bytes …………",
    )
    .unwrap();
    let executor = SqliteExecutor::start(settings(&folder)).await.unwrap();
    for database in ["main", "text"] {
        let refused = executor.open(&name(database), Log::new()).await.err();
        assert!(matches!(refused, Some(ExecutorError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_executor() {
    let fixture = Fixture::new().await;
    let refused = SqliteExecutor::start(settings(&fixture.folder)).await.err().unwrap();
    assert!(matches!(refused, FolderError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains(fixture.folder.path().to_str().unwrap()), "{refused}");
    // Gone with the last that works in the folder.
    let Fixture { folder, executor, database, .. } = fixture;
    drop(executor);
    assert!(SqliteExecutor::start(settings(&folder)).await.is_err());
    drop(database);
    within(async {
        while SqliteExecutor::start(settings(&folder)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_database_is_opened_once() {
    let fixture = Fixture::new().await;
    assert!(matches!(fixture.executor.open(&name("main"), Log::new()).await.err(), Some(ExecutorError::Unavailable(_))));
}

#[tokio::test]
async fn readiness_is_a_real_write() {
    let fixture = Fixture::new().await;
    within(fixture.executor.ready()).await.unwrap();
    within(fixture.executor.ready()).await.unwrap();
    fixture.hook.fail_next.store(true, Ordering::SeqCst);
    let refused = within(fixture.executor.ready()).await;
    assert!(matches!(refused, Err(ExecutorError::Unavailable(_))), "{refused:?}");
    within(fixture.executor.ready()).await.unwrap();
}

/// Each database holds its own name, so a file that stands for two shows.
async fn names_stay_apart(names: Vec<DatabaseName>) {
    let folder = tempfile::tempdir().unwrap();
    let executor = SqliteExecutor::start(settings(&folder)).await.unwrap();
    let mut databases = Vec::new();
    for name in &names {
        let log = Log::new();
        let database = executor.open(name, log.clone()).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.execute(&sql("CREATE TABLE own (mount TEXT, name TEXT)"), None).await.unwrap();
        let parameters = vec![Value::Text(name.mount.clone()), Value::Text(name.name.clone())];
        transaction.execute(&Statement { sql: "INSERT INTO own VALUES (?, ?)".to_owned(), parameters }, None).await.unwrap();
        assert!(log.of(commit(transaction).await).await);
        databases.push(database);
    }
    for (name, database) in names.iter().zip(&databases) {
        let found = database.snapshot().await.unwrap().query(&sql("SELECT * FROM own"), None).await.unwrap();
        assert_eq!(found.rows.to_vec(), [vec![Value::Text(name.mount.clone()), Value::Text(name.name.clone())]]);
    }
    within(executor.close()).await;
    for entry in std::fs::read_dir(folder.path().parent().unwrap()).unwrap() {
        assert_ne!(entry.unwrap().path().extension().and_then(|extension| extension.to_str()), Some("sqlite"), "escaped the folder");
    }
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[aA./%]{0,3}", "x{120,122}", Just("lock".to_owned()), Just("objects".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn weird_names_stay_apart(names in prop::collection::btree_set((any_name(), any_name()), 1..5)) {
        let names = names.into_iter().map(|(mount, name)| DatabaseName { mount, name }).collect();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(names_stay_apart(names));
    }
}
