//! Large tables: migrating them takes longer than a usual transaction may (docs/protocols/plasma.md, section 15).

use std::sync::Arc;

use serde_json::json;
use syncline_tests::plasma::grown::{Found, Tables, executor, settings};
use syncline_tests::plasma::{admin, alice, plasma_mount};
use syncline_tests::server::{Setup, TestServer};
use tempfile::TempDir;

/// A tenth of what the migration takes or less.
const LIMIT_MS: u64 = 250;

async fn serve(folder: &Arc<TempDir>, on_postgres: bool, after: bool) -> TestServer {
    let executor = executor(folder.path(), on_postgres, Some(LIMIT_MS)).await;
    let mounts = vec![plasma_mount(settings(after))];
    TestServer::with(Setup { mounts, executor: Some(executor), folder: Some(folder.clone()), ..Setup::default() }).await
}

/// A mount whose table has grown, and no server.
async fn grown(on_postgres: bool) -> Arc<TempDir> {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    serve(&folder, on_postgres, false).await.stop().await;
    Tables::open(folder.path(), on_postgres).await.grow().await;
    folder
}

async fn a_start_migrates_a_large_table(on_postgres: bool) {
    let folder = grown(on_postgres).await;
    let server = serve(&folder, on_postgres, true).await;
    assert_eq!(alice(server.address).get("/health").await.status, 200);
    server.stop().await;
    assert_eq!(Tables::open(folder.path(), on_postgres).await.look().await, Found::After);
}

async fn an_administrator_migrates_a_large_table(on_postgres: bool) {
    let folder = grown(on_postgres).await;
    let server = serve(&folder, on_postgres, false).await;
    let asked = json!({"schema": settings(true)["schema"], "allowDestructive": true});
    let answer = admin(server.address).post("/admin/migrate", &asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    server.stop().await;
    assert_eq!(Tables::open(folder.path(), on_postgres).await.look().await, Found::After);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_migrates_a_large_table_on_sqlite() {
    a_start_migrates_a_large_table(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_migrates_a_large_table_on_postgres() {
    a_start_migrates_a_large_table(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_migrates_a_large_table_on_sqlite() {
    an_administrator_migrates_a_large_table(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_migrates_a_large_table_on_postgres() {
    an_administrator_migrates_a_large_table(true).await;
}
