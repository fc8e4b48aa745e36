//! Steps that the stories share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
pub use syncline_tests::eventually;
use syncline_tests::secsync::{Author, Snapshot};
pub use syncline_tests::secsync::{place, relayed, relayed_snapshot, snapshot_saved, update_refused, update_saved};
use syncline_tests::server::TestServer;
use syncline_tests::socket::{Received, Socket};
use tokio_tungstenite::tungstenite::Message;

/// What a snapshot gets that is refused without a word of why.
pub fn bare_failure() -> Value {
    json!({"type": "snapshot-save-failed"})
}

/// As a URL's query carries any text.
pub fn encode(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The place of a document for a client that knows a snapshot and clocks.
pub fn place_after(document: &str, mode: &str, snapshot_id: &str, clocks: &Value) -> String {
    format!(
        "/secsync/{document}?sessionKey=k&mode={mode}&knownSnapshotId={snapshot_id}&knownSnapshotUpdateClocks={}",
        encode(&clocks.to_string())
    )
}

/// Opens a place; the `document` frame is the first.
pub async fn open(server: &TestServer, place: &str) -> (Socket, Value) {
    let mut socket = Socket::connect(server.address, place).await;
    let document = socket.json_of("document").await;
    (socket, document)
}

/// Opens a document of the mount `secsync` without knowledge.
pub async fn join(server: &TestServer, document: &str) -> Socket {
    open(server, &place(document, "k")).await.0
}

/// What a client that opens a place gets; the connection is closed.
pub async fn load(server: &TestServer, place: &str) -> Value {
    let (socket, document) = open(server, place).await;
    socket.close().await;
    document
}

/// Sends a frame and gives the next that comes.
pub async fn ask(socket: &mut Socket, frame: &Value) -> Value {
    socket.send(frame).await;
    socket.json().await
}

/// A document with a first snapshot, and its writer.
pub async fn with_snapshot(server: &TestServer, document: &str, author: &Author) -> (Socket, Snapshot) {
    let mut socket = join(server, document).await;
    let snapshot = author.first_snapshot(document, b"first");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    (socket, snapshot)
}

/// Saves an update.
pub async fn save(socket: &mut Socket, update: &Value) {
    let public_data = &update["publicData"];
    let expected = json!({"type": "update-saved", "snapshotId": public_data["refSnapshotId"], "clock": public_data["clock"]});
    assert_eq!(ask(socket, update).await, expected);
}

/// Saves a snapshot on a parent.
pub async fn save_on(socket: &mut Socket, author: &Author, parent: &Snapshot, clocks: &[(&Author, u64)]) -> Snapshot {
    let snapshot = author.snapshot_on(parent, &clock_table(clocks), b"next");
    assert_eq!(ask(socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    snapshot
}

/// The last clock of each author.
pub fn clock_table(clocks: &[(&Author, u64)]) -> BTreeMap<String, u64> {
    clocks.iter().map(|(author, clock)| (author.public_key(), *clock)).collect()
}

/// The same as JSON.
pub fn clocks(clocks: &[(&Author, u64)]) -> Value {
    json!(clock_table(clocks))
}

/// Nothing waits to be read: something that is always refused is answered next. Works where updates may be written.
pub async fn nothing_waits(socket: &mut Socket) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let clock = NEXT.fetch_add(2, Ordering::Relaxed);
    let probe = json!({"publicData": {"refSnapshotId": "probe", "clock": clock}});
    assert_eq!(ask(socket, &probe).await, update_refused("probe", clock), "something else came first");
}

/// The connection ends, without any further message, as a close without a code.
pub async fn closed_without_code(socket: &mut Socket) {
    assert_eq!(socket.closed().await, 1005);
    assert_eq!(socket.receive().await, Received::End);
}

/// A text message of any content.
pub fn text(text: &str) -> Message {
    Message::text(text.to_owned())
}

/// A JSON pointer set to a value.
pub fn changed(frame: &Value, pointer: &str, value: Value) -> Value {
    let mut frame = frame.clone();
    let (object, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
    frame.pointer_mut(object).expect("the object is there")[key] = value;
    frame
}

/// A JSON pointer taken out.
pub fn without(frame: &Value, pointer: &str) -> Value {
    let mut frame = frame.clone();
    let (object, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
    let object = frame.pointer_mut(object).and_then(Value::as_object_mut).expect("the object is there");
    object.remove(key).expect("the key is there");
    frame
}
