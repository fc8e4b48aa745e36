//! `syncline doctor` on good and bad folders.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use syncline_tests::process::Process;
use syncline_tests::secsync::Author;
use tempfile::TempDir;

use crate::cli::{data_folder, enter, folder, path_of, run, write};
use crate::support::*;

/// What it says of a data folder, and whether it is content.
async fn doctor(data: &str, more: &[&str]) -> (bool, String) {
    let arguments = [&["doctor", "--data", data][..], more].concat();
    let (output, text) = run(&arguments, &[]).await;
    assert!(!text.contains("panicked"), "{text}");
    let failed = text.lines().any(|line| line.starts_with("failed"));
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{text}");
    (!failed, text)
}

/// A check that must fail with these words on its line.
async fn finds(data: &TempDir, words: &[&str]) {
    let (content, text) = doctor(path_of(data), &["--listen", "127.0.0.1:0", "--full"]).await;
    let found = text.lines().any(|line| line.starts_with("failed") && words.iter().all(|word| line.contains(word)));
    assert!(!content && found, "{words:?} in\n{text}");
}

/// A data folder with a document, part of which is an object.
async fn used_folder() -> TempDir {
    let data = data_folder();
    let process = Process::start(data.path(), &[]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let snapshot = Author::new(1).first_snapshot("doc", &vec![7; 300 << 10]);
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    assert_eq!(process.terminate().await, 0);
    data
}

fn object_of(data: &Path) -> PathBuf {
    fn first(folder: &Path) -> PathBuf {
        let entries = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be listed").path());
        entries.filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))).min().expect("there is one")
    }
    first(&first(&data.join("objects/secsync")))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("it is there");
    bytes[at] ^= 0x55;
    std::fs::write(path, bytes).expect("it can be written");
}

#[tokio::test]
async fn a_good_folder_is_good_before_while_and_after_it_is_served() {
    let base = folder();
    let unused = base.path().join("unused");
    let (content, text) = doctor(unused.to_str().expect("text"), &["--listen", "127.0.0.1:0"]).await;
    assert!(content && text.contains("the first start makes it") && !unused.exists(), "{text}");
    let data = used_folder().await;
    let (content, text) = doctor(path_of(&data), &["--listen", "127.0.0.1:0", "--full"]).await;
    assert!(content, "{text}");
    for words in
        ["databases: 3 files are whole", "key-value facts: ", "objects: 1 files, the content of 1 compared", "backends: ", "clock: "]
    {
        assert!(text.contains(words), "{words:?} in\n{text}");
    }
    let process = Process::start(data.path(), &[]).await;
    let (content, text) = doctor(path_of(&data), &["--listen", &process.address.to_string()]).await;
    assert!(content && text.contains("the server listens there") && text.contains(&format!("process {}", process.id())), "{text}");
    assert_eq!(process.terminate().await, 0);
    assert!(doctor(path_of(&data), &["--listen", "127.0.0.1:0"]).await.0);
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let data = used_folder().await;
    let database = data.path().join("secsync/secsync.sqlite");
    let (whole, length) = (std::fs::read(&database).expect("it is there"), std::fs::metadata(&database).expect("there").len());
    assert!(length > 8192);
    flip(&database, 3);
    finds(&data, &["database", "secsync.sqlite", "restore a backup"]).await;
    let mut torn = whole.clone();
    torn[4096..8192].fill(0xa5);
    std::fs::write(&database, &torn).expect("it can be written");
    finds(&data, &["database", "secsync.sqlite", "damaged", "restore a backup"]).await;
    std::fs::write(&database, &whole).expect("it can be written");
    let newer = rusqlite::Connection::open(&database).expect("it can be opened");
    newer.pragma_update(None, "user_version", 99).expect("it can be set");
    drop(newer);
    finds(&data, &["database", "file format 99", "newer version"]).await;
    std::fs::write(&database, b"").expect("it can be written");
    finds(&data, &["database", "secsync.sqlite", "empty", "restore a backup"]).await;
    std::fs::write(&database, &whole).expect("it can be written");
    let format = data.path().join("format.json");
    let known = std::fs::read(&format).expect("it is there");
    std::fs::write(&format, b"{\"format\":99}").expect("it can be written");
    finds(&data, &["data folder", "format 99", "newer version"]).await;
    std::fs::write(&format, known).expect("it can be written");

    let object = object_of(data.path());
    let length = std::fs::read(&object).expect("it is there").len();
    flip(&object, length - 1);
    finds(&data, &["objects", "1 of 1", "another content", "restore a backup"]).await;
    flip(&object, length - 1);
    flip(&object, 0);
    finds(&data, &["objects", "damaged"]).await;
    flip(&object, 0);
    flip(&data.path().join("keyvalue.sqlite"), 5);
    finds(&data, &["key-value facts", "keyvalue.sqlite"]).await;
    flip(&data.path().join("keyvalue.sqlite"), 5);
    std::fs::write(data.path().join("restore.unfinished"), "").expect("it can be written");
    finds(&data, &["data folder", "not finished"]).await;
    std::fs::remove_file(data.path().join("restore.unfinished")).expect("it is there");
    assert!(doctor(path_of(&data), &["--listen", "127.0.0.1:0", "--full"]).await.0);
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_start_is_found() {
    let data = used_folder().await;
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let taken = other.local_addr().expect("it has an address").to_string();
    let (content, text) = doctor(path_of(&data), &["--listen", &taken]).await;
    assert!(!content && text.contains(&format!("listener {taken}: another program listens there")), "{text}");
    let config = write(&data, "wrong.json", r#"{"mount": [{"protocol": "secsync", "settings": {"colour": 1, "policy": []}}]}"#);
    let (content, text) = doctor(path_of(&data), &["--listen", "127.0.0.1:0", "--config", &config]).await;
    assert!(!content && text.contains("failed   configuration") && text.contains("colour"), "{text}");
    syncline_tests::tls::Certificate::valid("localhost", 2020, 2021).write_into(data.path());
    let tls = r#"{"tls": {"certificate": "fullchain.pem", "key": "key.pem"}, "mount": [{"protocol": "secsync"}]}"#;
    let config = write(&data, "expired.json", tls);
    let (content, text) = doctor(path_of(&data), &["--listen", "127.0.0.1:0", "--config", &config]).await;
    assert!(!content && text.contains("failed   configuration") && text.contains("expired at 2021-01-01"), "{text}");
    std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(0o755)).expect("it can be set");
    let (content, text) = doctor(path_of(&data), &["--listen", "127.0.0.1:0"]).await;
    assert!(content && text.contains("warning  data folder") && text.contains("chmod 700"), "{text}");
}
