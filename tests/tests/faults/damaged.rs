//! Files that are damaged, of a newer format or not there at all, under the shipped binary: refused by name, never
//! written over, and nobody else notices.

use std::fs;
use std::path::Path;

use syncline_tests::process::{Process, command, copy_data, data_folder, fails};
use syncline_tests::secsync::Author;
use syncline_tests::socket::Socket;

use crate::documents::{create, files, open, open_at, saved, signature, told_to_come_back};

/// What SQLite reads and writes at once.
const PAGE_BYTES: usize = 4096;

/// What is done to a file.
enum Damage {
    Garbage(std::ops::Range<usize>),
    Cut(u64),
    Folder,
    Text(&'static str),
    Format(u32),
}

/// Damages a file.
fn damage(path: &Path, damage: &Damage) {
    let mut content = fs::read(path).expect("it is there");
    match damage {
        Damage::Garbage(range) => content[range.clone()].fill(0xA5),
        Damage::Cut(length) => content.truncate(usize::try_from(*length).expect("it is short")),
        Damage::Text(text) => content = text.as_bytes().to_owned(),
        // Where SQLite keeps `user_version`.
        Damage::Format(format) => content[60..64].copy_from_slice(&format.to_be_bytes()),
        Damage::Folder => {
            fs::remove_file(path).expect("it can be removed");
            return fs::create_dir(path).expect("folders can be made");
        }
    }
    fs::write(path, content).expect("it can be written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_newer_files_are_refused_by_name_and_left_alone() {
    let folder = data_folder();
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (_, snapshot) = create(process.address, "secsync", "d", &Author::new(1)).await;
    assert_eq!(process.terminate().await, 0);
    for (file, done, word) in [
        ("secsync/secsync.sqlite", Damage::Garbage(0..100), "damaged"),
        ("secsync/secsync.sqlite", Damage::Garbage(100..4096), "damaged"),
        ("secsync/secsync.sqlite", Damage::Cut(0), "is empty"),
        ("secsync/secsync.sqlite", Damage::Cut(5_000), "damaged"),
        ("secsync/secsync.sqlite", Damage::Folder, "no file"),
        ("secsync/secsync.sqlite", Damage::Format(2), "newer version"),
        ("syncline/jobs.sqlite", Damage::Garbage(0..100), "damaged"),
        ("syncline/jobs.sqlite", Damage::Cut(0), "is empty"),
        ("syncline/jobs.sqlite", Damage::Format(7), "file format 7"),
        ("keyvalue.sqlite", Damage::Garbage(16..4096), "damaged"),
        ("keyvalue.sqlite", Damage::Cut(0), "is empty"),
        ("keyvalue.sqlite", Damage::Folder, "no file"),
        ("keyvalue.sqlite", Damage::Format(2), "newer version"),
        ("format.json", Damage::Text(r#"{"format":2,"program":"syncline"}"#), "format 2"),
        ("format.json", Damage::Text("{"), "damaged"),
    ] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).expect("it is there");
        damage(&path, &done);
        let damaged = fs::read(&path).ok();
        let mut refused = command(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off", "--data"]);
        refused.arg(folder.path());
        let place = if matches!(done, Damage::Text(text) if text.len() > 1) { folder.path() } else { &path };
        fails(refused, &[place.to_str().expect("paths are text"), word]).await;
        assert_eq!(fs::read(&path).ok(), damaged, "{file} is left as it is");
        if matches!(done, Damage::Folder) {
            fs::remove_dir(&path).expect("it is empty");
        }
        fs::write(&path, whole).expect("it can be written");
    }
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    assert_eq!(open(process.address, "d").await.1["snapshot"], snapshot.frame);
}

/// Served without it, clients would take the empty server for the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_once_and_is_gone_is_not_made_anew() {
    let folder = data_folder();
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (_, snapshot) = create(process.address, "secsync", "d", &Author::new(1)).await;
    assert_eq!(process.terminate().await, 0);
    let asked = |words: &[&str]| {
        let mut command = command(words);
        command.args(["--listen", "127.0.0.1:0", "--log-level", "off", "--data"]).arg(folder.path());
        command
    };
    for gone in ["secsync/secsync.sqlite", "keyvalue.sqlite", "objects"] {
        let (path, away) = (folder.path().join(gone), folder.path().join("away"));
        fs::rename(&path, &away).expect("it is there");
        for words in ["serve", "doctor"] {
            fails(asked(&[words]), &[path.to_str().expect("paths are text"), "is gone"]).await;
        }
        assert!(!path.exists(), "{gone} is not made anew");
        fs::rename(&away, &path).expect("it can be put back");
    }
    // Whoever wants to begin anew says so.
    for gone in ["keyvalue.sqlite", "keyvalue.sqlite.made"] {
        fs::remove_file(folder.path().join(gone)).expect("it is there");
    }
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    assert_eq!(open(process.address, "d").await.1["snapshot"], snapshot.frame);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_costs_its_document_only() {
    let folder = data_folder();
    let author = Author::new(1);
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (mut large, _) = open(process.address, "large").await;
    let snapshot = author.first_snapshot("large", &vec![7; 300 << 10]);
    large.send(&snapshot.frame).await;
    large.json_of("snapshot-saved").await;
    create(process.address, "secsync", "small", &author).await;
    let objects = files(&folder.path().join("objects"), ".object");
    let [object] = objects.as_slice() else { panic!("one object was expected: {objects:?}") };
    let whole = fs::read(object).expect("it is there");
    for done in [Damage::Cut(0), Damage::Cut(1_000), Damage::Garbage(0..8), Damage::Garbage(200_000..200_001)] {
        damage(object, &done);
        let mut refused = Socket::connect(process.address, "/secsync/large?sessionKey=k").await;
        told_to_come_back(&mut refused).await;
        open(process.address, "small").await;
        fs::write(object, &whole).expect("it can be written");
    }
    assert_eq!(open(process.address, "large").await.1["snapshot"], snapshot.frame);
}

/// Two mounts; the configuration lies beside the data.
const TWO_MOUNTS: &str =
    "listen = \"127.0.0.1:0\"\n[[mount]]\nprotocol = \"secsync\"\n[[mount]]\nname = \"free\"\nprotocol = \"secsync\"\npath = \"/free\"\n";

/// The first page of a file with some text in it.
fn page_with(content: &[u8], text: &str) -> std::ops::Range<usize> {
    let place = content.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is in there");
    let start = place / PAGE_BYTES * PAGE_BYTES;
    start..start + PAGE_BYTES
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_middle_is_met_by_those_who_read_there_and_said_by_name() {
    let folder = data_folder();
    let (config, log) = (folder.path().join("config.toml"), folder.path().join("log"));
    fs::write(&config, TWO_MOUNTS).expect("files can be written");
    let start = async || {
        let mut command = command(&["serve", "--log-level", "warn"]);
        command.arg("--config").arg(&config).arg("--data").arg(folder.path());
        command.stderr(fs::File::create(&log).expect("files can be made"));
        Process::spawn(command).await
    };
    let author = Author::new(1);
    let process = start().await;
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    let mut middle = None;
    for clock in 0..20 {
        let update = author.update("d", &snapshot.id, clock, &[1; 2000]);
        writer.send(&update).await;
        saved(&mut writer, clock).await;
        middle = Some(update).filter(|_| clock == 10).or(middle);
    }
    create(process.address, "secsync", "small", &author).await;
    let (mut free, free_snapshot) = create(process.address, "free", "d", &author).await;
    free.send(&author.update("d", &free_snapshot.id, 0, b"")).await;
    saved(&mut free, 0).await;
    assert_eq!(process.terminate().await, 0);

    let database = folder.path().join("secsync/secsync.sqlite");
    let whole = fs::read(&database).expect("it is there");
    let page = page_with(&whole, signature(&middle.expect("it was sent")));
    damage(&database, &Damage::Garbage(page.clone()));
    let process = start().await;
    for _ in 0..2 {
        let mut refused = Socket::connect(process.address, "/secsync/d?sessionKey=k").await;
        told_to_come_back(&mut refused).await;
        open(process.address, "small").await;
        assert_eq!(process.status("/healthz").await, 200);
    }
    let (mut free, document) = open_at(process.address, "free", "d").await;
    assert_eq!(document["updates"].as_array().map(Vec::len), Some(1));
    free.send(&author.update("d", &free_snapshot.id, 1, b"")).await;
    saved(&mut free, 1).await;
    assert_eq!(process.terminate().await, 0);
    let said = fs::read_to_string(&log).expect("the log is there");
    for words in [database.to_str().expect("paths are text"), "damaged", "restore a backup"] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let mut left = fs::read(&database).expect("it is there");
    assert!(left[page.clone()].iter().all(|byte| *byte == 0xA5), "nothing is written over it");
    // With the page put back everything is there: nothing else was touched.
    left[page.clone()].copy_from_slice(&whole[page]);
    fs::write(&database, left).expect("it can be written");
    let process = start().await;
    assert_eq!(open(process.address, "d").await.1["updates"].as_array().map(Vec::len), Some(20));
}

/// A power cut may end a log anywhere: what is whole before the cut is there, in its order, and the server writes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_keeps_what_came_before_the_cut() {
    const COUNT: usize = 24;
    let folder = data_folder();
    let author = Author::new(1);
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (mut writer, snapshot) = create(process.address, "secsync", "d", &author).await;
    let log = folder.path().join("secsync/secsync.sqlite-wal");
    let furnished_bytes = fs::metadata(&log).expect("there is a log").len();
    for clock in 0..COUNT as u64 {
        writer.send(&author.update("d", &snapshot.id, clock, b"some")).await;
        saved(&mut writer, clock).await;
    }
    process.kill().await;
    let log_bytes = fs::metadata(&log).expect("there is a log").len();
    let mut counts = Vec::new();
    for part in 0..4 {
        let copy = tempfile::tempdir().expect("a folder");
        copy_data(folder.path(), copy.path());
        let cut_at = furnished_bytes + (log_bytes - furnished_bytes) * part / 3;
        damage(&copy.path().join("secsync/secsync.sqlite-wal"), &Damage::Cut(cut_at));
        let process = Process::start(copy.path(), &["--log-level", "off"]).await;
        let (mut writer, document) = open(process.address, "d").await;
        assert_eq!(document["snapshot"], snapshot.frame);
        let clocks: Vec<_> =
            document["updates"].as_array().expect("a list").iter().map(|update| update["publicData"]["clock"].as_u64()).collect();
        assert_eq!(clocks, (0..clocks.len() as u64).map(Some).collect::<Vec<_>>());
        let next = clocks.len() as u64;
        writer.send(&author.update("d", &snapshot.id, next, b"after")).await;
        saved(&mut writer, next).await;
        counts.push(clocks.len());
    }
    assert!(counts.is_sorted() && counts[0] == 0 && counts[1] > 0 && counts[2] < COUNT && counts[3] == COUNT, "{counts:?}");
}

/// Somebody moved a database away and left its log, which has what was acknowledged last.
#[tokio::test]
async fn a_log_without_its_database_is_no_new_database() {
    let folder = data_folder();
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    let (_, snapshot) = create(process.address, "secsync", "d", &Author::new(1)).await;
    process.kill().await;
    let (database, away) = (folder.path().join("secsync/secsync.sqlite"), folder.path().join("away"));
    fs::rename(&database, &away).expect("files can be moved");
    let log = database.with_extension("sqlite-wal");
    let before = fs::read(&log).expect("there is a log");
    let mut refused = command(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off", "--data"]);
    refused.arg(folder.path());
    fails(refused, &[database.to_str().expect("paths are text"), "put it back", "restore a backup"]).await;
    assert!(fs::read(&log).is_ok_and(|log| log == before) && !database.exists(), "everything is left as it was");
    fs::rename(&away, &database).expect("files can be moved");
    let process = Process::start(folder.path(), &["--log-level", "off"]).await;
    assert_eq!(open(process.address, "d").await.1["snapshot"], snapshot.frame);
}
