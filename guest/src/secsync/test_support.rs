//! A host in memory and clients that sign, for the tests of this room.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use ed25519_dalek::{Signer, SigningKey};
use rusqlite::types::ValueRef;
use serde_json::{Value as Json, json};

use super::Secsync;
use super::attachment::Attachment;
use super::verify;
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part};
use crate::encoding::base64url;
use crate::imports::*;
use crate::registry::{Connection, Group, Input, Mount, Outcome, Protocol, UpgradeResult};

/// Where a failure is to happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Snapshot,
    Begin,
    Commit,
}

#[derive(Default)]
pub struct Faults(RefCell<Option<(Fault, SqlError)>>, Cell<Option<usize>>);

impl Faults {
    fn check(&self, at: Fault) -> Result<(), SqlError> {
        match self.0.take() {
            Some((fault, error)) if fault == at => Err(error),
            other => {
                self.0.replace(other);
                Ok(())
            }
        }
    }
}

/// SQLite in memory.
pub struct TestExecutor {
    connection: Rc<rusqlite::Connection>,
    faults: Rc<Faults>,
    pub begun: Cell<u32>,
    published: Rc<RefCell<Vec<Publication>>>,
    steps: Rc<RefCell<Vec<String>>>,
}

impl TestExecutor {
    fn view(&self, writes: bool) -> View {
        View {
            connection: self.connection.clone(),
            faults: self.faults.clone(),
            published: self.published.clone(),
            published_before: self.published.borrow().len(),
            writes,
            open: Cell::new(true),
        }
    }
}

struct View {
    connection: Rc<rusqlite::Connection>,
    faults: Rc<Faults>,
    published: Rc<RefCell<Vec<Publication>>>,
    /// Publications that were there when it began.
    published_before: usize,
    writes: bool,
    open: Cell<bool>,
}

fn run(connection: &rusqlite::Connection, statement: Statement, limit: Option<u32>) -> Result<RowSet, SqlError> {
    let failed = |error: rusqlite::Error| match &error {
        rusqlite::Error::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::ConstraintViolation => {
            SqlError::Constraint((ConstraintKind::Other, error.to_string()))
        }
        _ => SqlError::InvalidStatement(error.to_string()),
    };
    let mut prepared = connection.prepare(&statement.sql).map_err(failed)?;
    let parameters = statement.parameters.into_iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(number) => number.into(),
        Value::Real(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => bytes.into(),
    });
    let columns: Vec<String> = prepared.column_names().map(str::to_owned).collect();
    if columns.is_empty() {
        let changed = prepared.execute(rusqlite::params_from_iter(parameters)).map_err(failed)? as u64;
        return Ok(RowSet { columns, rows: Vec::new(), changed, truncated: false });
    }
    let mut found = prepared.query(rusqlite::params_from_iter(parameters)).map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        if limit.is_some_and(|limit| rows.len() >= limit as usize) {
            return Ok(RowSet { columns, rows, changed: 0, truncated: true });
        }
        let value = |index| match row.get_ref(index).unwrap() {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        rows.push((0..columns.len()).map(value).collect());
    }
    Ok(RowSet { columns, rows, changed: 0, truncated: false })
}

impl Query for View {
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError> {
        let found = run(&self.connection, statement, row_limit)?;
        let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
        let bytes: usize = found.rows.iter().flatten().map(length).sum();
        if self.faults.1.get().is_some_and(|limit| bytes > limit) { Err(SqlError::Limit("bytes".into())) } else { Ok(found) }
    }
}

impl Snapshot for View {
    fn into_handle(self: Box<Self>) -> Option<crate::contract::syncline::host::executor::Snapshot> {
        None
    }
}

