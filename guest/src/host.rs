//! The traits of [`crate::imports`] over the imports of the contract, for the components made of this library. Outside a
//! component these functions do not work.

use crate::contract::syncline::app::app;
use crate::contract::syncline::host::{effects, executor, pubsub, storage};
use crate::imports::{
    App, AppFailure, ByteRange, Caller, ConnectionId, DatabaseInfo, Effects, Executor, Frame, Identity, Imports, Level, Member, Metric,
    ObjectInfo, OutboundPost, PubSub, Publication, Query, Reply, RouteRequest, RouteResponse, RowSet, Snapshot, SqlError, Statement,
    Storage, StorageError, Subscription, Transaction, Verdict,
};
use crate::rows;

/// The imports as this instance has them.
pub struct Host;

/// The imports for one call. `app` is [`Host`] itself in the logic, and nothing in services, which must not import the app
/// that imports them.
pub fn imports(app: &'static dyn App) -> Imports<'static> {
    Imports { executor: &Host, storage: &Host, pubsub: &Host, effects: &Host, app, now_ms: now_ms() }
}

fn now_ms() -> u64 {
    // A clock before 1970 counts as 1970: nothing breaks, jobs are just due.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

struct OpenSnapshot(executor::Snapshot);
struct OpenTransaction(executor::Transaction);

/// A lent snapshot.
pub struct LentSnapshot<'a>(pub &'a executor::Snapshot);

impl Executor for Host {
    fn describe(&self, database: &str) -> Result<DatabaseInfo, SqlError> {
        executor::describe(database)
    }
    fn snapshot(&self, database: &str) -> Result<Box<dyn Snapshot>, SqlError> {
        Ok(Box::new(OpenSnapshot(executor::Snapshot::open(database)?)))
    }
    fn begin(&self, database: &str) -> Result<Box<dyn Transaction>, SqlError> {
        Ok(Box::new(OpenTransaction(executor::Transaction::begin(database)?)))
    }
}

impl Query for OpenSnapshot {
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError> {
        rows::decoded(self.0.query(&statement, row_limit)?)
    }
}

impl Query for LentSnapshot<'_> {
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError> {
        rows::decoded(self.0.query(&statement, row_limit)?)
    }
}

impl Snapshot for OpenSnapshot {
    fn into_handle(self: Box<Self>) -> Option<executor::Snapshot> {
        Some(self.0)
    }
}

impl Query for OpenTransaction {
    fn query(&self, statement: Statement, row_limit: Option<u32>) -> Result<RowSet, SqlError> {
        let mut rows = self.execute(statement)?;
        if let Some(limit) = row_limit.and_then(|limit| usize::try_from(limit).ok())
            && rows.rows.len() > limit
        {
            rows.rows.truncate(limit);
            rows.truncated = true;
        }
        Ok(rows)
    }
}

impl Transaction for OpenTransaction {
    fn execute(&self, statement: Statement) -> Result<RowSet, SqlError> {
        rows::decoded(self.0.execute(&statement)?)
    }
    fn execute_batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, SqlError> {
        self.0.execute_batch(&statements)?.into_iter().map(rows::decoded).collect()
    }
    fn savepoint(&self) -> Result<u32, SqlError> {
        self.0.savepoint()
    }
    fn release(&self, savepoint: u32) -> Result<(), SqlError> {
        self.0.release(savepoint)
    }
    fn rollback_to(&self, savepoint: u32) -> Result<(), SqlError> {
        self.0.rollback_to(savepoint)
    }
    fn commit(self: Box<Self>) -> Result<(), SqlError> {
        executor::Transaction::commit(self.0)
    }
}

