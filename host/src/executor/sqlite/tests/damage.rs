//! Files that are not what they should be: refused by name, never changed, never taken for new ones; and nobody else
//! notices.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use super::super::format::FileIdentity;
use super::*;

/// So that there is something to damage in the middle of a file.
const ITEMS: i64 = 2_000;
const PAGE_BYTES: usize = 4096;

/// A closed database with many items; its folder and its file.
async fn furnished() -> (TempDir, PathBuf) {
    let fixture = Fixture::new().await;
    fill(&fixture).await;
    within(fixture.executor.close()).await;
    let path = fixture.folder.path().join("mount/main.sqlite");
    (fixture.folder, path)
}

async fn fill(fixture: &Fixture) {
    let mut transaction = fixture.begin().await;
    let fill = format!(
        "INSERT INTO item (id, body) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ITEMS}) \
         SELECT i, hex(randomblob(200)) FROM n"
    );
    transaction.execute(&sql(&fill), None).await.unwrap();
    assert!(fixture.commit(transaction).await);
}

async fn start(folder: &TempDir) -> SqliteExecutor {
    SqliteExecutor::start(SqliteSettings::new(folder.path())).await.unwrap()
}

/// What an error says, which must name a file.
fn said(error: Option<ExecutorError>, path: &Path) -> String {
    let Some(ExecutorError::Unavailable(said)) = error else { panic!("{error:?}") };
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    said
}

/// Opening a file is refused by its name and with some word, and changes nothing; another file opens all the same.
async fn is_refused(folder: &TempDir, path: &Path, word: &str) {
    let before = fs::read(path).ok();
    let executor = start(folder).await;
    let said = said(executor.open(&name("main"), Log::new()).await.err(), path);
    assert!(said.contains(word), "{word:?} is missing in {said}");
    assert_eq!(fs::read(path).ok(), before, "what is refused is left alone");
    executor.open(&name("other"), Log::new()).await.unwrap();
    within(executor.close()).await;
}

#[tokio::test]
async fn a_damaged_header_an_empty_file_and_a_folder_are_refused() {
    let (folder, path) = furnished().await;
    let whole = fs::read(&path).unwrap();
    let mut garbage = whole.clone();
    garbage[..100].fill(0xA5);
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(b"FOSL");
    for (content, word) in [
        (&garbage[..], "damaged"),
        (&[][..], "is empty"),
        (&whole[..50], "damaged"),
        (&whole[..whole.len() / 2], "damaged"),
        (&foreign, "not a file of this program"),
    ] {
        fs::write(&path, content).unwrap();
        is_refused(&folder, &path, word).await;
    }
    fs::remove_file(&path).unwrap();
    // A new file would take its log from it.
    let log = path.with_extension("sqlite-wal");
    fs::write(&log, b"what was acknowledged").unwrap();
    is_refused(&folder, &path, "is gone, but its log").await;
    assert_eq!(fs::read(&log).unwrap(), b"what was acknowledged");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&path).unwrap();
    is_refused(&folder, &path, "in the way").await;
}

#[tokio::test]
async fn damage_in_the_middle_fails_the_reads_that_meet_it_and_no_others() {
    let (folder, path) = furnished().await;
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2 / PAGE_BYTES * PAGE_BYTES;
    content[middle..middle + PAGE_BYTES].fill(0xA5);
    fs::write(&path, &content).unwrap();
    let executor = start(&folder).await;
    let (log, other_log) = (Log::new(), Log::new());
    let database = executor.open(&name("main"), log.clone()).await.unwrap();
    let other = executor.open(&name("other"), other_log.clone()).await.unwrap();
    for _ in 0..3 {
        let mut view = database.snapshot().await.unwrap();
        let refused = view.query(&sql("SELECT sum(length(body)) FROM item"), None).await.err();
        let said = said(refused, &path);
        assert!(said.contains("damaged") && said.contains("restore a backup"), "{said}");
        let mut transaction = database.begin().await.unwrap();
        assert!(transaction.execute(&sql("UPDATE item SET body = ''"), None).await.is_err());
        drop(transaction);
        let mut view = database.snapshot().await.unwrap();
        assert_eq!(ids(view.query(&sql("SELECT id FROM item WHERE id = 1"), None).await.unwrap()), [1], "the rest can be read");
    }
    let mut transaction = other.begin().await.unwrap();
    transaction.execute(&sql("CREATE TABLE t (a)"), None).await.unwrap();
    assert!(other_log.of(commit(transaction).await).await);
    within(executor.close()).await;
}

