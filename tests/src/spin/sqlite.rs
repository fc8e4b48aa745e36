//! SQLite as Spin gives it: every handle is a connection of its own, and of a text only the first statement runs.
//!
//! Foreign keys hold and whoever meets a lock waits for up to 5 s: so it is with the SQLite that comes with the crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, params_from_iter};
use wasmtime::component::Resource;

use super::bindings::fermyon::spin::sqlite;
use super::instance::{HANDLES_MAX, Instance, RESULT_BYTES_MAX};

/// The only label that there is.
const LABEL: &str = "default";

/// A handle.
pub struct Connection {
    path: PathBuf,
    /// None before the first statement.
    opened: Arc<Mutex<Option<rusqlite::Connection>>>,
}

/// Why a statement gave nothing.
enum Failure {
    /// The component hears of it.
    Told(sqlite::Error),
    /// Spin falls over it, and the request with it.
    Trap(&'static str),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Told(sqlite::Error::Io(error.to_string()))
    }
}

fn open(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Attach { filename } if !matches!(filename, "" | ":memory:") => Authorization::Deny,
        _ => Authorization::Allow,
    }))?;
    Ok(connection)
}

fn cell(value: ValueRef<'_>) -> Result<sqlite::Value, Failure> {
    Ok(match value {
        ValueRef::Null => sqlite::Value::Null,
        ValueRef::Integer(number) => sqlite::Value::Integer(number),
        ValueRef::Real(number) => sqlite::Value::Real(number),
        ValueRef::Text(text) => match String::from_utf8(text.to_vec()) {
            Ok(text) => sqlite::Value::Text(text),
            Err(_) => return Err(Failure::Trap("a text of the database is not UTF-8")),
        },
        ValueRef::Blob(bytes) => sqlite::Value::Blob(bytes.to_vec()),
    })
}

/// About what a value takes in memory, as Spin counts it.
fn size(value: &sqlite::Value) -> usize {
    let more = match value {
        sqlite::Value::Text(text) => text.len(),
        sqlite::Value::Blob(bytes) => bytes.len(),
        sqlite::Value::Null | sqlite::Value::Integer(_) | sqlite::Value::Real(_) => 0,
    };
    size_of::<sqlite::Value>() + more
}

fn execute(connection: &rusqlite::Connection, sql: &str, parameters: Vec<sqlite::Value>) -> Result<sqlite::QueryResult, Failure> {
    let mut batch = Batch::new(connection, sql);
    // A text without a statement gives nothing, without an error.
    let Some(mut statement) = batch.next()? else { return Ok(sqlite::QueryResult { columns: Vec::new(), rows: Vec::new() }) };
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let parameters = parameters.into_iter().map(|parameter| match parameter {
        sqlite::Value::Null => Value::Null,
        sqlite::Value::Integer(number) => Value::Integer(number),
        sqlite::Value::Real(number) => Value::Real(number),
        sqlite::Value::Text(text) => Value::Text(text),
        sqlite::Value::Blob(bytes) => Value::Blob(bytes),
    });
    let mut found = statement.query(params_from_iter(parameters))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let values = (0..columns.len()).map(|column| cell(row.get_ref(column)?)).collect::<Result<Vec<_>, _>>()?;
        bytes += values.iter().map(size).sum::<usize>();
        if bytes > RESULT_BYTES_MAX {
            let message = format!("query result exceeds limit of {RESULT_BYTES_MAX} bytes");
            return Err(Failure::Told(sqlite::Error::Io(message)));
        }
        rows.push(sqlite::RowResult { values });
    }
    Ok(sqlite::QueryResult { columns, rows })
}

impl sqlite::Host for Instance {}

impl sqlite::HostConnection for Instance {
    async fn open(&mut self, label: String) -> wasmtime::Result<Result<Resource<Connection>, sqlite::Error>> {
        if label != LABEL {
            return Ok(Err(sqlite::Error::AccessDenied));
        }
        if self.sqlite_handles >= HANDLES_MAX {
            return Ok(Err(sqlite::Error::Io("too many connections opened".into())));
        }
        self.sqlite_handles += 1;
        let path = self.shared.settings.folder.join("sqlite_db.db");
        Ok(Ok(self.table.push(Connection { path, opened: Arc::default() })?))
    }

    async fn execute(
        &mut self,
        handle: Resource<Connection>,
        sql: String,
        parameters: Vec<sqlite::Value>,
    ) -> wasmtime::Result<Result<sqlite::QueryResult, sqlite::Error>> {
        let handle = self.table.get(&handle)?;
        let (path, opened) = (handle.path.clone(), handle.opened.clone());
        let run = move || {
            let mut opened = opened.lock();
            let connection = match &mut *opened {
                Some(connection) => connection,
                none => none.insert(open(&path)?),
            };
            execute(connection, &sql, parameters)
        };
        match tokio::task::spawn_blocking(run).await? {
            Ok(result) => Ok(Ok(result)),
            Err(Failure::Told(error)) => Ok(Err(error)),
            Err(Failure::Trap(what)) => Err(wasmtime::Error::msg(what)),
        }
    }

    async fn drop(&mut self, handle: Resource<Connection>) -> wasmtime::Result<()> {
        self.sqlite_handles -= 1;
        self.table.delete(handle)?;
        Ok(())
    }
}