impl Transaction for View {
    fn execute(&self, statement: Statement) -> Result<RowSet, SqlError> {
        run(&self.connection, statement, None)
    }
    fn execute_batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, SqlError> {
        statements.into_iter().map(|statement| self.execute(statement)).collect()
    }
    fn savepoint(&self) -> Result<u32, SqlError> {
        self.connection.execute_batch("SAVEPOINT one").unwrap();
        Ok(u32::try_from(self.published.borrow().len()).unwrap())
    }
    fn release(&self, _: u32) -> Result<(), SqlError> {
        self.connection.execute_batch("RELEASE one").unwrap();
        Ok(())
    }
    fn rollback_to(&self, published_before: u32) -> Result<(), SqlError> {
        self.connection.execute_batch("ROLLBACK TO one").unwrap();
        self.published.borrow_mut().truncate(published_before as usize);
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), SqlError> {
        self.faults.check(Fault::Commit)?;
        self.open.set(false);
        self.connection.execute_batch("COMMIT").map_err(|error| SqlError::Unavailable(error.to_string()))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.writes && self.open.get() {
            self.connection.execute_batch("ROLLBACK").unwrap();
            // What was published within a transaction shares its fate.
            self.published.borrow_mut().truncate(self.published_before);
        }
    }
}

impl Executor for TestExecutor {
    fn describe(&self, _: &str) -> Result<DatabaseInfo, SqlError> {
        Ok(DatabaseInfo { dialect: Dialect::Sqlite, table_prefix: "t_".into() })
    }
    fn snapshot(&self, _: &str) -> Result<Box<dyn Snapshot>, SqlError> {
        self.faults.check(Fault::Snapshot)?;
        assert!(self.connection.is_autocommit(), "a view beside an open transaction");
        self.steps.borrow_mut().push("read".into());
        Ok(Box::new(self.view(false)))
    }
    fn begin(&self, _: &str) -> Result<Box<dyn Transaction>, SqlError> {
        self.faults.check(Fault::Begin)?;
        self.begun.set(self.begun.get() + 1);
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Ok(Box::new(self.view(true)))
    }
}

/// An import that secsync has no use for.
fn unused() -> ! {
    panic!("secsync used an import that its tests do not know")
}

/// Objects in memory.
#[derive(Default)]
pub struct TestStorage {
    pub objects: RefCell<BTreeMap<String, Vec<u8>>>,
    /// When a listing says that objects were made.
    pub created_ms: Cell<u64>,
}

impl Storage for TestStorage {
    fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StorageError> {
        unused()
    }
    fn set(&self, _: &str, _: Vec<u8>, _: Option<u64>) -> Result<(), StorageError> {
        unused()
    }
    fn delete(&self, _: &str) -> Result<(), StorageError> {
        unused()
    }
    fn increment(&self, _: &str, _: i64, _: Option<u64>) -> Result<i64, StorageError> {
        unused()
    }
    fn compare_and_set(&self, _: &str, _: Option<Vec<u8>>, _: Vec<u8>) -> Result<bool, StorageError> {
        unused()
    }
    fn keys(&self, _: &str, _: Option<&str>, _: u32) -> Result<Vec<String>, StorageError> {
        unused()
    }
    fn head_object(&self, _: &str) -> Result<ObjectInfo, StorageError> {
        unused()
    }
    fn read_object(&self, key: &str, _: Option<ByteRange>) -> Result<Vec<u8>, StorageError> {
        self.objects.borrow().get(key).cloned().ok_or(StorageError::NotFound)
    }
    fn write_object(&self, key: &str, content_type: &str, content: Vec<u8>) -> Result<ObjectInfo, StorageError> {
        let info =
            ObjectInfo { size: content.len() as u64, content_type: content_type.into(), sha256: None, created: 0, etag: String::new() };
        assert!(self.objects.borrow_mut().insert(key.into(), content).is_none(), "an object was overwritten");
        Ok(info)
    }
    fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        self.objects.borrow_mut().remove(key);
        Ok(())
    }
    fn list_objects(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        let objects = self.objects.borrow();
        let wanted = objects.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        let info = |content: &Vec<u8>| ObjectInfo {
            size: content.len() as u64,
            content_type: String::new(),
            sha256: None,
            created: self.created_ms.get(),
            etag: String::new(),
        };
        Ok(wanted.take(limit as usize).map(|(key, content)| (key.clone(), info(content))).collect())
    }
}

/// Remembers what was published and who subscribed.
#[derive(Default)]
pub struct TestPubSub {
    pub published: Rc<RefCell<Vec<Publication>>>,
    pub subscriptions: RefCell<BTreeMap<(ConnectionId, String), Subscription>>,
    pub jobs: RefCell<BTreeMap<String, u64>>,
    steps: Rc<RefCell<Vec<String>>>,
}

