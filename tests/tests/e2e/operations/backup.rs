//! Backup and restore with the shipped binary.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};
use syncline_tests::process::{Process, command, with_compiled_code};
use syncline_tests::secsync::Author;
use syncline_tests::socket::Socket;

use crate::cli::{data_folder, enter, fails, folder, path_of, run, write};
use crate::support::*;

/// Larger than what lies in rows.
const OBJECT_BYTES: usize = 300 << 10;

fn content(number: u64) -> Vec<u8> {
    vec![u8::try_from(number % 251).expect("small"); if number % 4 == 3 { OBJECT_BYTES } else { 40 }]
}

/// How far a writer is, and when it is to end.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn goes_on(&self) -> bool {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        !self.stop.load(Ordering::SeqCst)
    }
}

/// Saves updates of a document one after the other; gives the frames in the order of their clocks.
async fn write_updates(address: SocketAddr, document: String, author: Author, progress: Arc<Progress>) -> Vec<Value> {
    let mut socket = Socket::connect(address, &place(&document, "k")).await;
    socket.json_of("document").await;
    let snapshot = author.first_snapshot(&document, b"first");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    let mut updates = Vec::new();
    for clock in 0.. {
        let update = author.update(&document, &snapshot.id, clock, &content(clock));
        save(&mut socket, &update).await;
        updates.push(update);
        if !progress.goes_on() {
            break;
        }
    }
    updates
}

/// Saves large snapshots of a document, each of which gives up the one before it; gives all frames.
async fn write_snapshots(address: SocketAddr, document: String, author: Author, progress: Arc<Progress>) -> Vec<Value> {
    let mut socket = Socket::connect(address, &place(&document, "k")).await;
    socket.json_of("document").await;
    let mut last = author.first_snapshot(&document, &content(3));
    let mut frames = Vec::new();
    loop {
        assert_eq!(ask(&mut socket, &last.frame).await, snapshot_saved(&last));
        frames.push(last.frame.clone());
        if !progress.goes_on() {
            return frames;
        }
        last = author.snapshot_on(&last, &BTreeMap::new(), &content(3));
    }
}

async fn reach(progress: &Progress, count: u64) {
    eventually("progress under load", || async { (progress.acknowledged() >= count).then_some(()) }).await;
}

async fn backup(data: &Path, to: &Path) {
    let (data, to) = (data.to_str().expect("text"), to.to_str().expect("text"));
    let (output, text) = run(&["backup", "--data", data, "--to", to], &[]).await;
    assert!(output.status.success() && text.contains(to), "{text}");
}

