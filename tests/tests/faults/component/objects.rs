//! Bodies that go past the component: objects by their keys, whole and in parts, and what is left of those that never were whole.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use serde_json::json;
use syncline::server::limits::Limits;
use syncline::storage::StorageError;
use syncline::storage::files::FileObjects;
use syncline::storage::{ObjectInfo, ObjectWriter, Objects, OpenObject};
use syncline_tests::http::{Answer, request};
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::{DEADLINE, eventually, sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::requests::finish;
use super::setup;

/// More than one piece, and no multiple of any.
const LARGE_BYTES: usize = 700_001;

/// A server whose objects are files.
async fn server_on_files(limits: Limits) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = FileObjects::open(folder.path()).await.expect("objects");
    let setup = Setup { objects: Some(Arc::new(objects)), limits, ..setup(json!({}), None) };
    (TestServer::with(setup).await, folder)
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|position| (position % 253) as u8).collect()
}

async fn put(address: SocketAddr, target: &str, body: Vec<u8>) -> String {
    let answer = request(address, &Method::PUT, &format!("/faulty/object/{target}"), &[], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body.to_vec()).expect("text")
}

async fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, &Method::GET, &format!("/faulty/object/{target}"), &[], "").await
}

/// The files of a folder of objects that are not objects (yet).
fn drafts(folder: &Path) -> usize {
    std::fs::read_dir(folder.join(".temporary")).expect("the folder is there").count()
}

