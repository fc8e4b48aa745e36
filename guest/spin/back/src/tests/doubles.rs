//! Doubles of Spin with its traps: of a text only the first statement runs, every open is a connection of its own, a statement
//! that is refused says so in words alone, keys of a store come without an order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::types::{Value as Stored, ValueRef};

use crate::back::Back;
use crate::bindings::exports::syncline::spin::adapter;
use crate::ports::{
    Clock, Http, KeyValue, KeyValuePort, Log, PortError, Ports, PostgresConnection, PostgresPort, Redis, RedisPort, Reply, Request,
    SqliteConnection, SqlitePort,
};
use crate::sql::Value;

/// What stands outside of an instance: it outlives those that use it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) folder: Rc<tempfile::TempDir>,
    pub(super) now_ms: Rc<Cell<u64>>,
    pub(super) random: Rc<Cell<u64>>,
    pub(super) facts: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
    pub(super) redis: Rc<RefCell<RedisServer>>,
    /// Answers that come next, in order; where there is none nobody answers.
    pub(super) replies: Rc<RefCell<VecDeque<Result<Reply, String>>>>,
    pub(super) requests: Rc<RefCell<Vec<Request>>>,
    pub(super) lines: Rc<RefCell<Vec<String>>>,
    /// Connections to SQLite that are open.
    pub(super) connections: Rc<Cell<usize>>,
    /// Statements that were run, over all connections.
    pub(super) statements: Rc<RefCell<Vec<String>>>,
    /// How long a connection waits for the writer.
    pub(super) busy_ms: u64,
}

#[derive(Default)]
pub(super) struct RedisServer {
    pub(super) values: BTreeMap<String, String>,
    pub(super) published: Vec<(String, String)>,
    pub(super) away: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            folder: Rc::new(tempfile::tempdir().unwrap()),
            now_ms: Rc::new(Cell::new(1_700_000_000_000)),
            random: Rc::new(Cell::new(1)),
            facts: Rc::default(),
            redis: Rc::default(),
            replies: Rc::default(),
            requests: Rc::default(),
            lines: Rc::default(),
            connections: Rc::default(),
            statements: Rc::default(),
            busy_ms: 0,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        Ports {
            sqlite: Box::new(self.clone()),
            postgres: Box::new(self.clone()),
            key_value: Box::new(self.clone()),
            redis: Box::new(self.clone()),
            http: Box::new(self.clone()),
            clock: Box::new(self.clone()),
            log: Box::new(self.clone()),
        }
    }

    /// An instance that was opened with the settings of [`settings`], changed as told, and knows the mount `m`.
    pub(super) fn instance_with(&self, change: impl FnOnce(&mut adapter::Settings)) -> Back {
        let back = Back::new(self.ports());
        let mut settings = settings();
        change(&mut settings);
        back.open(settings).unwrap();
        back.know(mount("m"));
        back
    }

    pub(super) fn instance(&self) -> Back {
        self.instance_with(|_| {})
    }

    /// A connection of somebody else to the same file.
    pub(super) fn other_connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_millis(self.busy_ms)).unwrap();
        connection
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sqlite_db.db")
    }

    pub(super) fn pass_ms(&self, milliseconds: u64) {
        self.now_ms.set(self.now_ms.get() + milliseconds);
    }

    pub(super) fn reply(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        self.replies.borrow_mut().push_back(Ok(Reply { status, headers, body: body.to_vec() }));
    }
}

pub(super) fn settings() -> adapter::Settings {
    adapter::Settings {
        database: adapter::Database::Sqlite("default".into()),
        key_value: "default".into(),
        objects: adapter::Objects::Database,
        redis: None,
        gateway_secret: None,
        limits: adapter::Limits { transaction_ms: 1000, long_ms: 60_000, object_bytes: 16 << 20, quota_bytes: None },
    }
}

pub(super) fn mount(name: &str) -> adapter::Mount {
    adapter::Mount { name: name.into(), folders: Vec::new(), documents: Vec::new(), post_targets: vec!["https://hooks.example/a".into()] }
}

struct SqliteFake {
    connection: rusqlite::Connection,
    world: World,
}

