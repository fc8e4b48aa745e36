//! Data folders of every format that ever was, as they were written (`tests/fixtures/data-N`): each opens, reads as it
//! did, and takes more.
//!
//! A folder is frozen once, when its format is new, by the server of that time:
//! `SYNCLINE_FREEZE=1 cargo nextest run -E 'test(data_folders_of_every_format)'`. One that is there is never written
//! again; it must be read for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use syncline::storage::KeyValue as _;
use syncline::storage::sqlite::SqliteKeyValue;
use syncline_tests::process::{Process, command, copy_data, data_folder};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::sha256;
use syncline_tests::socket::Socket;

use crate::cli::run;
use crate::support::*;

/// Two mounts; the second has a name that a file system does not take as it is, and drops old contents.
const CONFIGURATION: &str = r#"listen = "127.0.0.1:0"

[[mount]]
protocol = "secsync"

[[mount]]
name = "Drafts/2"
protocol = "secsync"
path = "/drafts"
settings = { retention = { superseded_snapshots = 1, max_age_days = 30000 } }
"#;

/// So large that it becomes an object.
const LARGE_BYTES: usize = 200_000;
/// Longer texts are kept by their hash.
const TEXT_BYTES_MAX: usize = 400;
/// A document id outside ASCII, and as a URL has it.
const ODD_ID: (&str, &str) = ("grüße 1/2", "gr%C3%BC%C3%9Fe%201%2F2");

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The format that a data folder says it has.
fn format_of(data: &Path) -> u64 {
    let text = std::fs::read_to_string(data.join("format.json")).expect("a data folder says its format");
    serde_json::from_str::<Value>(&text).expect("JSON")["format"].as_u64().expect("a number")
}

async fn start(data: &Path, config: &Path) -> Process {
    let mut command = command(&["serve", "--log-level", "warn"]);
    command.arg("--config").arg(config).arg("--data").arg(data);
    Process::spawn(command).await
}

/// A value with the hashes of its long texts.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES_MAX => {
            json!({"sha256": sha256(text.as_ref()), "bytes": text.len()})
        }
        Value::Array(items) => items.iter().map(shortened).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), shortened(value))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// What a client that opens a place gets.
async fn document_at(process: &Process, place: &str) -> (Socket, Value) {
    let mut socket = Socket::connect(process.address, place).await;
    let document = socket.json_of("document").await;
    (socket, document)
}

fn complete(mount: &str, document: &str) -> String {
    format!("/{mount}/{document}?sessionKey=k&mode=complete")
}

/// Writes documents of every kind; places to read them at.
async fn furnish(process: &Process) -> Vec<String> {
    let (ann, bob) = (Author::new(1), Author::new(2));
    let mut places = Vec::new();
    // Several authors, a chain of two snapshots, updates on both.
    let (mut socket, _) = document_at(process, &complete("secsync", "notes")).await;
    let first = ann.first_snapshot("notes", b"first");
    let with_server_data = changed(&first.frame, "/additionalServerData", json!({"colour": "blue"}));
    assert_eq!(ask(&mut socket, &with_server_data).await, snapshot_saved(&first));
    for clock in 0..4 {
        save(&mut socket, &ann.update("notes", &first.id, clock, &[1; 40])).await;
    }
    save(&mut socket, &bob.update("notes", &first.id, 0, b"")).await;
    places.push(place_after("notes", "delta", &first.id, &clocks(&[(&ann, 1)])));
    let second = save_on(&mut socket, &bob, &first, &[(&ann, 3), (&bob, 0)]).await;
    save(&mut socket, &bob.update("notes", &second.id, 0, b"on the second")).await;
    save(&mut socket, &ann.update("notes", &second.id, 0, b"on the second too")).await;
    places.push(place_after("notes", "complete", &second.id, &clocks(&[(&bob, 0)])));
    places.push(place_after("notes", "delta", &second.id, &clocks(&[(&bob, 0)])));
    places.push(complete("secsync", "notes"));
    // Bodies that lie in objects.
    let (mut socket, _) = document_at(process, &complete("secsync", "large")).await;
    let large = ann.first_snapshot("large", &vec![7; LARGE_BYTES]);
    assert_eq!(ask(&mut socket, &large.frame).await, snapshot_saved(&large));
    save(&mut socket, &ann.update("large", &large.id, 0, &vec![8; LARGE_BYTES])).await;
    places.push(complete("secsync", "large"));
    // A document that was opened and never written, and one with an odd name.
    document_at(process, &complete("secsync", "empty")).await;
    places.push(complete("secsync", "empty"));
    let (mut socket, _) = document_at(process, &complete("secsync", ODD_ID.1)).await;
    let odd = bob.first_snapshot(ODD_ID.0, b"odd");
    assert_eq!(ask(&mut socket, &odd.frame).await, snapshot_saved(&odd));
    places.push(complete("secsync", ODD_ID.1));
    // A chain whose older contents are dropped.
    let (mut socket, _) = document_at(process, &complete("drafts", "notes")).await;
    let oldest = ann.first_snapshot("notes", b"draft");
    assert_eq!(ask(&mut socket, &oldest.frame).await, snapshot_saved(&oldest));
    let mut parent = oldest.clone();
    for _ in 0..4 {
        save(&mut socket, &ann.update("notes", &parent.id, 0, b"change")).await;
        parent = save_on(&mut socket, &ann, &parent, &[(&ann, 0)]).await;
    }
    places.push(complete("drafts", "notes"));
    places.push(place_after("notes", "complete", &oldest.id, &clocks(&[(&ann, 0)])).replacen("/secsync/", "/drafts/", 1));
    places
}