/// A log that ends anywhere, as a crash may leave it, holds the commits that are whole in it, in their order.
#[tokio::test]
async fn a_log_that_was_cut_holds_whole_commits() {
    let fixture = Fixture::new().await;
    for id in 1..=6 {
        let group = fixture.insert(id).await;
        assert!(fixture.log.of(group).await);
    }
    let path = fixture.folder.path().join("mount/main.sqlite");
    let (database, log) = (fs::read(&path).unwrap(), fs::read(path.with_extension("sqlite-wal")).unwrap());
    let mut found = std::collections::BTreeSet::new();
    for cut in (0..=log.len()).step_by(1_000).chain([log.len()]) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("mount")).unwrap();
        let copy = folder.path().join("mount/main.sqlite");
        fs::write(&copy, &database).unwrap();
        fs::write(copy.with_extension("sqlite-wal"), &log[..cut]).unwrap();
        let executor = start(&folder).await;
        let opened = executor.open(&name("main"), Log::new()).await.unwrap();
        let items = opened.snapshot().await.unwrap().query(&sql("SELECT id FROM item ORDER BY id"), None).await;
        // Cut before the table was made.
        let items = items.map_or(Vec::new(), ids);
        assert_eq!(items, (1..=items.len() as i64).collect::<Vec<_>>());
        found.insert(items.len());
        within(executor.close()).await;
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_file_that_was_moved_takes_no_more_commits() {
    let fixture = Fixture::with(|settings| settings.idle_close_ms = 20).await;
    let group = fixture.insert(1).await;
    assert!(fixture.log.of(group).await);
    let mut closed_count = fixture.hook.closed_count.subscribe();
    let path = fixture.folder.path().join("mount/main.sqlite");
    let away = path.with_extension("away");
    let mut open = fixture.begin().await;
    open.execute(&insert(2), None).await.unwrap();
    fs::rename(&path, &away).unwrap();
    let group = commit(open).await;
    assert!(!fixture.log.of(group).await, "nothing is acknowledged that nobody would find again");
    let said = said(within(fixture.database.begin()).await.err(), &path);
    assert!(said.contains("moved or deleted"), "{said}");
    assert!(within(fixture.executor.ready()).await.is_err());
    assert!(!path.exists(), "no new one takes its place");
    fs::rename(&away, &path).unwrap();
    let group = fixture.insert(3).await;
    assert!(fixture.log.of(group).await);
    within(closed_count.wait_for(|count| *count > 1)).await.unwrap();
    assert_eq!(fixture.items().await, [1, 3]);
    within(fixture.executor.ready()).await.unwrap();
}

#[test]
fn another_file_in_the_same_place_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&path, b"same").unwrap();
    fs::write(&other, b"same").unwrap();
    let identity = FileIdentity::of(&path).unwrap();
    fs::write(&path, b"changed").unwrap();
    identity.check(&path).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(said(identity.check(&path).err(), &path).contains("replaced"));
}

#[tokio::test]
async fn leftovers_of_a_file_that_was_being_made_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("mount")).unwrap();
    let path = folder.path().join("mount/main.sqlite");
    let mut leftover = OpenOptions::new().create_new(true).write(true).open(path.with_extension("sqlite.new")).unwrap();
    leftover.seek(SeekFrom::Start(3000)).unwrap();
    leftover.write_all(b"half").unwrap();
    let executor = start(&folder).await;
    executor.open(&name("main"), Log::new()).await.unwrap();
    assert!(path.exists() && !path.with_extension("sqlite.new").exists());
}