impl SqlitePort for World {
    fn open(&self, label: &str) -> Result<Box<dyn SqliteConnection>, PortError> {
        if label != "default" {
            return Err(PortError::Forbidden("no such database".into()));
        }
        let connection = self.other_connection();
        connection.execute_batch("PRAGMA foreign_keys = 1; PRAGMA synchronous = OFF").unwrap();
        self.connections.set(self.connections.get() + 1);
        Ok(Box::new(SqliteFake { connection, world: self.clone() }))
    }
}

impl Drop for SqliteFake {
    fn drop(&mut self) {
        self.world.connections.set(self.world.connections.get() - 1);
    }
}

impl SqliteConnection for SqliteFake {
    fn execute(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, PortError> {
        self.world.statements.borrow_mut().push(sql.to_owned());
        let said = |error: rusqlite::Error| PortError::Said(error.to_string());
        let given = parameters.iter().map(|value| match value {
            Value::Null => Stored::Null,
            Value::Integer(number) => Stored::Integer(*number),
            Value::Real(number) => Stored::Real(*number),
            Value::Text(text) => Stored::Text(text.clone()),
            Value::Blob(bytes) => Stored::Blob(bytes.clone()),
        });
        let mut prepared = self.connection.prepare(first(sql)).map_err(said)?;
        let columns = prepared.column_count();
        let mut rows = prepared.query(rusqlite::params_from_iter(given)).map_err(said)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(said)? {
            let cell = |index| match row.get_ref(index).unwrap() {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                // Spin's host panics on text that is none.
                ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).expect("text is UTF-8")),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            };
            found.push((0..columns).map(cell).collect());
        }
        Ok(found)
    }
}

/// The driver of the tests refuses several statements; Spin's runs the first.
fn first(sql: &str) -> &str {
    let is_trigger = sql.to_ascii_lowercase().contains("create trigger");
    match sql.split_once(';') {
        Some((first, _)) if !is_trigger && !sql.contains('\'') => first,
        _ => sql,
    }
}

impl PostgresPort for World {
    fn open(&self, _: &str) -> Result<Box<dyn PostgresConnection>, PortError> {
        Err(PortError::Away("there is no PostgreSQL here".into()))
    }
}

impl KeyValuePort for World {
    fn open(&self, label: &str) -> Result<Box<dyn KeyValue>, PortError> {
        match label {
            "default" => Ok(Box::new(self.clone())),
            _ => Err(PortError::Forbidden("no such store".into())),
        }
    }
}

impl KeyValue for World {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.facts.borrow().get(key).cloned())
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), PortError> {
        self.facts.borrow_mut().insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), PortError> {
        self.facts.borrow_mut().remove(key);
        Ok(())
    }
}

impl RedisPort for World {
    fn open(&self, _: &str) -> Result<Box<dyn Redis>, PortError> {
        match self.redis.borrow().away {
            true => Err(PortError::Away("nobody there".into())),
            false => Ok(Box::new(self.clone())),
        }
    }
}

impl Redis for World {
    fn command(&self, command: &str, arguments: &[&[u8]]) -> Result<Option<Vec<u8>>, PortError> {
        let mut redis = self.redis.borrow_mut();
        if redis.away {
            return Err(PortError::Said("broken pipe".into()));
        }
        let text = |index: usize| String::from_utf8(arguments[index].to_vec()).unwrap();
        match command {
            // The one script that there is.
            "EVAL" => {
                let (key, position): (String, u64) = (text(2), text(3).parse().unwrap());
                let known = redis.values.get(&key).map_or(0, |known| known.parse().unwrap());
                if position > known {
                    redis.values.insert(key, position.to_string());
                }
                Ok(Some(b"1".to_vec()))
            }
            "GET" => Ok(redis.values.get(&text(0)).map(|value| value.clone().into_bytes())),
            "PUBLISH" => {
                redis.published.push((text(0), text(1)));
                Ok(Some(b"0".to_vec()))
            }
            other => Err(PortError::Said(format!("unknown command {other}"))),
        }
    }
}

impl Http for World {
    fn send(&self, request: &Request) -> Result<Reply, String> {
        self.requests.borrow_mut().push(request.clone());
        self.replies.borrow_mut().pop_front().unwrap_or_else(|| Err("nobody answers".into()))
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    fn sleep_ms(&self, milliseconds: u64) {
        self.pass_ms(milliseconds);
    }

    fn random(&self) -> u64 {
        // Odd: cleaning up does not happen by chance.
        let next = self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        next | 1
    }
}

impl Log for World {
    fn line(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}
