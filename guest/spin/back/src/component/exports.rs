//! The exports of `syncline:host`.

use std::cell::RefCell;

use super::{Component, back};
use crate::bindings::exports::syncline::host::{effects, executor, pubsub, storage};
use crate::executor::{Handle, View};

/// A transaction that the logic holds.
pub(super) struct OpenTransaction {
    handle: Handle,
    /// Committing consumes it: then dropping it must not roll back.
    ended: RefCell<bool>,
}

/// A view that the logic holds.
pub(super) struct OpenSnapshot(Option<View>);

impl executor::Guest for Component {
    type Snapshot = OpenSnapshot;
    type Transaction = OpenTransaction;

    fn describe(database: String) -> Result<executor::DatabaseInfo, executor::Error> {
        back(|back| back.describe(&database))
    }
}

impl executor::GuestSnapshot for OpenSnapshot {
    fn open(database: String) -> Result<executor::Snapshot, executor::Error> {
        back(|back| back.open_view(&database)).map(|view| executor::Snapshot::new(Self(Some(view))))
    }

    fn query(&self, statement: executor::Statement, row_limit: Option<u32>) -> Result<executor::RowSet, executor::Error> {
        match &self.0 {
            Some(view) => back(|back| back.query(view, &statement, row_limit)),
            None => Err(executor::Error::InvalidStatement("the snapshot is closed".into())),
        }
    }
}

impl Drop for OpenSnapshot {
    fn drop(&mut self) {
        if let Some(view) = self.0.take() {
            back(|back| back.close_view(view));
        }
    }
}

impl executor::GuestTransaction for OpenTransaction {
    fn begin(database: String) -> Result<executor::Transaction, executor::Error> {
        let handle = back(|back| back.begin_transaction(&database))?;
        Ok(executor::Transaction::new(Self { handle, ended: RefCell::new(false) }))
    }

    fn execute(&self, statement: executor::Statement) -> Result<executor::RowSet, executor::Error> {
        let mut sets = back(|back| back.execute(self.handle, std::slice::from_ref(&statement)))?;
        sets.pop().ok_or_else(|| executor::Error::Unavailable("a statement gave nothing".into()))
    }

    fn execute_batch(&self, statements: Vec<executor::Statement>) -> Result<Vec<executor::RowSet>, executor::Error> {
        back(|back| back.execute(self.handle, &statements))
    }

    fn savepoint(&self) -> Result<u32, executor::Error> {
        back(|back| back.savepoint(self.handle))
    }

    fn release(&self, savepoint: u32) -> Result<(), executor::Error> {
        back(|back| back.release(self.handle, savepoint))
    }

    fn rollback_to(&self, savepoint: u32) -> Result<(), executor::Error> {
        back(|back| back.rollback_to(self.handle, savepoint))
    }

    fn commit(this: executor::Transaction) -> Result<(), executor::Error> {
        let open: Self = this.into_inner();
        open.ended.replace(true);
        back(|back| back.commit(open.handle))
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if !*self.ended.borrow() {
            back(|back| back.drop_transaction(self.handle));
        }
    }
}

fn range(range: Option<storage::ByteRange>) -> Option<(u64, u64)> {
    range.map(|range| (range.start, range.length))
}

impl storage::Guest for Component {
    fn get(key: String) -> Result<Option<Vec<u8>>, storage::Error> {
        back(|back| back.get(&key))
    }

    fn set(key: String, value: Vec<u8>, time_to_live_ms: Option<u64>) -> Result<(), storage::Error> {
        back(|back| back.set(key, value, time_to_live_ms))
    }

    fn delete(key: String) -> Result<(), storage::Error> {
        back(|back| back.delete(key))
    }

    fn increment(key: String, delta: i64, time_to_live_ms: Option<u64>) -> Result<i64, storage::Error> {
        back(|back| back.increment(&key, delta, time_to_live_ms))
    }

    fn compare_and_set(key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<bool, storage::Error> {
        back(|back| back.compare_and_set(&key, expected.as_deref(), &value))
    }

    fn keys(prefix: String, after: Option<String>, limit: u32) -> Result<Vec<String>, storage::Error> {
        back(|back| back.keys(&prefix, after.as_deref(), limit))
    }

    fn note(key: String, value: Vec<u8>) {
        back(|back| back.note(key, value));
    }

    fn noted(key: String) -> Option<Vec<u8>> {
        back(|back| back.noted(&key))
    }

    fn head_object(key: String) -> Result<storage::ObjectInfo, storage::Error> {
        back(|back| back.head_object(&key))
    }

    fn read_object(key: String, wanted: Option<storage::ByteRange>) -> Result<Vec<u8>, storage::Error> {
        back(|back| back.read_object(&key, range(wanted)))
    }

    fn write_object(key: String, content_type: String, content: Vec<u8>) -> Result<storage::ObjectInfo, storage::Error> {
        back(|back| back.write_object(&key, &content_type, content))
    }

    fn delete_object(key: String) -> Result<(), storage::Error> {
        back(|back| back.delete_object(key))
    }

    fn list_objects(prefix: String, after: Option<String>, limit: u32) -> Result<Vec<(String, storage::ObjectInfo)>, storage::Error> {
        back(|back| back.list_objects(&prefix, after.as_deref(), limit))
    }

    fn presign_download(key: String, valid_ms: u64) -> Result<Option<String>, storage::Error> {
        back(|back| back.presign_download(&key, valid_ms))
    }

    fn presign_upload(key: String, _sha256: String, _max_bytes: u64, valid_ms: u64) -> Result<Option<String>, storage::Error> {
        back(|back| back.presign_upload(&key, valid_ms))
    }
}

impl pubsub::Guest for Component {
    fn publish(publication: pubsub::Publication) {
        back(|back| back.publish(publication));
    }

    fn subscribe(connection: pubsub::ConnectionId, subscription: pubsub::Subscription) {
        back(|back| back.subscribe(connection, subscription));
    }

    fn unsubscribe(connection: pubsub::ConnectionId, topic: String) {
        back(|back| back.unsubscribe(connection, topic));
    }

    fn members(topic: String) -> Vec<pubsub::Member> {
        back(|back| back.members(&topic))
    }

    fn send(connection: pubsub::ConnectionId, frame: pubsub::Frame) {
        back(|back| back.send(connection, frame));
    }

    fn schedule(name: String, due: u64, payload: Vec<u8>) {
        back(|back| back.schedule(&name, due, &payload));
    }

    fn cancel(name: String) {
        back(|back| back.cancel(&name));
    }
}

impl effects::Guest for Component {
    fn post(post: effects::OutboundPost) {
        back(|back| back.post(post));
    }

    fn measure(metric: effects::Metric) {
        back(|back| back.measure(metric));
    }

    fn measured() -> Vec<effects::Metric> {
        back(|back| back.measured())
    }

    fn log(level: effects::Level, message: String, fields: String) {
        back(|back| back.log(level, &message, &fields));
    }

    fn refresh_document(name: String) -> Option<Vec<u8>> {
        back(|back| back.refresh_asked(&name))
    }
}