impl PubSub for TestPubSub {
    fn publish(&self, publication: Publication) {
        self.published.borrow_mut().push(publication);
    }
    fn subscribe(&self, connection: ConnectionId, subscription: Subscription) {
        self.steps.borrow_mut().push(format!("subscribe {}", subscription.topic));
        self.subscriptions.borrow_mut().insert((connection, subscription.topic.clone()), subscription);
    }
    fn unsubscribe(&self, connection: ConnectionId, topic: &str) {
        self.subscriptions.borrow_mut().remove(&(connection, topic.to_owned()));
    }
    fn members(&self, _: &str) -> Vec<Member> {
        unused()
    }
    fn send(&self, _: ConnectionId, _: Frame) {
        unused()
    }
    fn schedule(&self, name: &str, due_ms: u64, _: Vec<u8>) {
        self.jobs.borrow_mut().insert(name.into(), due_ms);
    }
    fn cancel(&self, name: &str) {
        self.jobs.borrow_mut().remove(name);
    }
}

/// Remembers the log.
#[derive(Default)]
pub struct TestEffects {
    pub lines: RefCell<Vec<(Level, String)>>,
}

impl Effects for TestEffects {
    fn post(&self, _: OutboundPost) {
        unused()
    }
    fn measure(&self, _: Metric) {}
    fn measured(&self) -> Vec<Metric> {
        Vec::new()
    }
    fn log(&self, level: Level, message: &str, fields: &str) {
        self.lines.borrow_mut().push((level, format!("{message} {fields}")));
    }
    fn refresh_document(&self, _: &str) -> Option<Vec<u8>> {
        unused()
    }
}

/// A connection as the host keeps it.
#[derive(Default)]
struct Socket {
    attachment: Vec<u8>,
    inbox: VecDeque<Json>,
    closed: Option<u16>,
}

/// A host with one mount.
pub struct TestHost {
    mount: Rc<dyn Mount>,
    pub executor: TestExecutor,
    pub storage: TestStorage,
    pub pubsub: TestPubSub,
    pub effects: TestEffects,
    app: Box<dyn App>,
    pub now_ms: Cell<u64>,
    pub steps: Rc<RefCell<Vec<String>>>,
    sockets: RefCell<HashMap<ConnectionId, Socket>>,
    faults: Rc<Faults>,
}

impl TestHost {
    pub fn new(settings: Json) -> Self {
        Self::with_app(settings, NoApp)
    }

    /// A mount with an app.
    pub fn with_app(settings: Json, app: impl App + 'static) -> Self {
        let host = Self::stopped(settings, app);
        assert_eq!(host.mount.start(host.imports(), None), Ok(None));
        host
    }

    /// A mount that has not been started.
    pub fn stopped(settings: Json, app: impl App + 'static) -> Self {
        let steps = Rc::new(RefCell::new(Vec::new()));
        let faults = Rc::new(Faults::default());
        let connection = Rc::new(rusqlite::Connection::open_in_memory().unwrap());
        let published = Rc::<RefCell<Vec<Publication>>>::default();
        Self {
            mount: Secsync.configure("m", &settings.to_string(), Vec::new()).unwrap(),
            executor: TestExecutor {
                connection,
                faults: faults.clone(),
                begun: Cell::new(0),
                published: published.clone(),
                steps: steps.clone(),
            },
            storage: TestStorage::default(),
            pubsub: TestPubSub { published, steps: steps.clone(), ..TestPubSub::default() },
            effects: TestEffects::default(),
            app: Box::new(app),
            now_ms: Cell::new(1_000_000),
            steps,
            sockets: RefCell::default(),
            faults,
        }
    }