impl Storage for Host {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        storage::get(key)
    }
    fn set(&self, key: &str, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), StorageError> {
        storage::set(key, &value, time_to_live_ms)
    }
    fn delete(&self, key: &str) -> Result<(), StorageError> {
        storage::delete(key)
    }
    fn increment(&self, key: &str, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, StorageError> {
        storage::increment(key, delta, time_to_live_ms)
    }
    fn compare_and_set(&self, key: &str, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, StorageError> {
        storage::compare_and_set(key, expected.as_deref(), &value)
    }
    fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, StorageError> {
        storage::keys(prefix, after, limit)
    }
    fn note(&self, key: &str, value: &[u8]) {
        storage::note(key, value);
    }
    fn noted(&self, key: &str) -> Option<Vec<u8>> {
        storage::noted(key)
    }
    fn head_object(&self, key: &str) -> Result<ObjectInfo, StorageError> {
        storage::head_object(key)
    }
    fn read_object(&self, key: &str, range: Option<ByteRange>) -> Result<Vec<u8>, StorageError> {
        storage::read_object(key, range)
    }
    fn write_object(&self, key: &str, content_type: &str, content: Vec<u8>) -> Result<ObjectInfo, StorageError> {
        storage::write_object(key, content_type, &content)
    }
    fn delete_object(&self, key: &str) -> Result<(), StorageError> {
        storage::delete_object(key)
    }
    fn list_objects(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        storage::list_objects(prefix, after, limit)
    }
    fn presign_download(&self, key: &str, valid_ms: u64) -> Result<Option<String>, StorageError> {
        storage::presign_download(key, valid_ms)
    }
    fn presign_upload(&self, key: &str, sha256: &str, bytes_max: u64, valid_ms: u64) -> Result<Option<String>, StorageError> {
        storage::presign_upload(key, sha256, bytes_max, valid_ms)
    }
}

impl PubSub for Host {
    fn publish(&self, publication: Publication) {
        pubsub::publish(&publication);
    }
    fn subscribe(&self, connection: ConnectionId, subscription: Subscription) {
        pubsub::subscribe(connection, &subscription);
    }
    fn unsubscribe(&self, connection: ConnectionId, topic: &str) {
        pubsub::unsubscribe(connection, topic);
    }
    fn members(&self, topic: &str) -> Vec<Member> {
        pubsub::members(topic)
    }
    fn send(&self, connection: ConnectionId, frame: Frame) {
        pubsub::send(connection, &frame);
    }
    fn schedule(&self, name: &str, due_ms: u64, payload: Vec<u8>) {
        pubsub::schedule(name, due_ms, &payload);
    }
    fn cancel(&self, name: &str) {
        pubsub::cancel(name);
    }
}

impl Effects for Host {
    fn post(&self, post: OutboundPost) {
        effects::post(&post);
    }
    fn measure(&self, metric: Metric) {
        effects::measure(&metric);
    }
    fn measured(&self) -> Vec<Metric> {
        effects::measured()
    }
    fn log(&self, level: Level, message: &str, fields: &str) {
        effects::log(level, message, fields);
    }
    fn refresh_document(&self, name: &str) -> Option<Vec<u8>> {
        effects::refresh_document(name)
    }
}

impl App for Host {
    fn describe(&self) -> String {
        app::describe()
    }
    fn authenticate(&self, mount: &str, credentials: &str, request: &str) -> Result<Identity, AppFailure> {
        app::authenticate(mount, credentials, request)
    }
    fn authorize(&self, caller: &Caller, action: &str, objects: &[String]) -> Vec<bool> {
        app::authorize(caller, action, objects)
    }
    fn mutate(&self, caller: &Caller, name: &str, arguments: &str) -> Result<String, AppFailure> {
        app::mutate(caller, name, arguments)
    }
    fn validate(&self, caller: &Caller, operation: &str) -> Verdict {
        app::validate(caller, operation)
    }
    fn call(&self, caller: &Caller, method: &str, parameters: &str) -> Result<Reply, AppFailure> {
        app::call(caller, method, parameters)
    }
    fn event(&self, caller: &Caller, name: &str, data: &str) -> Result<Reply, AppFailure> {
        app::event(caller, name, data)
    }
    fn route(&self, caller: &Caller, request: &RouteRequest) -> RouteResponse {
        app::route(caller, request)
    }
}