async fn read_all(process: &Process, places: impl IntoIterator<Item = &String>) -> BTreeMap<String, Value> {
    let mut read = BTreeMap::new();
    for place in places {
        let (socket, document) = document_at(process, place).await;
        socket.close().await;
        read.insert(place.clone(), shortened(&document));
    }
    read
}

/// Names of durable jobs, by their mounts.
fn jobs(data: &Path) -> Vec<(String, String)> {
    let connection = rusqlite::Connection::open(data.join("syncline/jobs.sqlite")).expect("it can be opened");
    let mut statement = connection.prepare("SELECT mount, name FROM jobs ORDER BY mount, name").expect("there are jobs");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("they can be read");
    rows.collect::<Result<_, _>>().expect("rows are of these types")
}

const FACTS: [(&str, &str, &[u8]); 3] =
    [("secsync", "plain", b"value"), ("Drafts/2", "a key/with \u{0} and ü", &[0, 255]), ("secsync", "empty", b"")];

/// Makes a fixture of what this program writes.
async fn freeze(fixture: &Path) {
    let data = data_folder();
    std::fs::create_dir_all(fixture).expect("folders can be made");
    let config = fixture.join("config.toml");
    std::fs::write(&config, CONFIGURATION).expect("files can be written");
    let process = start(data.path(), &config).await;
    let places = furnish(&process).await;
    assert_eq!(process.status("/readyz").await, 200);
    let read = read_all(&process, &places).await;
    assert_eq!(process.terminate().await, 0);
    let facts = SqliteKeyValue::open(data.path()).await.expect("it opens");
    for (mount, key, value) in FACTS {
        facts.set(mount, key, value.to_vec(), None).await.expect("it is written");
    }
    assert_eq!(facts.increment("secsync", "counter", 41, None).await, Ok(41));
    drop(facts);
    // Closing it brings its log home, on a thread of its own.
    let log = data.path().join("keyvalue.sqlite-wal");
    eventually("the log is brought home", async || (!log.exists()).then_some(())).await;
    let expected = serde_json::to_string_pretty(&json!({"documents": read, "jobs": jobs(data.path())})).expect("JSON");
    std::fs::write(fixture.join("expected.json"), expected + "\n").expect("files can be written");
    copy_data(data.path(), &fixture.join("data"));
    // A link to compiled code, which is of no use elsewhere.
    std::fs::remove_file(fixture.join("data/cache")).expect("it is there");
}

/// Writes an update by somebody new and a snapshot on what a place has, and reads both.
async fn write_on(process: &Process, place: &str) {
    let (mut socket, document) = document_at(process, place).await;
    if document["snapshot"].is_null() {
        return;
    }
    let public_data = &document["snapshot"]["publicData"];
    let text = |name: &str| public_data[name].as_str().expect("a text").to_owned();
    let (document_id, active) = (text("docId"), Snapshot { frame: document["snapshot"].clone(), id: text("snapshotId") });
    let author = Author::new(9);
    save(&mut socket, &author.update(&document_id, &active.id, 0, b"years later")).await;
    let updates = document_at(process, place).await.1["updates"].as_array().expect("a list").clone();
    assert_eq!(updates.len(), document["updates"].as_array().expect("a list").len() + 1);
    let mut clocks = BTreeMap::new();
    for update in &updates {
        let public_data = &update["publicData"];
        let author = public_data["pubKey"].as_str().expect("an author").to_owned();
        clocks.insert(author, public_data["clock"].as_u64().expect("a clock"));
    }
    let next = author.snapshot_on(&active, &clocks, b"the next");
    assert_eq!(ask(&mut socket, &next.frame).await, snapshot_saved(&next));
    assert_eq!(document_at(process, place).await.1["snapshot"], next.frame);
}

/// Reads a copy of a fixture as the server of today, and writes on.
async fn thaw(fixture: &Path) {
    let data = tempfile::tempdir().expect("folders can be made");
    copy_data(&fixture.join("data"), data.path());
    let config = fixture.join("config.toml");
    let paths = [data.path(), config.as_path()].map(|path| path.to_str().expect("paths are text"));
    let (output, text) = run(&["doctor", "--full", "--data", paths[0], "--config", paths[1]], &[]).await;
    assert!(output.status.success(), "{text}");
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture.join("expected.json")).expect("it is there")).expect("JSON");
    assert_eq!(json!(jobs(data.path())), expected["jobs"]);

    let process = start(data.path(), &config).await;
    let places: Vec<String> = expected["documents"].as_object().expect("documents").keys().cloned().collect();
    let read = read_all(&process, &places).await;
    for place in &places {
        assert_eq!(read[place], expected["documents"][place], "{place}");
    }
    for place in places.iter().filter(|place| !place.contains("knownSnapshotId")) {
        write_on(&process, place).await;
    }
    assert_eq!(process.terminate().await, 0);
    let facts = SqliteKeyValue::open(data.path()).await.expect("it opens");
    for (mount, key, value) in FACTS {
        assert_eq!(facts.get(mount, key).await, Ok(Some(value.to_vec())), "{mount} {key}");
    }
    assert_eq!(facts.increment("secsync", "counter", 1, None).await, Ok(42));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_folders_of_every_format_read_as_they_did_and_take_more() {
    let today = data_folder();
    assert_eq!(Process::start(today.path(), &["--log-level", "off"]).await.terminate().await, 0);
    let latest = format_of(today.path());
    for format in 1..=latest {
        let fixture = fixtures().join(format!("data-{format}"));
        if !fixture.exists() && format == latest && std::env::var_os("SYNCLINE_FREEZE").is_some() {
            freeze(&fixture).await;
        }
        assert!(fixture.exists(), "format {format} has no fixture: freeze one with SYNCLINE_FREEZE=1");
        assert_eq!(format_of(&fixture.join("data")), format);
        thaw(&fixture).await;
    }
}