async fn restore(from: &Path, data: &Path) {
    let (from, data) = (from.to_str().expect("text"), data.to_str().expect("text"));
    let (output, text) = run(&["restore", "--from", from, "--data", data], &[]).await;
    assert!(output.status.success() && text.contains(data), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_what_was_acknowledged_before_and_has_no_holes() {
    let (base, data) = (folder(), data_folder());
    let settings = json!({"retention": {"superseded_snapshots": 0}});
    let config = write(&base, "a.json", &json!({"mount": [{"protocol": "secsync", "settings": settings}]}).to_string());
    let process = Process::start(data.path(), &["serve", "--config", &config]).await;
    let mut writers = Vec::new();
    for number in 0..3_u8 {
        let (document, progress) = (format!("updates-{number}"), Arc::new(Progress::default()));
        let writing = tokio::spawn(write_updates(process.address, document.clone(), Author::new(number), progress.clone()));
        writers.push((document, progress, writing));
    }
    let (document, snapshots) = ("snapshots".to_owned(), Arc::new(Progress::default()));
    let snapshooting = tokio::spawn(write_snapshots(process.address, document.clone(), Author::new(9), snapshots.clone()));

    let mut backups = Vec::new();
    for round in 0..2_u64 {
        for (_, progress, _) in &writers {
            reach(progress, 8 * (round + 1)).await;
        }
        reach(&snapshots, 3 * (round + 1)).await;
        let before: Vec<_> = writers.iter().map(|(_, progress, _)| progress.acknowledged()).collect();
        let before_snapshots = snapshots.acknowledged();
        let to = base.path().join(format!("backup-{round}"));
        backup(data.path(), &to).await;
        backups.push((to, before, before_snapshots));
    }
    let mut written = Vec::new();
    snapshots.stop.store(true, Ordering::SeqCst);
    writers.iter().for_each(|(_, progress, _)| progress.stop.store(true, Ordering::SeqCst));
    for (document, _, writing) in writers {
        written.push((document, writing.await.expect("it writes to its end")));
    }
    let snapshot_frames = snapshooting.await.expect("it writes to its end");
    assert_eq!(process.terminate().await, 0);
    // What is restored rests on the backup alone.
    drop(data);

    for (round, (from, before, before_snapshots)) in backups.into_iter().enumerate() {
        let restored = base.path().join(format!("restored-{round}"));
        with_compiled_code(&restored);
        restore(&from, &restored).await;
        let process = Process::start(&restored, &["serve", "--config", &config]).await;
        for ((name, updates), acknowledged) in written.iter().zip(before) {
            let (_, found) = enter(&process, &place(name, "k")).await;
            let found = found["updates"].as_array().expect("a list").clone();
            assert!(u64::try_from(found.len()).expect("small") >= acknowledged, "{name}: {} of {acknowledged}", found.len());
            assert_eq!(found, updates[..found.len()], "{name} is a beginning of what was written");
        }
        let (_, found) = enter(&process, &place(&document, "k")).await;
        let index = snapshot_frames.iter().position(|frame| *frame == found["snapshot"]).expect("one of those that were saved");
        assert!(index + 1 >= usize::try_from(before_snapshots).expect("small"));
        // It goes on from there.
        let (mut socket, _) = enter(&process, &place("new", "k")).await;
        let snapshot = Author::new(1).first_snapshot("new", &content(3));
        assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
        assert_eq!(process.terminate().await, 0);
    }
}

#[tokio::test]
async fn without_a_server_the_data_folder_is_backed_up_all_the_same() {
    let (base, data) = (folder(), data_folder());
    let process = Process::start(data.path(), &[]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let snapshot = Author::new(1).first_snapshot("doc", &content(3));
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    process.kill().await;
    let (to, restored) = (base.path().join("deep/backup"), base.path().join("restored"));
    backup(data.path(), &to).await;
    with_compiled_code(&restored);
    restore(&to, &restored).await;
    let process = Process::start(&restored, &[]).await;
    assert_eq!(enter(&process, &place("doc", "k")).await.1["snapshot"], snapshot.frame);
    // Data and backup stay what they are.
    assert_eq!(process.terminate().await, 0);
    let process = Process::start(data.path(), &[]).await;
    assert_eq!(enter(&process, &place("doc", "k")).await.1["snapshot"], snapshot.frame);
}

#[tokio::test]
async fn a_backup_into_a_used_folder_or_of_nothing_is_refused() {
    let (base, data) = (folder(), data_folder());
    let missing = base.path().join("missing");
    let to = base.path().join("to");
    let to = to.to_str().expect("text");
    fails(&["backup", "--data", missing.to_str().expect("text"), "--to", to], &["missing", "no data folder"]).await;
    assert!(!missing.exists());
    write(&base, "something", "");
    fails(&["backup", "--data", path_of(&data), "--to", path_of(&base)], &[path_of(&base), "is not empty"]).await;
    let process = Process::start(data.path(), &[]).await;
    fails(&["backup", "--data", path_of(&data), "--to", path_of(&base)], &[path_of(&base), "is not empty"]).await;
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test]
async fn what_is_no_whole_backup_is_not_restored_and_data_is_never_overwritten() {
    let (base, data) = (folder(), data_folder());
    let process = Process::start(data.path(), &[]).await;
    let from = base.path().join("backup");
    backup(data.path(), &from).await;
    let (from_text, into) = (from.to_str().expect("text"), base.path().join("into"));
    let into_text = into.to_str().expect("text");
    let arguments = |from, data| ["restore", "--from", from, "--data", data];
    fails(&arguments(from_text, path_of(&data)), &[path_of(&data), "in use by another process"]).await;
    assert_eq!(process.terminate().await, 0);
    fails(&arguments(from_text, path_of(&data)), &[path_of(&data), "is not empty"]).await;
    fails(&arguments(path_of(&base), into_text), &[path_of(&base), "is not a backup", "manifest.json"]).await;

    let manifest = from.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("it is there");
    std::fs::write(&manifest, text.replace("\"format_version\": 1", "\"format_version\": 7")).expect("it can be written");
    fails(&arguments(from_text, into_text), &["manifest.json", "backup format 7", "newer version", "up to 1"]).await;
    std::fs::write(&manifest, &text).expect("it can be written");
    let database = from.join("data/secsync/secsync.sqlite");
    let whole = std::fs::read(&database).expect("it is there");
    std::fs::write(&database, &whole[..whole.len() - 1]).expect("it can be written");
    fails(&arguments(from_text, into_text), &["secsync.sqlite", "damaged"]).await;
    assert!(!into.exists());
    std::fs::write(&database, &whole).expect("it can be written");

    with_compiled_code(&into);
    restore(&from, &into).await;
    // As a restore that was cut short leaves it.
    std::fs::write(into.join("restore.unfinished"), "").expect("it can be written");
    fails(&["serve", "--data", into_text, "--listen", "127.0.0.1:0"], &[into_text, "restore", "not finished"]).await;
}

#[tokio::test]
async fn a_second_backup_at_once_is_refused_and_one_that_nobody_waits_for_leaves_nothing() {
    let (base, data) = (folder(), data_folder());
    let process = Process::start(data.path(), &[]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let author = Author::new(1);
    let snapshot = author.first_snapshot("doc", b"x");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    for clock in 0..12 {
        save(&mut socket, &author.update("doc", &snapshot.id, clock, &vec![7; 2 << 20])).await;
    }
    // Killed at some time in between; whatever is left then is either whole or gone.
    for round in 0..3 {
        let to = base.path().join(round.to_string());
        let mut asking = command(&["backup", "--data", path_of(&data)]).arg("--to").arg(&to).spawn().expect("the binary is built");
        eventually("the backup begins", || async { to.exists().then_some(()) }).await;
        asking.kill().await.expect("it can be killed");
        eventually("the backup ends", || async { status(&data).await["backup_runs"].eq(&false).then_some(()) }).await;
        assert_eq!(to.exists(), to.join("manifest.json").exists());
    }
    backup(data.path(), &base.path().join("whole")).await;
    assert!(status(&data).await["last_backup_ms"].as_u64().is_some());
    assert_eq!(process.terminate().await, 0);
}

async fn status(data: &tempfile::TempDir) -> Value {
    let (output, text) = run(&["status", "--data", path_of(data)], &[]).await;
    assert!(output.status.success(), "{text}");
    serde_json::from_str(&text).expect("JSON")
}
