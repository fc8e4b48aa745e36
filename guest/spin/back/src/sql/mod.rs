//! SQL in both dialects: connections that run one statement at a time and speak the errors of the contract.
//!
//! Nothing here knows of calls or mounts. Promise: what a connection was told to run is exactly one statement, for Spin drops
//! whatever follows the first without a word.

mod database;
mod failure;
mod postgres;
mod present;
mod rows;
mod scan;
mod sqlite;
mod values;

pub use database::{Database, Reader};
pub use failure::{postgres_error, sqlite_error};
pub use rows::{Limits, row_set};
pub use scan::{Shape, shape};

pub use crate::bindings::exports::syncline::host::executor::{ConstraintKind, DatabaseInfo, Dialect, Error, RowSet, Statement, Value};

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted.
    pub changed: u64,
}

/// A statement of the adapter's own, as a template, and its parameters.
pub type Write = (&'static str, Vec<Value>);

/// Runs statements of the adapter's own (templates) wherever the caller has it done.
pub type Run<'a> = &'a mut dyn FnMut(&str, &[Value]) -> Result<Answer, Error>;

/// A connection that is used by one at a time.
pub trait Link {
    /// Runs one statement.
    fn run(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error>;
    /// The same for a statement of the logic, which must not do what only the adapter does.
    fn run_foreign(&self, statement: &Statement) -> Result<Answer, Error>;
    /// Runs a reading statement of the logic, whose rows above a number need not come.
    fn read_foreign(&self, statement: &Statement, rows_max: u32) -> Result<Answer, Error>;
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Blob(bytes)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value::Blob(bytes.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A number of ours that has no sign as the databases keep it.
pub fn number(unsigned: u64) -> Value {
    Value::Integer(i64::try_from(unsigned).unwrap_or(i64::MAX))
}

/// A cell that holds a number without a sign.
pub fn unsigned(cell: &Value) -> Result<u64, Error> {
    match cell {
        Value::Integer(number) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

/// A cell that holds bytes.
pub fn bytes(cell: Value) -> Result<Vec<u8>, Error> {
    match cell {
        Value::Blob(bytes) => Ok(bytes),
        _ => Err(unexpected()),
    }
}

/// A cell that holds text.
pub fn text(cell: Value) -> Result<String, Error> {
    match cell {
        Value::Text(text) => Ok(text),
        _ => Err(unexpected()),
    }
}

/// A row with so many cells.
pub fn cells<const N: usize>(row: Vec<Value>) -> Result<[Value; N], Error> {
    <[Value; N]>::try_from(row).map_err(|_| unexpected())
}

fn unexpected() -> Error {
    Error::Unavailable("a table of the adapter does not hold what was written there".into())
}
