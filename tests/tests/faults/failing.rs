//! Databases that answer with errors: the client is asked to come back, or never notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{ExecutorError, Value};
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::{Received, Socket};
use syncline_tests::{DEADLINE, scale};

use crate::documents::{check_clocks, create, open, saved, signature, stored, told_to_come_back};
use syncline_tests::faulty_executor::{FaultyExecutor, Point, Verdict};

async fn server(judge: impl Fn(Point<'_>) -> Verdict + Send + Sync + 'static) -> TestServer {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = SqliteExecutor::start(SqliteSettings::new(folder.path())).await.expect("the executor starts");
    let executor = Arc::new(FaultyExecutor::new(executor, judge));
    TestServer::with(Setup { executor: Some(executor), folder: Some(folder), ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_call_is_run_again_and_nobody_sees_it() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    let aborts = Arc::new(AtomicU64::new(0));
    let counted = aborts.clone();
    let server = server(move |_| {
        if !random.lock().random_bool(0.06) {
            return Verdict::Pass;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Verdict::Fail(ExecutorError::Aborted)
    })
    .await;
    let author = Author::new(1);
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    let (mut reader, _) = open(server.address, "d").await;
    let count = u64::from(100 * scale());
    for clock in 0..count {
        writer.send(&author.update("d", &snapshot.id, clock, b"")).await;
        saved(&mut writer, clock).await;
        assert_eq!(reader.json_of("update").await["publicData"]["clock"], clock);
        if clock % 10 == 0 {
            let (_, document) = open(server.address, "d").await;
            assert_eq!(document["updates"].as_array().map(Vec::len), usize::try_from(clock + 1).ok());
        }
    }
    assert!(aborts.load(Ordering::SeqCst) > count / 20, "there were aborts");
    let updates = stored(server.folder(), "secsync", "d");
    check_clocks(&updates);
    assert_eq!(updates.len() as u64, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_always_aborted_costs_nobody_else_anything() {
    let server = server(|point| match point {
        Point::Execute(statement) if statement.parameters.contains(&Value::Text("cursed".into())) => Verdict::Fail(ExecutorError::Aborted),
        _ => Verdict::Pass,
    })
    .await;
    let author = Author::new(1);
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    for clock in 0..3 {
        let mut cursed = Socket::connect(server.address, "/secsync/cursed?sessionKey=k&mode=complete").await;
        writer.send(&author.update("d", &snapshot.id, clock, b"")).await;
        told_to_come_back(&mut cursed).await;
        saved(&mut writer, clock).await;
    }
    assert_eq!(stored(server.folder(), "secsync", "d").len(), 3);
}

/// Which point fails for a while.
fn fails_at(name: &'static str, left: &Arc<AtomicI64>) -> impl Fn(Point<'_>) -> Verdict + Send + Sync + 'static {
    let left = left.clone();
    move |point| {
        let here = match point {
            Point::Begin => "begin",
            Point::Execute(_) => "execute",
            Point::Commit => "commit",
            Point::Snapshot => "snapshot",
        };
        if here == name && left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Verdict::Fail(ExecutorError::Unavailable("away".into()));
        }
        Verdict::Pass
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_closes_who_writes_and_comes_back() {
    for name in ["begin", "execute", "commit"] {
        let left = Arc::new(AtomicI64::new(0));
        let server = server(fails_at(name, &left)).await;
        let author = Author::new(1);
        let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
        let (mut reader, _) = open(server.address, "d").await;
        left.store(1, Ordering::SeqCst);
        writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
        told_to_come_back(&mut writer).await;
        let (mut writer, document) = open(server.address, "d").await;
        assert_eq!(document["updates"], json!([]), "at {name}");
        let update = author.update("d", &snapshot.id, 0, b"");
        writer.send(&update).await;
        saved(&mut writer, 0).await;
        assert_eq!(signature(&reader.json_of("update").await), signature(&update));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_never_makes_a_document_error() {
    for name in ["begin", "execute", "commit", "snapshot"] {
        let left = Arc::new(AtomicI64::new(0));
        let server = server(fails_at(name, &left)).await;
        left.store(1, Ordering::SeqCst);
        let mut refused = Socket::connect(server.address, "/secsync/new?sessionKey=k&mode=complete").await;
        told_to_come_back(&mut refused).await;
        let (_, document) = open(server.address, "new").await;
        assert_eq!(document["updates"], json!([]), "at {name}");
    }
}

/// Opens the database with so few pages, or without a limit.
async fn on_a_small_disk(folder: &Path, full: &Arc<AtomicBool>) -> SqliteExecutor {
    let mut settings = SqliteSettings::new(folder);
    let full = full.clone();
    settings.on_open = Some(Arc::new(move |connection| {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("pages are counted");
        let pages_max = if full.load(Ordering::SeqCst) { pages.max(40) } else { 1 << 30 };
        connection.pragma_update(None, "max_page_count", pages_max).expect("the limit can be set");
    }));
    // A file that nobody uses is opened anew, and then the disk is what it is by then.
    settings.idle_close_ms = 20;
    SqliteExecutor::start(settings).await.expect("the executor starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_for_a_while_and_forgets_nothing() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let full = Arc::new(AtomicBool::new(true));
    let executor = Arc::new(on_a_small_disk(folder.path(), &full).await);
    let server = TestServer::with(Setup { executor: Some(executor), folder: Some(folder), ..Setup::default() }).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = create(server.address, "secsync", "d", &author).await;
    let (mut reader, _) = open(server.address, "d").await;
    let mut clock = 0;
    let acknowledged = loop {
        writer.send(&author.update("d", &snapshot.id, clock, &[1; 3000])).await;
        match writer.receive().await {
            Received::Json(reply) => assert_eq!((&reply["type"], &reply["clock"]), (&json!("update-saved"), &json!(clock))),
            other => {
                assert_eq!(other, Received::Close(1013));
                break clock;
            }
        }
        assert_eq!(reader.json_of("update").await["publicData"]["clock"], clock);
        clock += 1;
    };
    assert!(acknowledged > 3, "there was some space");
    // It can still be read.
    let (mut writer, document) = open(server.address, "d").await;
    assert_eq!(document["updates"].as_array().map(Vec::len), usize::try_from(acknowledged).ok());
    writer.send(&author.update("d", &snapshot.id, acknowledged, &[2; 3000])).await;
    told_to_come_back(&mut writer).await;
    full.store(false, Ordering::SeqCst);
    let resumed = async {
        loop {
            let (mut writer, _) = open(server.address, "d").await;
            writer.send(&author.update("d", &snapshot.id, acknowledged, &[3; 3000])).await;
            if let Received::Json(reply) = writer.receive().await {
                return assert_eq!((&reply["type"], &reply["clock"]), (&json!("update-saved"), &json!(acknowledged)));
            }
            // The file is closed once nobody has used it for a while; each attempt uses it.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, resumed).await.expect("the service resumes");
    assert_eq!(reader.json_of("update").await["publicData"]["clock"], acknowledged);
    let updates = stored(server.folder(), "secsync", "d");
    check_clocks(&updates);
    assert_eq!(updates.len() as u64, acknowledged + 1);
}
