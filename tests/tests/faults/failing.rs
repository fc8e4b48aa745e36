//! Databases that answer with errors: the client is asked to come back, or never notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::executor::{ExecutorError, Value};
use syncline_tests::scale;
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::socket::Socket;

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
