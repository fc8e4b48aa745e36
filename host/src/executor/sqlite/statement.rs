//! Statements of components: parameters in, rows out, errors in the words of the contract.

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, Error, Row, ffi};

use super::connection::{OWN_PREFIX, Watch};
use crate::executor::{Cell, ConstraintKind, ExecutorError, RowSet, Rows, Statement, Value};

/// Counted for each cell of a result, on top of its text or bytes.
const CELL_BYTES: u64 = 32;

/// How much a statement may give.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultLimits {
    /// Rows, where the caller names no limit of its own.
    pub(super) rows_max: u32,
    /// Bytes of all rows, some for each cell included.
    pub(super) bytes_max: u64,
}

/// Who runs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A transaction.
    Write,
    /// A snapshot.
    Read,
}

/// Runs one statement of a component.
pub(super) fn run(
    connection: &Connection,
    watch: &Watch<'_>,
    access: Access,
    statement: &Statement,
    row_limit: Option<u32>,
    limits: ResultLimits,
) -> Result<RowSet, ExecutorError> {
    let mut prepared = prepare(connection, watch, &statement.sql)?;
    let reads = prepared.readonly();
    if access == Access::Read && !reads {
        return Err(ExecutorError::InvalidStatement("a snapshot only reads".to_owned()));
    }
    if reads {
        watch.only_reads();
    }
    bind(&mut prepared, &statement.parameters)?;
    let changes_before = connection.total_changes();
    let mut result = collect(&mut prepared, row_limit, limits)?;
    // `changes` keeps the number of an earlier statement if this one is no INSERT, UPDATE or DELETE.
    if !reads && connection.total_changes() != changes_before {
        result.changed = connection.changes();
    }
    Ok(result)
}

fn prepare<'c>(connection: &'c Connection, watch: &Watch<'_>, sql: &str) -> Result<CachedStatement<'c>, ExecutorError> {
    if sql.contains('\0') {
        // SQLite would take it for the end.
        return Err(ExecutorError::InvalidStatement("the statement holds a NUL character".to_owned()));
    }
    if sql.starts_with(OWN_PREFIX) {
        return Err(ExecutorError::InvalidStatement("a statement of the host".to_owned()));
    }
    if holds_word(sql, "deferred") {
        // A deferred constraint is checked when the whole group is committed, and would take the transactions of
        // others down with it.
        drop(connection.prepare(sql).map_err(executor_error)?);
        if watch.alters_table() {
            return Err(ExecutorError::InvalidStatement("deferred constraints are not supported".to_owned()));
        }
    }
    connection.prepare_cached(sql).map_err(executor_error)
}

fn holds_word(sql: &str, word: &str) -> bool {
    sql.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

fn bind(prepared: &mut CachedStatement<'_>, parameters: &[Value]) -> Result<(), ExecutorError> {
    let expected = prepared.parameter_count();
    if expected != parameters.len() {
        let given = parameters.len();
        return Err(ExecutorError::InvalidStatement(format!("{expected} placeholders, {given} parameters")));
    }
    for (index, parameter) in (1..).zip(parameters) {
        let bound = match parameter {
            Value::Null => prepared.raw_bind_parameter(index, rusqlite::types::Null),
            Value::Integer(integer) => prepared.raw_bind_parameter(index, integer),
            Value::Real(real) => prepared.raw_bind_parameter(index, real),
            Value::Text(text) => prepared.raw_bind_parameter(index, text),
            Value::Blob(blob) => prepared.raw_bind_parameter(index, blob),
        };
        bound.map_err(executor_error)?;
    }
    Ok(())
}

fn collect(prepared: &mut CachedStatement<'_>, row_limit: Option<u32>, limits: ResultLimits) -> Result<RowSet, ExecutorError> {
    let mut result = RowSet::default();
    let mut bytes: u64 = 0;
    let row_count_max = row_limit.unwrap_or(limits.rows_max) as usize;
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(executor_error)? {
        if result.rows.len() >= row_count_max {
            if row_limit.is_none() {
                return Err(ExecutorError::Limit(format!("more than {} rows", limits.rows_max)));
            }
            result.truncated = true;
            break;
        }
        push_row(&mut result.rows, row, &mut bytes, limits.bytes_max)?;
    }
    Ok(result)
}

/// Copies a row. `bytes` is what the result holds so far; it is checked before a cell is copied.
fn push_row(rows: &mut Rows, row: &Row<'_>, bytes: &mut u64, bytes_max: u64) -> Result<(), ExecutorError> {
    let count = row.as_ref().column_count();
    for index in 0..count {
        let cell = row.get_ref(index).map_err(executor_error)?;
        let content_bytes = match cell {
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
            ValueRef::Text(content) | ValueRef::Blob(content) => content.len() as u64,
        };
        *bytes += CELL_BYTES + content_bytes;
        if *bytes > bytes_max {
            return Err(ExecutorError::Limit(format!("more than {bytes_max} bytes in a result")));
        }
        match cell {
            ValueRef::Null => rows.push_cell(Cell::Null),
            ValueRef::Integer(integer) => rows.push_cell(Cell::Integer(integer)),
            ValueRef::Real(real) => rows.push_cell(Cell::Real(real)),
            // SQLite does not check what it is told to be text: `CAST(x'ff' AS TEXT)`.
            ValueRef::Text(text) => rows.push_cell(Cell::Text(&String::from_utf8_lossy(text))),
            ValueRef::Blob(blob) => rows.push_cell(Cell::Blob(blob)),
        }
    }
    rows.end_row(count);
    Ok(())
}

/// What SQLite says, in the words of the contract.
pub(crate) fn executor_error(error: Error) -> ExecutorError {
    let (failure, message) = match &error {
        Error::SqliteFailure(failure, message) => (failure, message.clone().unwrap_or_else(|| failure.to_string())),
        Error::SqlInputError { error: failure, msg, .. } => (failure, msg.clone()),
        // What rusqlite itself finds: several statements in one, a parameter that does not fit.
        other => return ExecutorError::InvalidStatement(other.to_string()),
    };
    match failure.extended_code & 0xff {
        ffi::SQLITE_CONSTRAINT => constraint(failure.extended_code, &message),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => ExecutorError::Aborted,
        ffi::SQLITE_FULL => ExecutorError::Limit("disk".to_owned()),
        ffi::SQLITE_INTERRUPT => ExecutorError::Limit("time of a statement".to_owned()),
        ffi::SQLITE_TOOBIG => ExecutorError::Limit("size of a value or statement".to_owned()),
        ffi::SQLITE_NOMEM => ExecutorError::Limit("memory".to_owned()),
        ffi::SQLITE_AUTH => ExecutorError::InvalidStatement("a statement of this kind is not allowed here".to_owned()),
        ffi::SQLITE_ERROR | ffi::SQLITE_RANGE | ffi::SQLITE_MISUSE | ffi::SQLITE_MISMATCH => ExecutorError::InvalidStatement(message),
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => {
            ExecutorError::Unavailable(format!("damaged ({message}): stop the server and restore a backup"))
        }
        _ => ExecutorError::Unavailable(message),
    }
}

fn constraint(extended_code: i32, message: &str) -> ExecutorError {
    let kind = match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => ConstraintKind::Unique,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
        _ => ConstraintKind::Other,
    };
    // "UNIQUE constraint failed: todo.id" names the columns behind the colon.
    let name = message.split_once(" constraint failed: ").map_or(message, |(_, name)| name);
    ExecutorError::Constraint(kind, name.to_owned())
}
