//! Statements of components: parameters in, rows out, errors in the words of the contract.

use std::pin::pin;

use deadpool_postgres::ClientWrapper;
use futures_util::TryStreamExt as _;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Error, Row, RowStream};

use super::value::{Cell, Parameter, check_parameter, has_value};
use crate::executor::{ConstraintKind, ExecutorError, RowSet, Rows, Statement, Value};

/// Counted for each cell of a result, on top of its text or bytes.
const CELL_BYTES: u64 = 32;

/// What statements of components may begin with. The extended protocol takes one statement at a time, so no other can
/// follow. What is missing here would end the transaction of the host, change its session, or reach outside.
const VERBS: [&str; 12] =
    ["select", "insert", "update", "delete", "with", "values", "merge", "create", "alter", "drop", "truncate", "analyze"];

/// Statements that a connection keeps prepared at most.
const STATEMENTS_MAX: usize = 256;

/// How much a statement may give.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultLimits {
    /// Rows, where the caller names no limit of its own.
    pub(super) rows_max: u32,
    /// Bytes of all rows, some for each cell included.
    pub(super) bytes_max: u64,
}

/// A statement that the server has understood.
pub(super) struct Prepared {
    statement: tokio_postgres::Statement,
    /// Whether the count of its command tag is one of rows changed.
    changes: bool,
}

/// Prepares a statement of a component on a connection whose search path is that of the schema, unless it is prepared
/// already, and looks whether its parameters and columns have a form in the contract.
pub(super) async fn prepare(client: &ClientWrapper, schema: &str, statement: &Statement) -> Result<Prepared, ExecutorError> {
    let verb = verb(&statement.sql)?;
    // The names of a cached statement are those of the schema that it was prepared in.
    let sql = format!("/*{schema}*/{}", statement.sql);
    if client.statement_cache.size() >= STATEMENTS_MAX {
        client.statement_cache.clear();
    }
    let once = is_schema_verb(verb);
    let prepared = if once { client.prepare(&sql).await } else { client.prepare_cached(&sql).await };
    let prepared = prepared.map_err(executor_error)?;
    let (expected, given) = (prepared.params().len(), statement.parameters.len());
    if expected != given {
        return Err(ExecutorError::InvalidStatement(format!("{expected} placeholders, {given} parameters")));
    }
    for (index, (value, ty)) in statement.parameters.iter().zip(prepared.params()).enumerate() {
        check_parameter(value, ty).map_err(|why| ExecutorError::InvalidStatement(format!("${}: {why}", index + 1)))?;
    }
    if let Some(column) = prepared.columns().iter().find(|column| !has_value(column.type_())) {
        let (name, ty) = (column.name(), column.type_());
        return Err(ExecutorError::InvalidStatement(format!("column {name:?} has the type {ty}: cast it to text in the statement")));
    }
    let changes = match verb {
        "insert" | "update" | "delete" | "merge" => true,
        "with" => writes(&statement.sql),
        _ => false,
    };
    Ok(Prepared { statement: prepared, changes })
}

/// Runs a statement. It is sent when this is first polled.
pub(super) async fn run(
    client: &ClientWrapper,
    prepared: &Prepared,
    statement: &Statement,
    row_limit: Option<u32>,
    limits: ResultLimits,
) -> Result<RowSet, ExecutorError> {
    let result = client.query_raw(&prepared.statement, statement.parameters.iter().map(Parameter)).await;
    let stream = result.map_err(|error| understood_before(client, error))?;
    let (rows, truncated, affected) = collect(stream, row_limit, limits).await?;
    // The command tag counts the rows of a query too.
    Ok(RowSet { rows, changed: if prepared.changes { affected } else { 0 }, truncated })
}

/// An error of a statement that may have been prepared before a table changed: then it is prepared anew by the next run of
/// the call.
fn understood_before(client: &ClientWrapper, error: Error) -> ExecutorError {
    let outdated = error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::FEATURE_NOT_SUPPORTED && error.message().contains("cached plan must not change result type")
    });
    if outdated {
        client.statement_cache.clear();
        return ExecutorError::Aborted;
    }
    executor_error(error)
}

async fn collect(stream: RowStream, row_limit: Option<u32>, limits: ResultLimits) -> Result<(Rows, bool, u64), ExecutorError> {
    let mut stream = pin!(stream);
    let row_count_max = row_limit.unwrap_or(limits.rows_max) as usize;
    let (mut rows, mut bytes, mut truncated) = (Rows::default(), 0, false);
    // Read to its end: what stays unread would be the business of the next statement.
    while let Some(row) = stream.try_next().await.map_err(executor_error)? {
        if rows.len() < row_count_max {
            rows.push(&cells(&row, &mut bytes, limits.bytes_max)?);
        } else if row_limit.is_some() {
            truncated = true;
        } else {
            return Err(ExecutorError::Limit(format!("more than {} rows", limits.rows_max)));
        }
    }
    Ok((rows, truncated, stream.rows_affected().unwrap_or_default()))
}

