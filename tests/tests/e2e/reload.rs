//! Exchange of component and settings under open sockets.

use serde_json::{Value, json};
use syncline::runtime::{GUEST_COMPONENT, MountChange, MountSettings};
use syncline_tests::process::{Process, command};
use syncline_tests::secsync::{Author, fresh_id};
use syncline_tests::server::{Setup, TestServer, secsync_mount};
use syncline_tests::socket::{Received, Socket};
use tempfile::TempDir;

use crate::raw::get;
use crate::support::*;

/// The same code as another file: with a custom section of no meaning at its end.
fn another_build() -> Vec<u8> {
    [GUEST_COMPONENT, &[0, 5, 4], b"note"].concat()
}

fn changes(of: &[(&str, MountChange)]) -> Vec<(String, MountChange)> {
    of.iter().map(|(name, change)| ((*name).to_owned(), *change)).collect()
}

/// Sends an update with a clock and expects it to be saved.
async fn saves(socket: &mut Socket, author: &Author, snapshot_id: &str, clock: u64) {
    socket.send(&author.update("d", snapshot_id, clock, b"content")).await;
    assert_eq!(socket.json().await, update_saved(snapshot_id, clock));
}

#[tokio::test]
async fn a_socket_stays_open_while_component_and_settings_are_exchanged_under_it() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    let mut socket = join(&server, "d").await;
    socket.send(&snapshot.frame).await;
    assert_eq!(socket.json().await, snapshot_saved(&snapshot));
    saves(&mut socket, &author, &snapshot.id, 0).await;

    let other_settings = [secsync_mount("secsync", json!({"ping_interval_ms": 12_345}))];
    let reloaded = server.reload(GUEST_COMPONENT, &other_settings).await.expect("the settings are valid");
    assert_eq!(reloaded.mounts, changes(&[("secsync", MountChange::Changed)]));
    saves(&mut socket, &author, &snapshot.id, 1).await;

    let reloaded = server.reload(&another_build(), &other_settings).await.expect("the component is whole");
    assert_eq!(reloaded.mounts, changes(&[("secsync", MountChange::Changed)]));
    saves(&mut socket, &author, &snapshot.id, 2).await;

    let reloaded = server.reload(&another_build(), &other_settings).await.expect("nothing is wrong with it");
    assert_eq!(reloaded.mounts, changes(&[("secsync", MountChange::Unchanged)]));
    let (_, document) = open(&server, &place("d", "k")).await;
    assert_eq!(document["updates"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn new_settings_hold_for_the_next_frame_of_an_open_socket() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", &[0; 2000]);
    let mut socket = join(&server, "d").await;
    server.reload(GUEST_COMPONENT, &[secsync_mount("secsync", json!({"max_message_bytes": 1500}))]).await.expect("valid settings");
    socket.send(&snapshot.frame).await;
    assert!(matches!(socket.receive().await, Received::Close(_)), "the frame is too large for the new settings");
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    let mut socket = join(&server, "d").await;
    let wrong = secsync_mount("secsync", json!({"max_message_bytes": "much"}));
    let error = server.reload(GUEST_COMPONENT, &[wrong]).await.expect_err("the settings are wrong").to_string();
    assert!(error.contains("max_message_bytes"), "{error}");
    let error = server.reload(b"no component", &[secsync_mount("secsync", json!({}))]).await.expect_err("no component").to_string();
    assert!(error.starts_with("the component"), "{error}");
    // One of two is wrong: the other does not come either.
    let two = [secsync_mount("secsync", json!({})), secsync_mount("second", json!({"path": "no path"}))];
    server.reload(GUEST_COMPONENT, &two).await.expect_err("a path begins with a slash");
    for (what, other) in [
        ("listen", MountSettings { listen: "127.0.0.1:1".into(), ..secsync_mount("secsync", json!({})) }),
        ("protocol", MountSettings { protocol: "no-such-protocol".into(), ..secsync_mount("secsync", json!({})) }),
    ] {
        let error = server.reload(GUEST_COMPONENT, &[other]).await.expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    socket.send(&snapshot.frame).await;
    assert_eq!(socket.json().await, snapshot_saved(&snapshot));
}

#[tokio::test]
async fn mounts_come_go_and_move() {
    let server =
        TestServer::with(Setup { mounts: vec![secsync_mount("stays", json!({})), secsync_mount("goes", json!({}))], ..Setup::default() })
            .await;
    let mut stays = Socket::connect(server.address, "/stays/d?sessionKey=k").await;
    let mut goes = Socket::connect(server.address, "/goes/d?sessionKey=k").await;
    let (first, _) = (stays.json().await, goes.json().await);
    assert_eq!(first["type"], "document");

    let mounts = [secsync_mount("stays", json!({"path": "/moved"})), secsync_mount("comes", json!({}))];
    let reloaded = server.reload(GUEST_COMPONENT, &mounts).await.expect("valid mounts");
    let expected = [("stays", MountChange::Changed), ("comes", MountChange::Added), ("goes", MountChange::Removed)];
    assert_eq!(reloaded.mounts, changes(&expected));
    assert_eq!(goes.receive().await, Received::Close(1001));
    for (path, there) in [("/stays", false), ("/goes", false), ("/moved", true), ("/comes", true)] {
        let connected = Socket::try_connect(server.address, &format!("{path}/d?sessionKey=k")).await;
        assert_eq!(connected.is_ok(), there, "{path}");
    }
    let author = Author::new(1);
    let snapshot = author.first_snapshot("d", b"first");
    stays.send(&snapshot.frame).await;
    assert_eq!(stays.json().await, snapshot_saved(&snapshot));

    // What went away comes back with its data's name.
    let mounts = [secsync_mount("stays", json!({})), secsync_mount("goes", json!({}))];
    server.reload(GUEST_COMPONENT, &mounts).await.expect("valid mounts");
    let mut again = Socket::connect(server.address, "/goes/d?sessionKey=k").await;
    assert_eq!(again.json().await["type"], "document");
}

/// A configuration file with one mount.
fn write_config(folder: &TempDir, max_message_bytes: Value, more: &str) -> std::path::PathBuf {
    let path = folder.path().join("syncline.toml");
    let text = format!("{more}\n[[mount]]\nprotocol = \"secsync\"\nsettings = {{ max_message_bytes = {max_message_bytes} }}\n");
    std::fs::write(&path, text).expect("the file can be written");
    path
}

/// Tries until a snapshot of 2,000 bytes is taken, or not.
async fn until_large_frames_are(taken: bool, process: &Process) {
    let author = Author::new(1);
    let trying = async {
        loop {
            let name = fresh_id();
            let mut socket = Socket::connect(process.address, &place(&name, "k")).await;
            assert_eq!(socket.json().await["type"], "document");
            socket.send(&author.first_snapshot(&name, &[0; 2000]).frame).await;
            if matches!(socket.receive().await, Received::Json(_)) == taken {
                return;
            }
        }
    };
    tokio::time::timeout(syncline_tests::DEADLINE, trying).await.expect("the new settings hold within the deadline");
}

#[tokio::test]
async fn sighup_reads_the_configuration_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_config(&folder, json!(100_000), "");
    let data = folder.path().join("data");
    let process = Process::start(&data, &["serve", "--config", config.to_str().expect("a path in UTF-8")]).await;
    until_large_frames_are(true, &process).await;
    write_config(&folder, json!(1500), "");
    process.signal("HUP").await;
    until_large_frames_are(false, &process).await;
    // What cannot be exchanged is refused as a whole, and the server goes on.
    write_config(&folder, json!(100_000), "admin_token = \"new\"");
    process.signal("HUP").await;
    assert_eq!(get(process.address, "/healthz").await.status, 200);
    until_large_frames_are(false, &process).await;
    assert_eq!(process.terminate().await, 0);
}

#[tokio::test]
async fn a_component_file_is_served_instead_of_the_built_in_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("other.wasm"), another_build()).expect("the file can be written");
    let config = write_config(&folder, json!(100_000), "component = \"other.wasm\"");
    let process = Process::start(&folder.path().join("data"), &["serve", "--config", config.to_str().expect("UTF-8")]).await;
    until_large_frames_are(true, &process).await;
    std::fs::remove_file(folder.path().join("other.wasm")).expect("the file is there");
    let checked = command(&["check-config", "--config", config.to_str().expect("UTF-8")]).output().await.expect("it runs");
    assert!(!checked.status.success());
    assert!(String::from_utf8_lossy(&checked.stderr).contains("other.wasm"));
    assert_eq!(process.terminate().await, 0);
}