    pub fn imports(&self) -> Imports<'_> {
        Imports {
            executor: &self.executor,
            storage: &self.storage,
            pubsub: &self.pubsub,
            effects: &self.effects,
            app: self.app.as_ref(),
            now_ms: self.now_ms.get(),
        }
    }

    pub fn mount(&self) -> &dyn Mount {
        self.mount.as_ref()
    }

    /// The next use of the database fails.
    pub fn fail(&self, at: Fault, error: SqlError) {
        self.faults.0.replace(Some((at, error)));
    }

    /// Answers of more text than this are too large from now on.
    pub fn limit_answers(&self, bytes: usize) {
        self.faults.1.set(Some(bytes));
    }

    pub fn sql(&self, text: &str) -> Vec<Vec<Value>> {
        run(&self.executor.connection, Statement { sql: text.into(), parameters: Vec::new() }, None).unwrap().rows
    }

    pub fn head(path: &str, query: &str) -> RequestHead {
        RequestHead {
            method: "GET".into(),
            path: path.into(),
            query: Some(query.into()),
            headers: Vec::new(),
            remote_address: "127.0.0.1".into(),
            secure: false,
        }
    }

    /// Opens a socket on a URL below the mount.
    pub fn open(&self, url: &str) -> Peer<'_> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let id = self.sockets.borrow().len() as u64 + 1;
        let UpgradeResult::Accept(accept) = self.mount.upgrade(self.imports(), id, Self::head(path, query)) else {
            panic!("an upgrade was refused")
        };
        self.sockets.borrow_mut().insert(id, Socket::default());
        self.apply(id, accept.start);
        Peer { host: self, id }
    }

    /// Opens a document in mode `complete` with a session key.
    pub fn join(&self, doc_id: &str, session_key: &str) -> Peer<'_> {
        self.open(&format!("/secsync/{doc_id}?sessionKey={session_key}&mode=complete"))
    }

    fn apply(&self, id: ConnectionId, outcome: Outcome) {
        self.broadcast();
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut(&id).unwrap();
        if let Some(attachment) = outcome.attachment {
            socket.attachment = attachment;
        }
        socket.inbox.extend(outcome.send.into_iter().map(json_of));
        if let Some(close) = outcome.close {
            socket.closed = Some(close.code);
            self.pubsub.subscriptions.borrow_mut().retain(|(of, _), _| *of != id);
        }
    }

    /// Brings what was published to its subscribers.
    pub fn broadcast(&self) {
        for publication in self.pubsub.published.take() {
            let subscriptions = self.pubsub.subscriptions.borrow().clone();
            for ((id, _), subscription) in subscriptions.into_iter().filter(|(_, subscription)| subscription.topic == publication.topic) {
                self.deliver(id, &subscription, &publication);
            }
        }
    }

    fn deliver(&self, id: ConnectionId, subscription: &Subscription, publication: &Publication) {
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut(&id).unwrap();
        let mut send = |bytes: &[u8]| {
            if publication.except != Some(id) {
                socket.inbox.push_back(serde_json::from_slice(bytes).unwrap());
            }
        };
        if subscription.mode == Mode::ForwardText {
            return send(&publication.message);
        }
        let group = Group { name: subscription.group.clone(), cursor: None };
        let deliveries = self.mount.deliver(self.imports(), publication.clone(), vec![group]);
        match &deliveries.outcomes[0] {
            GroupOutcome::Send(frames) => {
                for index in frames {
                    let [Part::Bytes(bytes)] = deliveries.frames[*index as usize].parts.as_slice() else { panic!("a frame of parts") };
                    send(bytes);
                }
            }
            GroupOutcome::Leave(last) => {
                self.pubsub.subscriptions.borrow_mut().remove(&(id, subscription.topic.clone()));
                if let Some((frame, close)) = last {
                    socket.inbox.push_back(json_of(frame.clone()));
                    socket.closed = Some(close.code);
                }
            }
            GroupOutcome::Skip => {}
            other => panic!("{other:?}"),
        }
    }
}

fn json_of(frame: Frame) -> Json {
    let Frame::Text(text) = frame else { panic!("the server sends text") };
    serde_json::from_str(&text).unwrap()
}

/// A client's end of a socket.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    host: &'a TestHost,
    pub id: ConnectionId,
}

