//! Disks that are full or may not be written under the shipped binary, and mounts at their quota. What was acknowledged
//! is kept; what cannot be kept is refused, and the service resumes by itself; what may not be written is refused by
//! name at the start.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline_tests::process::{Process, binary, command, data_folder, fails, run, with_compiled_code};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::{Setup, TestServer, compilation_cache};
use syncline_tests::socket::{Received, Socket};
use syncline_tests::{DEADLINE, eventually};
use tempfile::TempDir;
use tokio::process::Command;

use crate::documents::{check_clocks, create, files, open, open_at, saved, stored, told_to_come_back};

/// Nobody, where there is such a user; any id without rights will do.
const NOBODY: u32 = 65_534;

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// No file of a process may grow beyond so many bytes; none: without limit again.
async fn limit_files(process: &Process, bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let arguments = ["--pid", &process.id().to_string(), &format!("--fsize={limit}:unlimited")];
    let set = Command::new("prlimit").args(arguments).status().await.expect("prlimit of util-linux can be run");
    assert!(set.success());
}

/// Connects and writes until an update is acknowledged.
async fn saved_at_last(process: &Process, author: &Author, snapshot: &Snapshot, clock: u64, content: &[u8]) {
    let trying = async {
        loop {
            let (mut writer, _) = open(process.address, "d").await;
            writer.send(&author.update("d", &snapshot.id, clock, content)).await;
            if let Received::Json(reply) = writer.receive().await {
                return assert_eq!((&reply["type"], &reply["clock"]), (&json!("update-saved"), &json!(clock)));
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.expect("the service resumes");
}

/// Asks for the readiness until it is this.
async fn readiness_becomes(process: &Process, status: u16) {
    eventually(&format!("{status} of /readyz"), async || (process.status("/readyz").await == status).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_grow_refuse_retryably_and_the_service_resumes() {
    let folder = data_folder();
    let author = Author::new(1);
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    for clock in 0..5 {
        writer.send(&author.update("d", &snapshot.id, clock, &[1; 3000])).await;
        saved(&mut writer, clock).await;
    }
    let (mut reader, _) = open(process.address, "d").await;
    assert_eq!(process.status("/readyz").await, 200);

    let log = folder.path().join("secsync/secsync.sqlite-wal");
    limit_files(&process, Some(length(&log))).await;
    let mut other = 0;
    for content in [&[2; 3000][..], &[3; 300 << 10]] {
        writer.send(&author.update("d", &snapshot.id, 5, content)).await;
        told_to_come_back(&mut writer).await;
        let document;
        (writer, document) = open(process.address, "d").await;
        assert_eq!(document["updates"].as_array().map(Vec::len), Some(5), "it can be read, and nothing more is in it");
        // A new document cannot be made.
        other += 1;
        let mut refused = Socket::connect(process.address, &format!("/secsync/new-{other}?sessionKey=k")).await;
        told_to_come_back(&mut refused).await;
        readiness_becomes(&process, 503).await;
        assert_eq!(process.status("/healthz").await, 200);
    }
    limit_files(&process, None).await;
    readiness_becomes(&process, 200).await;
    saved_at_last(&process, &author, &snapshot, 5, &[4; 3000]).await;
    saved_at_last(&process, &author, &snapshot, 6, &[5; 300 << 10]).await;
    for clock in 5..7 {
        assert_eq!(reader.json_of("update").await["publicData"]["clock"], clock, "readers got nothing in between");
    }
    process.kill().await;
    let updates = stored(folder.path(), "secsync", "d");
    check_clocks(&updates);
    assert_eq!(updates.len(), 7);
}

/// A command that sees another mount over the data folder, for this process alone; it goes with it. `mount` is shell, in
/// which `$0` is the folder.
fn on_a_mount_of_its_own(data: &Path, mount: &str, program: Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("{mount} && exec \"$@\"")]).arg(data);
    command.arg(program.as_std().get_program()).args(program.as_std().get_args()).kill_on_drop(true);
    command
}

/// The same with an empty disk of some size.
fn on_a_disk_of_its_own(data: &Path, size: &str, program: Command) -> Command {
    let cache = compilation_cache();
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && ln -s '{}' \"$0/cache\"", cache.display());
    on_a_mount_of_its_own(data, &mount, program)
}

/// Whether this system lets a process mount something for itself. Where it does not, other tests stand for it.
async fn mounts_are_allowed(data: &Path) -> bool {
    let (allowed, why) = run(on_a_disk_of_its_own(data, "1m", Command::new("true"))).await;
    if !allowed {
        eprintln!("this system lets nobody mount a disk of their own: {why}");
    }
    allowed
}

fn serve_command(data: &Path) -> Command {
    command(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off", "--data", data.to_str().expect("paths are text")])
}

/// Writes zeros until nothing more fits.
fn fill_up(path: &Path) {
    let mut file = fs::File::create(path).expect("files can be made");
    for chunk_bytes in [1 << 16, 1 << 12, 1] {
        let full = loop {
            if let Err(error) = file.write_all(&vec![0; chunk_bytes]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_space_refuses_retryably_and_the_service_resumes() {
    let folder = data_folder();
    if !mounts_are_allowed(folder.path()).await {
        return;
    }
    let process = Process::spawn(on_a_disk_of_its_own(folder.path(), "16m", serve_command(folder.path()))).await;
    // The disk as the process sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", process.id(), folder.path().display()));
    let author = Author::new(1);
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    let mut clock = 0;
    for round in 0..3 {
        let filler = disk.join("filler");
        fill_up(&filler);
        let mut refused = 0;
        // A log may have some room still that it uses again.
        while refused < 3 {
            let content = vec![1; if refused == 1 { 300 << 10 } else { 3_000 }];
            writer.send(&author.update("d", &snapshot.id, clock, &content)).await;
            match writer.receive().await {
                Received::Json(reply) => {
                    assert_eq!((&reply["type"], &reply["clock"]), (&json!("update-saved"), &json!(clock)));
                    clock += 1;
                }
                other => {
                    assert_eq!(other, Received::Close(1013));
                    refused += 1;
                    let document;
                    (writer, document) = open(process.address, "d").await;
                    assert_eq!(document["updates"].as_array().map(Vec::len), usize::try_from(clock).ok(), "round {round}");
                }
            }
        }
        readiness_becomes(&process, 503).await;
        fs::remove_file(&filler).expect("it can be removed");
        readiness_becomes(&process, 200).await;
        for bytes in [3_000, 300 << 10] {
            saved_at_last(&process, &author, &snapshot, clock, &vec![2; bytes]).await;
            clock += 1;
        }
        (writer, _) = open(process.address, "d").await;
    }
    let (_, document) = open(process.address, "d").await;
    let clocks: Vec<_> =
        document["updates"].as_array().expect("a list").iter().map(|update| update["publicData"]["clock"].as_u64()).collect();
    assert_eq!(clocks, (0..clock).map(Some).collect::<Vec<_>>());
    assert!(objects_of(&disk) <= 3, "what was refused leaves nothing behind");
    assert_eq!(process.terminate().await, 0);
}

/// How many objects lie on a disk.
fn objects_of(data: &Path) -> usize {
    files(&data.join("objects"), ".object").len()
}

/// A limit far below what the server writes at its start and in its logs: it goes on or refuses, but does not die of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_space_is_refused_by_name() {
    let folder = data_folder();
    let mut limited = Command::new("prlimit");
    limited.arg("--fsize=1000").arg(binary()).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    fails(limited, &[folder.path().to_str().expect("paths are text")]).await;
    // Nothing half made is in the way afterwards.
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    create(process.address, "secsync", "d", &Author::new(1)).await;
    assert_eq!(process.terminate().await, 0);
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

/// The shipped binary as a user without rights, whatever the tests run as.
fn as_nobody(program: &Path, data: &Path) -> Command {
    let mut command = command(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off", "--data"]);
    command.arg(data);
    if is_root() {
        let mut dropped = Command::new(program);
        dropped.args(command.as_std().get_args()).env_clear().uid(NOBODY).gid(NOBODY).kill_on_drop(true);
        return dropped;
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("this is Linux").uid() == 0
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("modes can be set");
}

/// A folder, a program and an empty data folder that a user without rights can reach.
fn place_for_nobody() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    let (program, data) = (folder.path().join("syncline"), folder.path().join("data"));
    // The binary may lie where only its owner may go.
    if fs::hard_link(binary(), &program).is_err() {
        fs::copy(binary(), &program).expect("the binary is built");
    }
    fs::create_dir(&data).expect("folders can be made");
    if is_root() {
        chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may give folders away");
    }
    (folder, program, data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_written_is_refused_by_name() {
    let (_folder, program, data) = place_for_nobody();
    let process = Process::spawn(as_nobody(&program, &data)).await;
    let author = Author::new(1);
    let (_, snapshot) = create(process.address, "secsync", "d", &author).await;
    assert_eq!(process.terminate().await, 0);
    for (what, mode) in [
        ("", 0o555),
        ("secsync/secsync.sqlite", 0o444),
        ("secsync/secsync.sqlite", 0o000),
        ("syncline/jobs.sqlite", 0o444),
        ("keyvalue.sqlite", 0o444),
        ("objects/.temporary", 0o555),
        ("objects", 0o555),
        ("objects", 0o000),
        ("lock", 0o444),
        ("format.json", 0o000),
    ] {
        let path = data.join(what);
        let before = fs::metadata(&path).expect("it is there").mode();
        set_mode(&path, mode);
        let named = if what == "lock" || what == "format.json" { &data } else { &path };
        let refused = as_nobody(&program, &data);
        fails(refused, &[named.to_str().expect("paths are text")]).await;
        set_mode(&path, before);
    }
    let process = Process::spawn(as_nobody(&program, &data)).await;
    let (mut socket, document) = open(process.address, "d").await;
    assert_eq!(document["snapshot"], snapshot.frame);
    socket.send(&author.update("d", &snapshot.id, 0, b"")).await;
    saved(&mut socket, 0).await;
}

#[tokio::test]
async fn a_read_only_disk_is_refused_by_name() {
    let folder = data_folder();
    if !mounts_are_allowed(folder.path()).await {
        return;
    }
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (_, snapshot) = create(process.address, "secsync", "d", &Author::new(1)).await;
    // With a log, which would have to be brought home.
    process.kill().await;
    let read_only = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\"";
    let refused = on_a_mount_of_its_own(folder.path(), read_only, serve_command(folder.path()));
    fails(refused, &[folder.path().to_str().expect("paths are text"), "Read-only file system"]).await;
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    assert_eq!(open(process.address, "d").await.1["snapshot"], snapshot.frame);
}

/// The data folder goes away under the server: what it would write then nobody would find again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_gone_takes_no_writes_until_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, away) = (folder.path().join("data"), folder.path().join("away"));
    with_compiled_code(&data);
    let author = Author::new(1);
    let process = Process::start(&data, &["--log-level", "off"]).await;
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    writer.send(&author.update("d", &snapshot.id, 0, b"")).await;
    saved(&mut writer, 0).await;
    fs::rename(&data, &away).expect("folders can be moved");
    for content in [&[1; 100][..], &[2; 300 << 10]] {
        writer.send(&author.update("d", &snapshot.id, 1, content)).await;
        told_to_come_back(&mut writer).await;
        // It may be read still, or not any more.
        writer = Socket::connect(process.address, "/secsync/d?sessionKey=k").await;
        if let Received::Close(code) = writer.receive().await {
            assert_eq!(code, 1013);
            break;
        }
    }
    readiness_becomes(&process, 503).await;
    assert!(!data.exists(), "nothing new is made in its place");
    fs::rename(&away, &data).expect("folders can be moved");
    saved_at_last(&process, &author, &snapshot, 1, b"again").await;
    readiness_becomes(&process, 200).await;
    process.kill().await;
    assert_eq!(stored(&data, "secsync", "d").len(), 2);
}

/// The value of a series of `/metrics`.
async fn metric(process: &Process, series: &str) -> u64 {
    let text = process.get("/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series} in {text}"));
    value.trim().parse().expect("a number")
}

/// Two mounts, one of them with a quota.
fn with_quota(folder: &Path, quota_bytes: u64) -> String {
    let path = folder.join("config.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[[mount]]\nprotocol = \"secsync\"\nquota_bytes = {quota_bytes}\n[[mount]]\nname = \"free\"\nprotocol = \"secsync\"\npath = \"/free\"\n"
    );
    fs::write(&path, text).expect("files can be written");
    path.to_str().expect("paths are text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_at_its_quota_refuses_retryably_and_other_mounts_do_not_notice() {
    let folder = data_folder();
    let author = Author::new(1);
    let config = with_quota(folder.path(), 1_000_000);
    let process = Process::start(folder.path(), &["--config", &config, "--log-level", "off"]).await;
    let (mut free, free_snapshot) = create(process.address, "free", "d", &author).await;
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    let mut clock = 0;
    let refused = loop {
        // Every other one is an object.
        let content = vec![1; if clock % 2 == 0 { 30_000 } else { 270 << 10 }];
        writer.send(&author.update("d", &snapshot.id, clock, &content)).await;
        match writer.receive().await {
            Received::Json(reply) => assert_eq!((&reply["type"], &reply["clock"]), (&json!("update-saved"), &json!(clock))),
            other => break other,
        }
        clock += 1;
    };
    assert_eq!(refused, Received::Close(1013));
    assert!((3..20).contains(&clock), "{clock} updates");
    // Small ones end as well, once the large one that was refused is out of the way.
    let (_, document) = open(process.address, "d").await;
    assert_eq!(document["updates"].as_array().map(Vec::len), usize::try_from(clock).ok(), "it can be read");
    for free_clock in 0..20 {
        free.send(&author.update("d", &free_snapshot.id, free_clock, &vec![1; 100_000])).await;
        saved(&mut free, free_clock).await;
    }
    assert_eq!(process.status("/readyz").await, 200, "the disk is not full");
    let used_bytes = metric(&process, "syncline_quota_used_bytes{mount=\"secsync\"}").await;
    assert!((700_000..1_300_000).contains(&used_bytes), "{used_bytes} of 1000000");
    assert_eq!(metric(&process, "syncline_quota_bytes{mount=\"free\"}").await, 0);

    with_quota(folder.path(), 10_000_000);
    process.signal("HUP").await;
    saved_at_last(&process, &author, &snapshot, clock, &vec![1; 270 << 10]).await;
    assert_eq!(metric(&process, "syncline_quota_bytes{mount=\"secsync\"}").await, 10_000_000);
    let (_, document) = open_at(process.address, "free", "d").await;
    assert_eq!(document["updates"].as_array().map(Vec::len), Some(20));
}
