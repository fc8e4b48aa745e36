//! Mounts that serve a folder (docs/protocols/files.md).

use std::fs;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use syncline::runtime::{MountSettings, RuntimeSettings};
use syncline_tests::http::{Answer, request};
use syncline_tests::plasma::{alice, fixture, mutation, plasma_mount};
use syncline_tests::process::{command, run};
use syncline_tests::server::{Setup, TestServer};

/// A mount at the root with a folder, and further settings.
fn files_mount(folder: &Path, settings: Value) -> MountSettings {
    let mut settings = settings.as_object().cloned().unwrap_or_default();
    settings.insert("folder".into(), folder.to_str().expect("a path of tests is text").into());
    MountSettings { name: "files".into(), protocol: "files".into(), settings, ..plasma_mount(json!({})) }
}

/// A folder with a page and a script.
fn page() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("index.html"), "<p>hello").expect("it can be written");
    fs::write(folder.path().join("script.js"), "let x;".repeat(1000)).expect("it can be written");
    folder
}

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(server.address, &Method::GET, path, headers, "").await
}

#[tokio::test]
async fn a_page_and_the_mount_that_it_talks_to_share_a_listener() {
    let folder = page();
    let mounts = vec![files_mount(folder.path(), json!({"headers": {"x-frame-options": "DENY"}})), plasma_mount(fixture())];
    let server = TestServer::with(Setup { mounts, ..Setup::default() }).await;
    let answer = get(&server, "/", &[]).await;
    assert_eq!((answer.status, answer.body.as_ref()), (200, &b"<p>hello"[..]));
    assert_eq!((answer.header("content-type"), answer.header("x-frame-options")), ("text/html; charset=utf-8", "DENY"));
    let again = get(&server, "/", &[("if-none-match", answer.header("etag"))]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let pushed = alice(server.address).push("g1", &[mutation("c1", 1, "inc", json!({"id": "k", "by": 1}))]).await;
    assert_eq!(pushed["results"][0]["status"], "applied");
    assert_eq!(get(&server, "/healthz", &[]).await.status, 200, "what the process answers itself it answers still");
}

#[tokio::test]
async fn texts_go_out_in_gzip_and_heads_without_a_body() {
    let folder = page();
    let server = TestServer::with(Setup { mounts: vec![files_mount(folder.path(), json!({}))], ..Setup::default() }).await;
    let whole = get(&server, "/script.js", &[]).await;
    assert_eq!((whole.header("content-type"), whole.body.len()), ("text/javascript; charset=utf-8", 6000));
    let small = get(&server, "/script.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!((small.header("content-encoding"), small.header("vary")), ("gzip", "Accept-Encoding"));
    assert!(small.body.len() < 200);
    assert_eq!(small.header("etag"), whole.header("etag"));
    let head = request(server.address, &Method::HEAD, "/script.js", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "6000", 0));
    let posted = request(server.address, &Method::POST, "/script.js", &[], "x").await;
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn large_files_are_sent_piece_by_piece() {
    let folder = page();
    let video: Vec<u8> = (0..3_u32 << 20).map(|position| (position % 251) as u8).collect();
    fs::write(folder.path().join("video.webm"), &video).expect("it can be written");
    let server = TestServer::with(Setup { mounts: vec![files_mount(folder.path(), json!({}))], ..Setup::default() }).await;
    let whole = get(&server, "/video.webm", &[("accept-encoding", "gzip")]).await;
    assert_eq!((whole.header("content-type"), whole.header("content-length")), ("video/webm", "3145728"));
    assert!(whole.body == video);
    let head = request(server.address, &Method::HEAD, "/video.webm", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "3145728", 0));
}

#[tokio::test]
async fn what_changes_on_disk_is_served_at_once_and_a_reload_takes_another_folder() {
    let folder = page();
    let server = TestServer::with(Setup { mounts: vec![files_mount(folder.path(), json!({}))], ..Setup::default() }).await;
    let before = get(&server, "/", &[]).await;
    fs::write(folder.path().join("index.html"), "<p>something else").expect("it can be written");
    let after = get(&server, "/", &[("if-none-match", before.header("etag"))]).await;
    assert_eq!((after.status, after.body.as_ref()), (200, &b"<p>something else"[..]));
    let other = page();
    fs::write(other.path().join("index.html"), "<p>other").expect("it can be written");
    let reloaded = server.reload(syncline::runtime::GUEST_COMPONENT, &[files_mount(other.path(), json!({}))]).await;
    reloaded.expect("it is reloaded");
    assert_eq!(get(&server, "/", &[]).await.body.as_ref(), b"<p>other");
}

#[tokio::test]
async fn a_relative_folder_lies_beside_the_configuration() {
    let folder = page();
    let runtime = RuntimeSettings { folders_in: folder.path().to_owned(), ..Setup::default().runtime };
    fs::create_dir(folder.path().join("web")).expect("folders can be made");
    fs::write(folder.path().join("web/a.txt"), "a").expect("it can be written");
    let server = TestServer::with(Setup { mounts: vec![files_mount(Path::new("web"), json!({}))], runtime, ..Setup::default() }).await;
    assert_eq!(get(&server, "/a.txt", &[]).await.body.as_ref(), b"a");
    assert_eq!(get(&server, "/../index.html", &[]).await.status, 404);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("syncline.toml");
    fs::write(&config, "[[mount]]\nprotocol = \"files\"\nsettings = { folder = \"web\" }\n").expect("it can be written");
    let check = async || {
        let mut checking = command(&["check-config", "--config"]);
        checking.arg(&config);
        run(checking).await
    };
    let (valid, said) = check().await;
    assert!(valid && said.contains("web is not there, so none of its files is found"), "{said}");
    fs::create_dir(folder.path().join("web")).expect("folders can be made");
    let (valid, said) = check().await;
    assert!(valid && !said.contains("is not there"), "{said}");
}