impl Peer<'_> {
    /// Sends one frame as text.
    pub fn send(&self, frame: &Json) {
        self.send_frames(vec![Frame::Text(frame.to_string())]);
    }

    /// Sends frames that the host hands over together.
    pub fn send_frames(&self, frames: Vec<Frame>) -> Option<(u32, u64)> {
        let attachment = self.host.sockets.borrow()[&self.id].attachment.clone();
        let connection = Connection { id: self.id, attachment, cursors: Vec::new(), failure: None };
        let inputs = frames.into_iter().map(Input::Frame).collect();
        let outcome = self.host.mount.receive(self.host.imports(), connection, inputs);
        let defer = outcome.defer;
        self.host.apply(self.id, outcome);
        defer
    }

    /// Sends a frame and takes the one frame that came meanwhile.
    pub fn ask(&self, frame: &Json) -> Json {
        self.take();
        self.send(frame);
        self.one()
    }

    /// Takes everything that came.
    pub fn take(&self) -> Vec<Json> {
        self.host.sockets.borrow_mut().get_mut(&self.id).unwrap().inbox.drain(..).collect()
    }

    /// Takes what came, which is one frame.
    pub fn one(&self) -> Json {
        let mut frames = self.take();
        assert_eq!(frames.len(), 1, "{frames:#?}");
        frames.remove(0)
    }

    /// The code that the server closed with.
    pub fn closed(&self) -> Option<u16> {
        self.host.sockets.borrow()[&self.id].closed
    }

    pub fn attachment(&self) -> Attachment {
        Attachment::decode(&self.host.sockets.borrow()[&self.id].attachment).unwrap()
    }
}

/// Somebody with a signing key.
pub struct Author {
    key: SigningKey,
    pub pub_key: String,
}

impl Author {
    pub fn new(seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let pub_key = base64url(key.verifying_key());
        Self { key, pub_key }
    }

    /// Signs a frame; `pubKey` is put in.
    pub fn sign(&self, context: &str, ciphertext: &str, mut public_data: Json) -> Json {
        public_data["pubKey"] = self.pub_key.clone().into();
        self.sign_as_is(context, ciphertext, public_data)
    }

    /// Signs a frame.
    pub fn sign_as_is(&self, context: &str, ciphertext: &str, public_data: Json) -> Json {
        let nonce = base64url([3; 24]);
        let canonical = serde_json_canonicalizer::to_string(&public_data).unwrap();
        let signed = json!({"ciphertext": ciphertext, "nonce": nonce, "publicData": base64url(canonical)});
        let message = format!("{context}{}", serde_json_canonicalizer::to_string(&signed).unwrap());
        let signature = base64url(self.key.sign(message.as_bytes()).to_bytes());
        json!({"ciphertext": ciphertext, "nonce": nonce, "publicData": public_data, "signature": signature})
    }

    /// A snapshot on a parent (none: a first one) with the clocks that its creator saw there.
    pub fn snapshot(&self, doc_id: &str, id: &str, parent: Option<&Json>, clocks: Json) -> Json {
        let parent_id = parent.map_or("", |parent| parent["publicData"]["snapshotId"].as_str().unwrap());
        let proof = match parent {
            None => verify::parent_snapshot_proof("", "", ""),
            Some(parent) => verify::parent_snapshot_proof(
                parent["publicData"]["parentSnapshotProof"].as_str().unwrap(),
                &verify::hash(parent["ciphertext"].as_str().unwrap()),
                parent_id,
            ),
        };
        let public_data = json!({"docId": doc_id, "snapshotId": id, "parentSnapshotId": parent_id,
            "parentSnapshotProof": proof, "parentSnapshotUpdateClocks": clocks});
        self.sign("secsync_snapshot", &ciphertext(id), public_data)
    }

    pub fn update(&self, doc_id: &str, snapshot_id: &str, clock: u64, text: &str) -> Json {
        let public_data = json!({"docId": doc_id, "refSnapshotId": snapshot_id, "clock": clock});
        self.sign("secsync_update", &ciphertext(text), public_data)
    }

    pub fn ephemeral_message(&self, doc_id: &str, text: &str) -> Json {
        self.sign("secsync_ephemeral_message", &ciphertext(text), json!({"docId": doc_id}))
    }
}

/// Something that looks like a ciphertext.
pub fn ciphertext(text: &str) -> String {
    base64url([&[7; 48], text.as_bytes()].concat())
}

pub fn saved(snapshot_id: &str, clock: u64) -> Json {
    json!({"type": "update-saved", "snapshotId": snapshot_id, "clock": clock})
}

pub fn refused(snapshot_id: &str, clock: u64) -> Json {
    json!({"type": "update-save-failed", "snapshotId": snapshot_id, "clock": clock, "requiresNewSnapshot": false})
}

pub fn failed() -> Json {
    json!({"type": "snapshot-save-failed"})
}

pub fn empty_document() -> Json {
    json!({"type": "document", "updates": [], "snapshotProofChain": []})
}
