//! Blobs (docs/protocols/plasma.md, section 10): over HTTP, on both databases, and in constant memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use syncline_tests::http::{Answer, request, try_request};
use syncline_tests::plasma::{User, admin, alice, bob, mutation};
use syncline_tests::process::{Process, command, data_folder};
use syncline_tests::server::TestServer;
use syncline_tests::{DEADLINE, eventually, hex, postgres, scale, sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{serve, serve_with};

/// Bytes that are sent again and again.
const BLOCK: &[u8] = &[b'x'; 1 << 20];

async fn ask(user: User, method: &Method, hash: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers = [&[("authorization", user.token)], headers].concat();
    request(user.address, method, &format!("/sync/blob/{hash}"), &headers, body.to_vec()).await
}

async fn put(user: User, bytes: &[u8]) -> String {
    let answer = ask(user, &Method::PUT, &sha256(bytes), &[("content-type", "image/png")], bytes).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    sha256(bytes)
}

async fn get(user: User, hash: &str, headers: &[(&str, &str)]) -> Answer {
    ask(user, &Method::GET, hash, headers, b"").await
}

/// A document of the pusher with a cover.
fn save(id: u64, document: &str, hash: &str) -> Value {
    mutation("c1", id, "saveDoc", json!({"id": document, "cover": {"hash": hash, "name": "cover.png"}}))
}

/// Writes to the database behind the server's back.
fn write(server: &TestServer, sql: &str) {
    match postgres::known(server.folder()) {
        Some(schemas) => drop(schemas.query("plasma", "plasma", sql, &[])),
        None => {
            let file = server.folder().join("plasma").join("plasma.sqlite");
            let database = rusqlite::Connection::open(file).expect("the mount has a database");
            database.busy_timeout(DEADLINE).expect("it can wait");
            database.execute_batch(sql).expect("it can be written");
        }
    }
}

#[tokio::test]
async fn an_attachment_goes_from_one_user_to_those_who_see_its_row() {
    let server = serve().await;
    let (alice, bob) = (alice(server.address), bob(server.address));
    let bytes: Vec<u8> = (0..300_000_u32).map(|position| position as u8).collect();
    let hash = put(alice, &bytes).await;
    assert_eq!(get(alice, &hash, &[]).await.status, 403, "no row refers to it");
    alice.push("g1", &[save(1, "d1", &hash)]).await;
    let whole = get(alice, &hash, &[]).await;
    assert_eq!((whole.status, whole.header("content-type"), whole.header("content-length")), (200, "image/png", "300000"));
    assert!(whole.body == bytes);
    let etag = format!("\"{hash}\"");
    assert_eq!(whole.header("etag"), etag);
    let part = get(alice, &hash, &[("range", "bytes=100000-250000")]).await;
    assert_eq!((part.status, part.header("content-range"), part.header("content-length")), (206, "bytes 100000-250000/300000", "150001"));
    assert!(part.body == bytes[100_000..=250_000]);
    assert_eq!(get(alice, &hash, &[("range", "bytes=300000-")]).await.header("content-range"), "bytes */300000");
    let unchanged = get(alice, &hash, &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let head = ask(alice, &Method::HEAD, &hash, &[], b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "300000", 0));
    let refused = get(bob, &hash, &[]).await;
    assert_eq!((refused.status, refused.json()), (403, json!({"error": "forbidden", "reason": "blob-not-readable"})));
    let by_query = request(server.address, &Method::GET, &format!("/sync/blob/{hash}?auth=tok-alice"), &[], "").await;
    assert_eq!(by_query.status, 200);
    let wrong = ask(alice, &Method::PUT, &hash, &[], b"something else").await;
    assert_eq!((wrong.status, &wrong.json()["error"]), (422, &json!("blob-hash-mismatch")));
    assert_eq!(get(alice, &hash, &[]).await.body.len(), bytes.len(), "what was there stays");
    assert_eq!(ask(alice, &Method::PUT, &hash, &[], &bytes).await.status, 200);
}

#[tokio::test]
async fn the_newest_references_decide_and_older_ones_are_told_of() {
    let server = serve().await;
    let (alice, bob) = (alice(server.address), bob(server.address));
    let hash = put(alice, b"viral").await;
    alice.push("g1", &[save(1, "d1", &hash)]).await;
    let rows: Vec<_> =
        (2..=5).map(|id| mutation("c2", id - 1, "saveDoc", json!({"id": format!("d{id}"), "cover": {"hash": hash}}))).collect();
    bob.push("g2", &rows).await;
    let capped = get(alice, &hash, &[]).await;
    assert_eq!((capped.status, capped.json()), (403, json!({"error": "blob-read-auth-cap-hit", "hash": hash, "cap": 4})));
    assert_eq!(get(bob, &hash, &[]).await.status, 200);
    let exact = serve_with(json!({"readAuthMode": "exact"})).await;
    let (alice, bob) = (User { address: exact.address, ..alice }, User { address: exact.address, ..bob });
    put(alice, b"viral").await;
    alice.push("g1", &[save(1, "d1", &hash)]).await;
    bob.push("g2", &rows).await;
    assert_eq!(get(alice, &hash, &[]).await.status, 200);
}

#[tokio::test]
async fn a_signed_url_needs_no_credentials_and_takes_no_other_body() {
    let server = serve().await;
    let user = alice(server.address);
    let hash = sha256(b"signed");
    let offer = user.post(&format!("/blob/{hash}/upload-url"), &json!({"size": 6, "contentType": "text/plain"})).await.json();
    let target = |url: &Value| {
        let origin = format!("http://{}", server.address);
        url.as_str().and_then(|url| url.strip_prefix(&origin)).unwrap_or_else(|| panic!("{url} is not below {origin}")).to_owned()
    };
    let (url, headers) = (target(&offer["url"]), [("content-type", "text/plain")]);
    assert_eq!(request(server.address, &Method::PUT, &url, &headers, "signe_").await.status, 422);
    assert_eq!(request(server.address, &Method::PUT, &url, &headers, "signed!").await.json()["reason"], "bad-signature");
    assert_eq!(request(server.address, &Method::PUT, &url, &headers, "signed").await.status, 201);
    user.push("g1", &[save(1, "d1", &hash)]).await;
    let offer = user.post(&format!("/blob/{hash}/download-url"), &json!({})).await.json();
    let download = request(server.address, &Method::GET, &target(&offer["url"]), &[("range", "bytes=1-2")], "").await;
    assert_eq!((download.status, download.body.as_ref()), (206, &b"ig"[..]));
    let tampered = target(&offer["url"]).replace("exp=1", "exp=2");
    let refused = request(server.address, &Method::GET, &tampered, &[], "").await;
    assert_eq!((refused.status, refused.json()), (403, json!({"error": "forbidden", "reason": "bad-signature"})));
}

#[tokio::test]
async fn what_nobody_refers_to_is_collected_and_lost_references_come_back() {
    let server = serve_with(json!({"blobs": {"requireUploaded": true}})).await;
    let user = alice(server.address);
    let missing = user.push("g1", &[save(1, "d1", &sha256(b"used"))]).await;
    assert_eq!(missing["results"][0]["error"]["message"], format!("blob not uploaded: {}", sha256(b"used")));
    let (used, orphan) = (put(user, b"used").await, put(user, b"orphan").await);
    user.push("g1", &[save(2, "d1", &used), save(3, "d2", &used)]).await;
    let collect = async |body: Value| admin(server.address).post("/admin/gc", &body).await.json();
    assert_eq!(collect(json!({})).await["deleted"], 0, "it is too young");
    let result =
        |dry_run: bool| json!({"ok": true, "scanned": 2, "deleted": 1, "bytesFreed": 6, "kept": 1, "dryRun": dry_run, "hashes": [orphan]});
    assert_eq!(collect(json!({"graceMs": 0, "dryRun": true})).await, result(true));
    assert_eq!(collect(json!({"graceMs": 0})).await, result(false));
    let gone = get(user, &orphan, &[]).await;
    assert_eq!((gone.status, gone.json()), (404, json!({"error": "blob-not-found", "hash": orphan})));
    assert_eq!(get(user, &used, &[]).await.status, 200);
    write(&server, "DELETE FROM _plasma_blob_refs WHERE pk = '[\"d1\"]'");
    write(&server, &format!("UPDATE _plasma_blob_refs SET hash = '{orphan}' WHERE pk = '[\"d2\"]'"));
    assert_eq!(get(user, &used, &[]).await.status, 403);
    let reconcile = async |body: Value| admin(server.address).post("/admin/reconcile", &body).await.json();
    let result = |added: u64, removed: u64, missing: Value, dry_run: bool| json!({"ok": true, "scannedRows": 2, "added": added, "removed": removed, "missingBlobs": missing, "dryRun": dry_run});
    assert_eq!(reconcile(json!({"dryRun": true})).await, result(2, 1, json!([orphan]), true));
    assert_eq!(reconcile(json!({"batchSize": 1})).await, result(2, 1, json!([]), false));
    assert_eq!(reconcile(json!({"tables": ["docs"]})).await, result(0, 0, json!([]), false));
    assert_eq!(get(user, &used, &[]).await.status, 200);
}

/// A process of the shipped binary, with objects in files.
async fn start(data: &Path, limits: &str) -> Process {
    let fixture = format!("{}/conformance/plasma.fixture.json", env!("CARGO_MANIFEST_DIR"));
    let mut settings: Value = serde_json::from_str(&std::fs::read_to_string(fixture).expect("it is there")).expect("it is JSON");
    settings["blobs"] = serde_json::from_str(limits).expect("it is JSON");
    let (file, config) = (data.join("settings.json"), data.join("blobs.toml"));
    std::fs::write(&file, settings.to_string()).expect("files can be written");
    let mount = "[log]\nlevel = \"error\"\n[[mount]]\nprotocol = \"plasma\"\npath = \"/sync\"\nsettings_file = \"settings.json\"\n";
    std::fs::write(&config, mount).expect("files can be written");
    let (data, config) = (data.to_str().expect("UTF-8"), config.to_str().expect("UTF-8"));
    Process::spawn(command(&["--config", config, "--listen", "127.0.0.1:0", "--data", data])).await
}

/// The most memory that a process has had, in bytes.
fn peak_bytes(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system says how much memory it had");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Lets the most memory be counted from now on.
fn reset_peak(process: &Process) {
    std::fs::write(format!("/proc/{}/clear_refs", process.id()), "5").expect("the peak of one's own processes can be reset");
}

/// Begins an upload of so many blocks.
async fn begin_upload(address: SocketAddr, hash: &str, blocks: u64) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let length = blocks * BLOCK.len() as u64;
    let head = format!(
        "PUT /sync/blob/{hash} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: tok-alice\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it can be sent");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_blobs_come_and_go_in_constant_memory() {
    let folder = data_folder();
    let process = start(folder.path(), r#"{"maxBytes": 17179869184}"#).await;
    // A scale of 16 makes it 1 GiB.
    let blocks = 64 * u64::from(scale());
    let mut digest = Sha256::new();
    (0..blocks).for_each(|_| digest.update(BLOCK));
    let hash = hex(&digest.finalize());
    let user = alice(process.address);
    user.push("g1", &[save(1, "d1", &hash)]).await;
    reset_peak(&process);
    let before = peak_bytes(&process);
    let mut stream = begin_upload(process.address, &hash, blocks).await;
    for _ in 0..blocks {
        stream.write_all(BLOCK).await.expect("it can be sent");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let mut stream = TcpStream::connect(process.address).await.expect("the server listens");
    let head = format!("GET /sync/blob/{hash} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: tok-alice\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it can be sent");
    let (mut digest, mut buffer, mut left) = (Sha256::new(), vec![0; 256 << 10], blocks * BLOCK.len() as u64);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    while left > 0 {
        let count = stream.read(&mut buffer).await.expect("it can be read");
        assert!(count > 0, "{left} bytes are missing");
        digest.update(&buffer[..count]);
        left -= count as u64;
    }
    assert_eq!(hex(&digest.finalize()), hash);
    let more = peak_bytes(&process).saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes more than before");
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_a_crash_cuts_off_leaves_nothing() {
    let folder = data_folder();
    let temporary = folder.path().join("objects").join(".temporary");
    let drafts = || std::fs::read_dir(&temporary).map_or(0, |entries| entries.count());
    let process = start(folder.path(), "{}").await;
    let kept = put(alice(process.address), b"kept").await;
    alice(process.address).push("g1", &[save(1, "d1", &kept)]).await;
    let hash = sha256(&BLOCK.repeat(2));
    let begin = async || {
        let mut stream = begin_upload(process.address, &hash, 2).await;
        stream.write_all(BLOCK).await.expect("it can be sent");
        eventually("it is being written", || async { (drafts() == 1).then_some(()) }).await;
        stream
    };
    drop(begin().await);
    eventually("what a client broke off is gone", || async { (drafts() == 0).then_some(()) }).await;
    let _stream = begin().await;
    process.kill().await;
    assert_eq!(drafts(), 1);
    let process = start(folder.path(), "{}").await;
    assert_eq!(drafts(), 0);
    let user = alice(process.address);
    assert_eq!(get(user, &hash, &[]).await.json()["error"], "blob-not-found");
    assert_eq!(get(user, &kept, &[]).await.body, "kept");
    assert_eq!(process.terminate().await, 0);
}

/// The files of all objects of the mount.
fn object_files(data: &Path) -> Vec<PathBuf> {
    let mut folders = vec![data.join("objects").join("plasma")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is a folder").map(|entry| entry.expect("it can be listed").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files.push(entry);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// Removes the files of all objects of the mount behind the server's back.
fn lose_objects(data: &Path) {
    object_files(data).into_iter().for_each(|file| std::fs::remove_file(file).expect("files can be removed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_blob_is_never_sent_as_if_it_were_whole_and_its_bytes_mend_it() {
    let folder = data_folder();
    let process = start(folder.path(), "{}").await;
    let (user, admin) = (alice(process.address), admin(process.address));
    // Larger than a piece: its first bytes are sent before the last are read.
    let bytes: Vec<u8> = (0..700_001_u32).map(|position| position as u8).collect();
    let hash = put(user, &bytes).await;
    user.push("g1", &[save(1, "d1", &hash)]).await;
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let files = object_files(folder.path());
        assert_eq!(files.len(), 1);
        let mut file = std::fs::read(&files[0]).expect("it is there");
        change(&mut file);
        std::fs::write(&files[0], file).expect("it can be written");
    };
    let failed = || async {
        let text = request(process.address, &Method::GET, "/metrics", &[], "").await.body;
        let text = String::from_utf8(text.to_vec()).expect("it is text");
        text.lines().find_map(|line| line.strip_prefix("syncline_objects_failed_total{mount=\"plasma\"} ")?.parse::<u32>().ok())
    };
    assert_eq!(failed().await, Some(0));
    damage(&|file| *file.last_mut().expect("it has bytes") ^= 1);
    let path = format!("/sync/blob/{hash}");
    let cut = try_request(process.address, &Method::GET, &path, &[("authorization", user.token)], Vec::new().into()).await;
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(failed().await, Some(1));
    assert_eq!(get(user, &hash, &[("range", "bytes=0-9")]).await.body, bytes[..10], "a part that can be read is sent");
    assert_eq!(ask(user, &Method::PUT, &hash, &[], &bytes).await.status, 201, "its bytes mend it");
    assert!(get(user, &hash, &[]).await.body == bytes);
    assert_eq!(ask(user, &Method::PUT, &hash, &[], &bytes).await.status, 200, "it is whole");
    // What was replaced goes when nobody waits for it any more.
    let alone = || async { (object_files(folder.path()).len() == 1).then_some(()) };
    eventually("the damaged file goes", alone).await;
    // A file that lost its end.
    damage(&|file| file.truncate(file.len() - 1));
    assert_eq!(get(user, &hash, &[]).await.status, 503);
    let reconciled = admin.post("/admin/reconcile", &json!({})).await;
    let names = json!([hash]);
    assert_eq!((reconciled.status, &reconciled.json()["missingBlobs"], &reconciled.json()["damagedBlobs"]), (200, &names, &names));
    assert_eq!(ask(user, &Method::PUT, &hash, &[], &bytes).await.status, 201);
    assert!(get(user, &hash, &[]).await.body == bytes);
    assert_eq!(admin.post("/admin/reconcile", &json!({})).await.json()["missingBlobs"], json!([]));
    eventually("nothing is left of the damaged ones", alone).await;
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_in_memory_are_not_read_again_and_not_given_to_others() {
    let folder = data_folder();
    let process = start(folder.path(), r#"{"cacheMaxBytes": 1048576}"#).await;
    let (alice, bob) = (alice(process.address), bob(process.address));
    let (read, unread) = (put(alice, b"read").await, put(alice, b"unread").await);
    alice.push("g1", &[save(1, "d1", &read), save(2, "d2", &unread)]).await;
    assert_eq!(get(alice, &read, &[]).await.body, "read");
    lose_objects(folder.path());
    assert_eq!(get(alice, &unread, &[]).await.status, 404);
    assert_eq!(get(alice, &read, &[]).await.body, "read");
    assert_eq!(get(alice, &read, &[("range", "bytes=1-2")]).await.body, "ea");
    assert_eq!(get(bob, &read, &[]).await.status, 403);
    assert_eq!(process.terminate().await, 0);
}
