//! What a host gives, as traits: the logic is a plain library over these and runs wherever they are provided.
//!
//! Inside the component they are thin shells over the imports of `wit/`; in property tests and benchmarks they are
//! native. Shapes, units and errors are those of the contract (`wit/deps/host/*.wit`).

use crate::contract::syncline::app::app;
use crate::contract::syncline::host::{effects, executor, pubsub, storage, types};

pub use app::{Caller, Failure as AppFailure, Identity, Reply, RouteRequest, RouteResponse, Verdict};

pub use effects::{Kind as MetricKind, Level, Metric, OutboundPost};
pub use executor::{ConstraintKind, DatabaseInfo, Dialect, Error as SqlError, Statement, Value};
pub use pubsub::{Class, Member, Mode, Order, Publication, Subscription};
pub use storage::{ByteRange, Error as StorageError, ObjectInfo};
pub use types::{Close, Frame, Header, RequestHead};

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet {
    /// The rows, equally long.
    pub rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted.
    pub changed: u64,
    /// More rows exist than the limit let through.
    pub truncated: bool,
}

/// A connection's id: unique over all processes and restarts.
pub type ConnectionId = u64;

/// SQL (`syncline:host/executor`).
pub trait Executor {
    /// Dialect and table prefix of a database.
    fn describe(&self, database: &str) -> Result<DatabaseInfo, SqlError>;
    /// A consistent view over any number of queries.
    fn snapshot(&self, database: &str) -> Result<Box<dyn Snapshot>, SqlError>;
    /// Becomes the only writer of the database until the transaction is committed or dropped.
    fn begin(&self, database: &str) -> Result<Box<dyn Transaction>, SqlError>;
}

/// Something that answers queries: a snapshot, or a transaction that reads its own writes.
pub trait Query {
    /// Runs one statement; at most `row_limit` rows come back (`truncated` says whether there were more).
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError>;
}

/// A consistent view. Dropping it ends it.
pub trait Snapshot: Query {
    /// The handle itself, to be lent to the pieces of a generated response; none outside a component.
    fn into_handle(self: Box<Self>) -> Option<executor::Snapshot>;
}

/// An open transaction. Dropping it rolls back.
pub trait Transaction: Query {
    /// Runs one statement.
    fn execute(&self, statement: Statement) -> Result<RowSet, SqlError>;
    /// Runs several, stopping at the first error.
    fn execute_batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, SqlError>;
    /// Marks a point to which one can go back.
    fn savepoint(&self) -> Result<u32, SqlError>;
    /// Forgets a savepoint and keeps its changes.
    fn release(&self, savepoint: u32) -> Result<(), SqlError>;
    /// Undoes what happened since a savepoint, which stays.
    fn rollback_to(&self, savepoint: u32) -> Result<(), SqlError>;
    /// Commits. The data is durable before anything that this call lets out leaves the host.
    fn commit(self: Box<Self>) -> Result<(), SqlError>;
}

