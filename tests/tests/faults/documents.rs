//! Documents of secsync, as tests write and read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use syncline_tests::postgres;
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::socket::{Received, Socket};

/// A signature names an update: no two are equal.
pub fn signature(frame: &Value) -> &str {
    frame["signature"].as_str().expect("a frame is signed")
}

/// Opens a document of a mount at `/secsync`; the socket, and the first frame.
pub async fn open(address: SocketAddr, document: &str) -> (Socket, Value) {
    open_at(address, "secsync", document).await
}

/// The same for another mount.
pub async fn open_at(address: SocketAddr, mount: &str, document: &str) -> (Socket, Value) {
    let mut socket = Socket::connect(address, &format!("/{mount}/{document}?sessionKey=k&mode=complete")).await;
    let first = socket.json_of("document").await;
    (socket, first)
}

/// Saves a first snapshot.
pub async fn create(address: SocketAddr, mount: &str, document: &str, author: &Author) -> (Socket, Snapshot) {
    let (mut socket, _) = open_at(address, mount, document).await;
    let snapshot = author.first_snapshot(document, b"first");
    socket.send(&snapshot.frame).await;
    socket.json_of("snapshot-saved").await;
    (socket, snapshot)
}

/// Expects `update-saved` for a clock.
pub async fn saved(socket: &mut Socket, clock: u64) {
    let reply = socket.json_of("update-saved").await;
    assert_eq!(reply["clock"], clock, "{reply}");
}

/// Expects a close with 1013 and nothing before it.
pub async fn told_to_come_back(socket: &mut Socket) {
    assert_eq!(socket.receive().await, Received::Close(1013));
}

/// The `[author, clock]` of a broadcast or stored update.
pub fn author_and_clock(update: &Value) -> (String, u64) {
    let data = &update["publicData"];
    (data["pubKey"].as_str().expect("an update has an author").into(), data["clock"].as_u64().expect("an update has a clock"))
}

/// An update as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the document's order.
    pub sequence: u64,
    /// Its author.
    pub author: String,
    /// Its clock.
    pub clock: u64,
    /// Its signature.
    pub signature: String,
}

/// The updates of a document, in their order, from a mount's database: its file, or its schema in PostgreSQL.
pub fn stored(data: &Path, mount: &str, document: &str) -> Vec<Stored> {
    let select = "SELECT u.seq, u.pub_key, u.clock, u.signature FROM ss_snapshots s JOIN ss_updates u ON u.snapshot_id = s.id \
         WHERE s.doc_id = :'document' ORDER BY u.seq";
    if let Some(schemas) = postgres::known(data) {
        let rows = schemas.query(mount, "secsync", select, &[("document", document)]);
        let number = |text: &str| text.parse().expect("a number");
        let row = |row: Vec<String>| match row.as_slice() {
            [sequence, author, clock, signature] => {
                Stored { sequence: number(sequence), author: author.clone(), clock: number(clock), signature: signature.clone() }
            }
            other => panic!("four columns were expected, not {other:?}"),
        };
        return rows.into_iter().map(row).collect();
    }
    let file = data.join(mount).join("secsync.sqlite");
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database is there");
    let mut statement = connection.prepare(&select.replace(":'document'", "?")).expect("the tables are those of secsync");
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Stored { sequence: number(row, 0)?, author: row.get(1)?, clock: number(row, 2)?, signature: row.get(3)? })
    };
    let rows = statement.query_map([document], row).expect("it can be read");
    rows.collect::<Result<_, _>>().expect("rows are of these types")
}

/// Checks that each author's clocks are 0, 1, 2 … and sequences rise.
pub fn check_clocks(updates: &[Stored]) {
    let mut next = BTreeMap::<&str, u64>::new();
    let mut last = 0;
    for update in updates {
        assert!(update.sequence > last, "sequence {} after {last}", update.sequence);
        last = update.sequence;
        let expected = next.entry(&update.author).or_default();
        assert_eq!(update.clock, *expected, "clocks of {} have a hole or a double", update.author);
        *expected += 1;
    }
}

/// The files below a folder with a suffix.
pub fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_str().is_some_and(|path| path.ends_with(suffix)) {
            found.push(path);
        }
    }
    found
}
