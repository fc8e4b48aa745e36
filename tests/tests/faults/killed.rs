//! `kill -9` of the shipped binary under load: what was acknowledged is there, once; what was left over is cleared away.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;
use rusqlite::{Connection, OpenFlags};
use syncline::storage::Objects as _;
use syncline::storage::files::FileObjects;
use syncline_tests::postgres;
use syncline_tests::process::{Process, data_folder};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::socket::{Received, Socket};
use syncline_tests::{DEADLINE, eventually, scale};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::documents::{check_clocks, create, files, open, saved, signature, stored};

const DOCUMENTS: usize = 3;
/// On each document.
const WRITERS: u8 = 2;
const PIPELINED: usize = 16;
/// So large that it becomes an object.
const LARGE_BYTES: usize = 270 << 10;

/// Counts acknowledgements, and tells when there are enough for this run.
struct Enough {
    left: AtomicUsize,
    reached: Notify,
}

/// Somebody who writes, and what was acknowledged: clocks and signatures.
struct Writer {
    document: String,
    snapshot_id: String,
    author: Author,
    acknowledged: Vec<(u64, String)>,
}

impl Writer {
    /// Writes until the server is gone.
    async fn run(mut self, mut socket: Socket, enough: Arc<Enough>) -> Self {
        let (mut next, mut waiting) = (0, VecDeque::new());
        loop {
            while waiting.len() < PIPELINED {
                let content = if rand::rng().random_bool(0.03) { vec![0; LARGE_BYTES] } else { rand::random::<[u8; 16]>().to_vec() };
                let update = self.author.update(&self.document, &self.snapshot_id, next, &content);
                waiting.push_back((next, signature(&update).to_owned()));
                next += 1;
                if socket.try_send(Message::text(update.to_string())).await.is_err() {
                    break;
                }
            }
            match socket.receive().await {
                Received::Json(message) if message["type"] == "update" => {}
                Received::Json(message) => {
                    let oldest = waiting.pop_front().expect("something waits");
                    assert_eq!((&message["type"], &message["clock"]), (&"update-saved".into(), &oldest.0.into()));
                    self.acknowledged.push(oldest);
                    if enough.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                        enough.reached.notify_one();
                    }
                }
                Received::End => return self,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Writes on fresh documents until it is killed; what each writer was told.
async fn write_until_killed(process: Process, round: u32) -> Vec<Writer> {
    let enough = Arc::new(Enough { left: AtomicUsize::new(rand::rng().random_range(50..400)), reached: Notify::new() });
    let mut writing = Vec::new();
    for number in 0..DOCUMENTS {
        let document = format!("d-{round}-{number}");
        let Snapshot { id: snapshot_id, .. } = create(process.address, "secsync", &document, &Author::new(99)).await.1;
        for number in 1..=WRITERS {
            let (socket, _) = open(process.address, &document).await;
            let (document, snapshot_id) = (document.clone(), snapshot_id.clone());
            let writer = Writer { document, snapshot_id, author: Author::new(number), acknowledged: Vec::new() };
            writing.push(tokio::spawn(writer.run(socket, enough.clone())));
        }
    }
    let reached = tokio::time::timeout(DEADLINE, enough.reached.notified()).await;
    reached.expect("writers come along");
    process.kill().await;
    let mut writers = Vec::new();
    for writer in writing {
        writers.push(writer.await.expect("the writer is content"));
    }
    writers
}

/// Everything that a writer was told is there once, and the server gives what is there.
async fn check(process: &Process, data: &Path, writer: &Writer) {
    let updates = stored(data, "secsync", &writer.document);
    check_clocks(&updates);
    let (_, document) = open(process.address, &writer.document).await;
    // Bodies that lie in objects are among them.
    let there: Vec<&str> = document["updates"].as_array().expect("a list").iter().map(signature).collect();
    assert_eq!(there, updates.iter().map(|update| update.signature.as_str()).collect::<Vec<_>>());
    for (clock, signature) in &writer.acknowledged {
        let found: Vec<_> = updates.iter().filter(|update| update.signature == *signature).map(|update| update.clock).collect();
        assert_eq!(found, [*clock], "what was acknowledged is there once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = data_folder();
    let start = async || Process::start(folder.path(), &["--log-level", "error"]).await;
    let mut process = start().await;
    for round in 0..3 * scale() {
        let writers = write_until_killed(process, round).await;
        process = start().await;
        for writer in &writers {
            check(&process, folder.path(), writer).await;
        }
        // Those who were there write on.
        let Writer { document, snapshot_id, author, .. } = &writers[0];
        let updates = stored(folder.path(), "secsync", document);
        let next = updates.iter().filter(|update| update.author == author.public_key()).count() as u64;
        let (mut socket, _) = open(process.address, document).await;
        socket.send(&author.update(document, snapshot_id, next, b"after")).await;
        saved(&mut socket, next).await;
    }
    process.kill().await;
    nothing_is_left_over(folder.path()).await;
}

/// Object files of a mount.
fn objects(data: &Path) -> Vec<PathBuf> {
    let mut objects = files(&data.join("objects/secsync"), ".object");
    objects.sort();
    objects
}

/// How many objects are named by rows.
fn named_count(data: &Path) -> usize {
    let count =
        "SELECT (SELECT count(object_key) FROM ss_updates) + (SELECT count(object_key) + count(server_data_object_key) FROM ss_snapshots)";
    if let Some(schemas) = postgres::known(data) {
        let rows = schemas.query("secsync", "secsync", count, &[]);
        return rows[0][0].parse().expect("a count");
    }
    let file = data.join("secsync/secsync.sqlite");
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database is there");
    let count: i64 = connection.query_row(count, [], |row| row.get(0)).expect("it can be read");
    usize::try_from(count).expect("it is no negative number")
}

/// Makes an object old: its file says when it was made.
fn backdate(object: &Path) {
    let mut content = fs::read(object).expect("it is there");
    let key = b"\"created_ms\":";
    let place = content.windows(key.len()).position(|window| window == key).expect("the header says it") + key.len();
    content[place + 1..place + 9].fill(b'0');
    fs::write(object, content).expect("it can be written");
}

/// Objects whose transaction never came are swept by the next start, and no others.
async fn nothing_is_left_over(data: &Path) {
    let store = FileObjects::open(data.join("objects")).await.expect("the store opens");
    let (young, old) = ("ss/young", "ss/old");
    let before = objects(data);
    store.write("secsync", old, "", vec![1; 1_000].into()).await.expect("it is written");
    objects(data).iter().for_each(|object| backdate(object));
    store.write("secsync", young, "", vec![1; 1_000].into()).await.expect("it is written");
    drop(store);
    let named = named_count(data);
    println!("{} objects, {named} of them named by rows", before.len());
    let process = Process::start(data, &["--log-level", "error"]).await;
    let what = format!("that of {} objects the {named} named ones and a young one stay", objects(data).len());
    eventually(&what, async || (objects(data).len() == named + 1).then_some(())).await;
    assert_eq!(process.terminate().await, 0);
    let store = FileObjects::open(data.join("objects")).await.expect("the store opens");
    store.head("secsync", young).await.expect("its transaction might still come");
    assert!(store.head("secsync", old).await.is_err());
}