fn cells(row: &Row, bytes: &mut u64, bytes_max: u64) -> Result<Vec<Value>, ExecutorError> {
    let mut cells = Vec::with_capacity(row.len());
    for index in 0..row.len() {
        let Cell(value) = row.try_get(index).map_err(executor_error)?;
        let content_bytes = match &value {
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
            Value::Text(text) => text.len() as u64,
            Value::Blob(bytes) => bytes.len() as u64,
        };
        *bytes += CELL_BYTES + content_bytes;
        if *bytes > bytes_max {
            return Err(ExecutorError::Limit(format!("more than {bytes_max} bytes in a result")));
        }
        cells.push(value);
    }
    Ok(cells)
}

/// The first word, in lower case, if a component may use it.
fn verb(sql: &str) -> Result<&'static str, ExecutorError> {
    let start = sql.trim_start_matches(|character: char| character.is_whitespace() || character == '(');
    let end = start.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(start.len());
    let word = &start[..end];
    let known = VERBS.into_iter().find(|verb| verb.eq_ignore_ascii_case(word));
    known.ok_or_else(|| ExecutorError::InvalidStatement("a statement of this kind is not allowed here".into()))
}

fn is_schema_verb(verb: &str) -> bool {
    matches!(verb, "create" | "alter" | "drop" | "truncate")
}

/// Whether a statement changes what others mean.
pub(super) fn changes_schema(sql: &str) -> bool {
    verb(sql).is_ok_and(is_schema_verb)
}

fn writes(sql: &str) -> bool {
    let mut words = sql.split(|character: char| !character.is_ascii_alphabetic());
    words.any(|word| ["insert", "update", "delete", "merge"].iter().any(|verb| verb.eq_ignore_ascii_case(word)))
}

/// What PostgreSQL says, in the words of the contract.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn executor_error(error: Error) -> ExecutorError {
    if let Some(error) = error.as_db_error() {
        return database_error(error);
    }
    let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    if error.is_closed() || is_io(&error) { ExecutorError::Unavailable(cause) } else { ExecutorError::InvalidStatement(cause) }
}

/// Whether the server could not be reached.
pub(super) fn is_io(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn database_error(error: &DbError) -> ExecutorError {
    let constraint = |kind| {
        let name = error.constraint().or(error.column()).unwrap_or_else(|| error.message());
        ExecutorError::Constraint(kind, name.to_owned())
    };
    match error.code() {
        &SqlState::UNIQUE_VIOLATION => constraint(ConstraintKind::Unique),
        &SqlState::FOREIGN_KEY_VIOLATION => constraint(ConstraintKind::ForeignKey),
        &SqlState::NOT_NULL_VIOLATION => constraint(ConstraintKind::NotNull),
        &SqlState::CHECK_VIOLATION => constraint(ConstraintKind::Check),
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => ExecutorError::Aborted,
        &SqlState::QUERY_CANCELED => ExecutorError::Limit("time of a statement".into()),
        &SqlState::LOCK_NOT_AVAILABLE => ExecutorError::Limit("time to wait for a lock".into()),
        &SqlState::READ_ONLY_SQL_TRANSACTION => ExecutorError::InvalidStatement("a snapshot only reads".into()),
        &SqlState::DISK_FULL => ExecutorError::Limit("disk".into()),
        code => match &code.code()[..2] {
            "23" => constraint(ConstraintKind::Other),
            "53" => ExecutorError::Limit(error.message().to_owned()),
            "08" | "25" | "57" | "58" | "XX" | "F0" if error.code() != &SqlState::IN_FAILED_SQL_TRANSACTION => {
                ExecutorError::Unavailable(error.message().to_owned())
            }
            _ => ExecutorError::InvalidStatement(error.message().to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_the_transaction_is_refused() {
        for sql in
            ["COMMIT", " rollback", "BEGIN; SELECT 1", "SET search_path TO other", "COPY t TO '/tmp/x'", "LISTEN t", "DO $$ $$", "", "/**/"]
        {
            assert!(matches!(verb(sql), Err(ExecutorError::InvalidStatement(_))), "{sql}");
        }
        for sql in ["SELECT 1", "\n select 1", "(SELECT 1) UNION (SELECT 2)", "INSERT INTO t VALUES (1)"] {
            assert!(verb(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn only_what_writes_counts_changes() {
        assert!(writes("WITH gone AS (DELETE FROM t RETURNING id) SELECT id FROM gone"));
        assert!(!writes("WITH all_of AS (SELECT id FROM t) SELECT updated FROM all_of"));
    }
}
