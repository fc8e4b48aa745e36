//! What the adapter needs of the world, as small traits: the component has Spin behind them, tests have doubles.

use crate::sql::Value;

/// Why a port did not do what it was asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PortError {
    /// In the words of whoever refused: what they mean is found out by who asked.
    #[error("{0}")]
    Said(String),
    /// There is no such thing, or this component may not have it: the manifest or the settings are wrong.
    #[error("{0}")]
    Forbidden(String),
    /// It cannot be reached.
    #[error("{0}")]
    Away(String),
}

/// Spin's SQLite.
pub trait SqlitePort {
    /// An own connection to a database. It ends, and rolls back, when it is dropped.
    fn open(&self, label: &str) -> Result<Box<dyn SqliteConnection>, PortError>;
}

/// A connection to Spin's SQLite.
pub trait SqliteConnection {
    /// Runs the first statement of a text, no other: all its rows.
    fn execute(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, PortError>;
}

/// Spin's PostgreSQL.
pub trait PostgresPort {
    /// A connection from the host's pool, in whatever state its last user left it.
    fn open(&self, address: &str) -> Result<Box<dyn PostgresConnection>, PortError>;
}

/// A parameter as it is bound: the server must want exactly this type.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// NULL of any type.
    Null,
    /// `boolean`.
    Boolean(bool),
    /// `smallint`.
    Int16(i16),
    /// `integer`.
    Int32(i32),
    /// `bigint`.
    Int64(i64),
    /// `real`.
    Float32(f32),
    /// `double precision`.
    Float64(f64),
    /// `text` and what is like it.
    Text(String),
    /// `bytea`.
    Bytes(Vec<u8>),
}

/// A cell as it comes; none where its type has no form here.
pub type Cell = Option<Value>;

/// A connection to a PostgreSQL server.
pub trait PostgresConnection {
    /// Runs a statement: all its rows.
    fn query(&self, sql: &str, parameters: &[Bound]) -> Result<Vec<Vec<Cell>>, PortError>;
    /// Runs a statement: how many rows it changed.
    fn execute(&self, sql: &str, parameters: &[Bound]) -> Result<u64, PortError>;
}

/// Spin's key-value store.
pub trait KeyValue {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError>;
    /// Sets a key; durable when it returns.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), PortError>;
    /// Removes a key.
    fn delete(&self, key: &str) -> Result<(), PortError>;
}

/// Opens key-value stores.
pub trait KeyValuePort {
    /// The store behind a label.
    fn open(&self, label: &str) -> Result<Box<dyn KeyValue>, PortError>;
}

/// A connection to Redis.
pub trait Redis {
    /// Runs a command whose answer is nothing, a text or a number; a list gives its first part.
    fn command(&self, command: &str, arguments: &[&[u8]]) -> Result<Option<Vec<u8>>, PortError>;
}

/// Opens connections to Redis.
pub trait RedisPort {
    /// Connects to `redis://…`.
    fn open(&self, address: &str) -> Result<Box<dyn Redis>, PortError>;
}

/// A request to somebody else's server.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// In upper case.
    pub method: &'static str,
    /// Absolute, http or https.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Sent as it is.
    pub body: Vec<u8>,
    /// Time for all of it.
    pub timeout_ms: u64,
    /// A longer answer is an error; none: its body is not read.
    pub answer_bytes_max: Option<usize>,
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, where it was to be read.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// Makes requests.
pub trait Http {
    /// The answer, or why there is none.
    fn send(&self, request: &Request) -> Result<Reply, String>;
}

/// Time and chance.
pub trait Clock {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// Waits.
    fn sleep_ms(&self, milliseconds: u64);
    /// A number that nobody can guess.
    fn random(&self) -> u64;
}

/// Where lines of the log go.
pub trait Log {
    /// Writes one line.
    fn line(&self, line: &str);
}

/// All of it.
pub struct Ports {
    /// SQLite.
    pub sqlite: Box<dyn SqlitePort>,
    /// PostgreSQL.
    pub postgres: Box<dyn PostgresPort>,
    /// Key-value.
    pub key_value: Box<dyn KeyValuePort>,
    /// Redis.
    pub redis: Box<dyn RedisPort>,
    /// HTTP.
    pub http: Box<dyn Http>,
    /// Time.
    pub clock: Box<dyn Clock>,
    /// The log.
    pub log: Box<dyn Log>,
}