async fn no_drafts(folder: &Path) {
    eventually("what was written is gone", || async { (drafts(folder) == 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_becomes_an_object_and_an_object_a_body() {
    let (server, folder) = server_on_files(Limits::default()).await;
    let large = content(LARGE_BYTES);
    let stored = |key: &str, bytes: &[u8], existed: bool| format!("stored {key} {} {} {existed}", bytes.len(), sha256(bytes));
    assert_eq!(put(server.address, "large", large.clone()).await, stored("large", &large, false));
    assert_eq!(put(server.address, &format!("large?sha={}", sha256(&large)), large.clone()).await, stored("large", &large, true));
    assert_eq!(put(server.address, "empty", Vec::new()).await, stored("empty", b"", false));
    assert_eq!(put(server.address, "small", b"small".to_vec()).await, stored("small", b"small", false));
    for (target, expected) in [
        ("large", &large[..]),
        ("small", b"small"),
        ("empty", b""),
        ("large?from=200000&bytes=300000", &large[200_000..500_000]),
        ("large?from=700000", &large[700_000..]),
        ("small?from=1&bytes=3", b"mal"),
        ("small?from=9", b""),
    ] {
        let answer = get(server.address, target).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "a/b"), "{target}");
        assert_eq!(answer.header("content-length"), expected.len().to_string(), "{target}");
        assert!(answer.body == expected, "{target}");
        let head = request(server.address, &Method::HEAD, &format!("/faulty/object/{target}"), &[], "").await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, &*expected.len().to_string(), 0), "{target}");
    }
    let gone = get(server.address, "none").await;
    assert_eq!((gone.status, gone.body.len(), gone.header("content-type")), (404, 0, ""));
    assert_eq!(drafts(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_right_leaves_nothing() {
    let (server, folder) = server_on_files(Limits::default()).await;
    let large = content(LARGE_BYTES);
    assert_eq!(put(server.address, &format!("k?sha={}", sha256(b"other")), large).await, "wrong hash");
    assert_eq!(put(server.address, "k?max=4", b"hello".to_vec()).await, "too large");
    // Without a size only counting tells.
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let head = "PUT /faulty/object/k?max=4 HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").as_bytes()).await.expect("it can be sent");
    assert_eq!(finish(stream).await, (200, "too large".into()));
    no_drafts(folder.path()).await;
    assert_eq!(get(server.address, "k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_or_stalls_leaves_nothing() {
    let (server, folder) = server_on_files(Limits { stall_timeout_ms: 500, ..Limits::default() }).await;
    let begin = async |bytes: usize| {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        let head = format!("PUT /faulty/object/k HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {LARGE_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("it can be sent");
        stream.write_all(&content(bytes)).await.expect("it can be sent");
        eventually("it is being written", || async { (drafts(folder.path()) == 1).then_some(()) }).await;
        stream
    };
    drop(begin(600_000).await);
    no_drafts(folder.path()).await;
    assert_eq!(finish(begin(600_000).await).await.0, 408);
    no_drafts(folder.path()).await;
    assert_eq!(get(server.address, "k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_first_sends_only_what_is_wanted() {
    let (server, _folder) = server_on_files(Limits::default()).await;
    let ask = async |query: &str| {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        let head = format!(
            "PUT /faulty/object/k{query} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it can be sent");
        let mut first = [0; 12];
        let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut first)).await;
        read.expect("it is answered within the deadline").expect("it can be read");
        (stream, String::from_utf8_lossy(&first).into_owned())
    };
    assert_eq!(ask("?max=4").await.1, "HTTP/1.1 200", "it is told that the body is too large before it sends it");
    let (mut stream, first) = ask("").await;
    assert_eq!(first, "HTTP/1.1 100");
    stream.write_all(b"hello").await.expect("it can be sent");
    let mut rest = String::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut rest)).await;
    read.expect("it is answered within the deadline").expect("it can be read");
    assert!(rest.contains(&format!("stored k 5 {} false", sha256(b"hello"))), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_or_half_read_disturbs_nobody() {
    let (server, _folder) = server_on_files(Limits::default()).await;
    let large = content(4 << 20);
    put(server.address, "k", large.clone()).await;
    let mut reading = TcpStream::connect(server.address).await.expect("the server listens");
    reading.write_all(b"GET /faulty/object/k HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.expect("it can be sent");
    let mut beginning = vec![0; 4096];
    reading.read_exact(&mut beginning).await.expect("it begins");
    let left = TcpStream::connect(server.address).await.expect("the server listens");
    drop(left);
    put(server.address, "k", b"other".to_vec()).await;
    assert_eq!(get(server.address, "k").await.body, "other");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, reading.read_to_end(&mut rest)).await;
    read.expect("it ends within the deadline").expect("it can be read");
    assert!(rest.ends_with(&large[large.len() - 4096..]), "whoever reads goes on with what was opened");
}

/// Objects that are away after some pieces, and count how often they are opened.
struct Failing {
    inner: FileObjects,
    pieces: usize,
    /// None: they cannot be opened.
    opened: Option<AtomicUsize>,
}

struct FailingWriter {
    inner: Box<dyn ObjectWriter>,
    pieces: usize,
}

#[async_trait::async_trait]
impl ObjectWriter for FailingWriter {
    async fn write(&mut self, piece: bytes::Bytes) -> Result<(), StorageError> {
        self.pieces = self.pieces.checked_sub(1).ok_or_else(|| StorageError::Unavailable("gone".into()))?;
        self.inner.write(piece).await
    }

    async fn finish(self: Box<Self>, sha256: &str) -> Result<ObjectInfo, StorageError> {
        if self.pieces == 0 {
            return Err(StorageError::Unavailable("gone".into()));
        }
        self.inner.finish(sha256).await
    }
}

#[async_trait::async_trait]
impl Objects for Failing {
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        self.inner.head(mount, key).await
    }
    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<bytes::Bytes, StorageError> {
        self.inner.read(mount, key, range).await
    }
    async fn write(&self, mount: &str, key: &str, content_type: &str, content: bytes::Bytes) -> Result<ObjectInfo, StorageError> {
        self.inner.write(mount, key, content_type, content).await
    }
    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        let opened = self.opened.as_ref().ok_or_else(|| StorageError::Unavailable("gone".into()))?;
        opened.fetch_add(1, Ordering::Relaxed);
        self.inner.open(mount, key, range).await
    }
    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        Ok(Box::new(FailingWriter { inner: self.inner.create(mount, key, content_type).await?, pieces: self.pieces }))
    }
    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.inner.delete(mount, key).await
    }
    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        self.inner.list(mount, prefix, after, limit).await
    }
    async fn ready(&self) -> Result<(), StorageError> {
        self.inner.ready().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_told_to_the_component_and_leaves_nothing() {
    for pieces in [0, 1] {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = FileObjects::open(folder.path()).await.expect("objects");
        let objects: Option<Arc<dyn Objects>> = Some(Arc::new(Failing { inner, pieces, opened: None }));
        let server = TestServer::with(Setup { objects, ..setup(json!({}), None) }).await;
        assert_eq!(put(server.address, "k", b"hello".to_vec()).await, "unavailable");
        no_drafts(folder.path()).await;
        assert_eq!(get(server.address, "k").await.status, 503);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_of_a_mount_holds_for_uploads() {
    let mut setup = setup(json!({}), None);
    setup.mounts[0].quota_bytes = Some(1_000_000);
    let server = TestServer::with(setup).await;
    assert!(put(server.address, "a", content(600_000)).await.starts_with("stored"));
    assert_eq!(put(server.address, "b", content(600_000)).await, "unavailable");
    assert!(put(server.address, "a", content(500_000)).await.starts_with("stored"), "one in the place of another");
    assert_eq!(put(server.address, "b", content(600_000)).await, "unavailable");
    assert!(put(server.address, "b", content(100_000)).await.starts_with("stored"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_may_be_kept_in_memory_are_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = FileObjects::open(folder.path()).await.expect("objects");
    let objects = Arc::new(Failing { inner, pieces: usize::MAX, opened: Some(AtomicUsize::new(0)) });
    let opened = || objects.opened.as_ref().map_or(0, |opened| opened.swap(0, Ordering::Relaxed));
    let keeping = Some(objects.clone() as Arc<dyn Objects>);
    let server = TestServer::with(Setup { objects: keeping, ..setup(json!({"object_cache_bytes": 1 << 20}), None) }).await;
    let (small, large) = (content(200_000), content(300_000));
    put(server.address, "small", small.clone()).await;
    put(server.address, "large", large).await;
    for _ in 0..3 {
        assert!(get(server.address, "small").await.body == small);
    }
    assert_eq!(get(server.address, "small?from=7&bytes=3").await.body, small[7..10]);
    assert_eq!(opened(), 1);
    put(server.address, "small", b"other".to_vec()).await;
    assert_eq!(get(server.address, "small").await.body, "other");
    assert_eq!(opened(), 1);
    for _ in 0..2 {
        assert_eq!(get(server.address, "large").await.body.len(), 300_000);
    }
    assert_eq!(opened(), 2, "more than a quarter");
}