/// Key-value facts and objects (`syncline:host/storage`).
pub trait Storage {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError>;
    /// Sets a key once the call's effects are released; the call itself sees it at once.
    fn set(&self, key: &str, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), StorageError>;
    /// Removes a key, as [`Storage::set`] sets it.
    fn delete(&self, key: &str) -> Result<(), StorageError>;
    /// Adds to a counter at once and gives the sum; the call is not run again afterwards.
    fn increment(&self, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, StorageError>;
    /// Sets the key if it holds `expected`; at once, as [`Storage::increment`].
    fn compare_and_set(&self, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError>;
    /// Keys with a prefix, in order, after one.
    fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError>;
    /// Leaves a word for the services of the app, until the call ends. Nobody hears it where there are none.
    fn note(&self, _key: &str, _value: &[u8]) {}
    /// What was noted in this call.
    fn noted(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }
    /// What is known of an object.
    fn head_object(&self, key: &str) -> Result<ObjectInfo, StorageError>;
    /// An object's bytes, or a range of them.
    fn read_object(&self, key: &str, range: Option<ByteRange>) -> Result<Vec<u8>, StorageError>;
    /// Writes an object; it is durable when this returns.
    fn write_object(&self, key: &str, content_type: &str, content: Vec<u8>) -> Result<ObjectInfo, StorageError>;
    /// Removes an object; no error where there is none.
    fn delete_object(&self, key: &str) -> Result<(), StorageError>;
    /// Objects with a prefix, in order of their keys, after one.
    fn list_objects(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError>;
    /// A URL that gives an object, for so long; none where the store cannot sign.
    fn presign_download(&self, _key: &str, _valid_ms: u64) -> Result<Option<String>, StorageError> {
        Ok(None)
    }
    /// A URL that takes an object by PUT, for so long; none where the store cannot sign.
    fn presign_upload(&self, _key: &str, _sha256: &str, _bytes_max: u64, _valid_ms: u64) -> Result<Option<String>, StorageError> {
        Ok(None)
    }
}

/// Topics, single connections and durable jobs (`syncline:host/pubsub`).
pub trait PubSub {
    /// Publishes once the call's data is durable.
    fn publish(&self, publication: Publication);
    /// Subscribes at once: what is published from here on waits for the connection.
    fn subscribe(&self, connection: ConnectionId, subscription: Subscription);
    /// Ends a subscription.
    fn unsubscribe(&self, connection: ConnectionId, topic: &str);
    /// Who is subscribed with presence.
    fn members(&self, topic: &str) -> Vec<Member>;
    /// To one connection of this mount, wherever it is.
    fn send(&self, connection: ConnectionId, frame: Frame);
    /// A durable job: `fire` is called at `due_ms` (milliseconds since 1970). The same name replaces.
    fn schedule(&self, name: &str, due_ms: u64, payload: Vec<u8>);
    /// Forgets a job.
    fn cancel(&self, name: &str);
}

/// What else a call lets out (`syncline:host/effects`).
pub trait Effects {
    /// A POST from a durable outbox.
    fn post(&self, post: OutboundPost);
    /// Adds to a counter, sets a gauge, observes.
    fn measure(&self, metric: Metric);
    /// The host's counters and gauges of this mount in this process.
    fn measured(&self) -> Vec<Metric>;
    /// Writes to the log at once; `fields` is a JSON object.
    fn log(&self, level: Level, message: &str, fields: &str);
    /// A document of the plan looks out of date: what the host has after fetching it again.
    fn refresh_document(&self, name: &str) -> Option<Vec<u8>>;
}

/// The user's own logic (`syncline:app/app`). What it does to the database joins the open transaction, if there is one.
///
/// An app that traps or takes too long is a failure whose code is `trapped` or `timed-out`.
pub trait App {
    /// What the app has: a JSON object; empty text where it fell.
    fn describe(&self) -> String;
    /// Whether credentials are good. `request`: JSON of the request's head.
    fn authenticate(&self, mount: &str, credentials: &str, request: &str) -> Result<Identity, AppFailure>;
    /// Whether the caller may, one answer per object; a missing answer means no.
    fn authorize(&self, caller: &Caller, action: &str, objects: &[String]) -> Vec<bool>;
    /// Carries out a named change; put a savepoint before it.
    fn mutate(&self, caller: &Caller, name: &str, arguments: &str) -> Result<String, AppFailure>;
    /// Judges one operation of a client before it is stored.
    fn validate(&self, caller: &Caller, operation: &str) -> Verdict;
    /// An RPC of a client, or a hook under a reserved name that needs an answer.
    fn call(&self, caller: &Caller, method: &str, parameters: &str) -> Result<Reply, AppFailure>;
    /// Something happened.
    fn event(&self, caller: &Caller, name: &str, data: &str) -> Result<Reply, AppFailure>;
    /// Answers a request on one of the app's routes.
    fn route(&self, caller: &Caller, request: &RouteRequest) -> RouteResponse;
}

/// A mount without an app: every function is refused.
pub struct NoApp;

impl NoApp {
    fn refusal() -> AppFailure {
        AppFailure { code: "not-implemented".into(), message: "this mount has no app component".into(), retriable: false }
    }
}

impl App for NoApp {
    fn describe(&self) -> String {
        "{}".into()
    }
    fn authenticate(&self, _mount: &str, _credentials: &str, _request: &str) -> Result<Identity, AppFailure> {
        Err(Self::refusal())
    }
    fn authorize(&self, _caller: &Caller, _action: &str, objects: &[String]) -> Vec<bool> {
        vec![false; objects.len()]
    }
    fn mutate(&self, _caller: &Caller, _name: &str, _arguments: &str) -> Result<String, AppFailure> {
        Err(Self::refusal())
    }
    fn validate(&self, _caller: &Caller, _operation: &str) -> Verdict {
        Verdict::Reject(Self::refusal())
    }
    fn call(&self, _caller: &Caller, _method: &str, _parameters: &str) -> Result<Reply, AppFailure> {
        Err(Self::refusal())
    }
    fn event(&self, _caller: &Caller, _name: &str, _data: &str) -> Result<Reply, AppFailure> {
        Err(Self::refusal())
    }
    fn route(&self, _caller: &Caller, _request: &RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

/// All imports of a call.
#[derive(Clone, Copy)]
pub struct Imports<'a> {
    /// SQL.
    pub executor: &'a dyn Executor,
    /// Key-value and objects.
    pub storage: &'a dyn Storage,
    /// Topics and jobs.
    pub pubsub: &'a dyn PubSub,
    /// Posts, metrics, log.
    pub effects: &'a dyn Effects,
    /// The user's own logic.
    pub app: &'a dyn App,
    /// Milliseconds since 1970, read once per call.
    pub now_ms: u64,
}
