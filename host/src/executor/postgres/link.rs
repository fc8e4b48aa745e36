//! The connection of a group, and what it is told besides the statements of components.
//!
//! Nothing of this costs a round trip of its own: commands are *owed* and travel with the next statement, or with the
//! COMMIT. PostgreSQL answers in order, and where a command fails so does everything that was sent with it.
//!
//! Invariant: COMMIT always follows a command that a transaction which has failed refuses (`RELEASE turn`) or that makes
//! it whole (`ROLLBACK TO turn`), for PostgreSQL would roll such a one back and call that a success.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::{join, maybe_done};
use tokio::time::Instant;
use tokio_postgres::error::Severity;
use tokio_postgres::{Error, SimpleQueryMessage};

use super::Connection;
use super::pool::idle_ms;
use super::statement::{self, ResultLimits, changes_schema, executor_error};
use super::writer::DatabaseParts;
use crate::executor::group::Flush;
use crate::executor::open::out_of_time;
use crate::executor::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, ExecutorError, RowSet, Statement, TransactionTime};

/// No time limit of the server is longer, in milliseconds: it would not take it.
const MS_MAX: u64 = i32::MAX as u64;
/// Statements that are sent before the answer to the first is waited for.
const SENT_MAX: usize = 128;

/// How the last turn left the savepoint `turn`, in which each transaction of a component runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// There was none yet.
    None,
    /// What it did is kept: the savepoint is to be released.
    Kept,
    /// What it did is undone: the savepoint is there for the next.
    Undone,
}

/// How a COMMIT failed.
pub(super) enum CommitError {
    /// The server refused it: the group is lost.
    Refused(ExecutorError),
    /// There was no answer: only the server knows.
    Unknown(ExecutorError),
}

/// See the module.
pub(super) struct Link {
    connection: Connection,
    /// Whether BEGIN was sent.
    opened: bool,
    last: Last,
    owed: String,
    /// Length of `owed`, `last` and `statement_ms` before the turn that runs; none once something of the turn was sent.
    before_turn: Option<(usize, Last, u64)>,
    /// `statement_timeout` as set in the transaction; 0 where a rollback may have changed it.
    statement_ms: u64,
    /// Whether the turn has set it anew.
    statement_ms_varies: bool,
    /// By which the fate of the outer transaction can be learned.
    transaction_id: Option<String>,
    /// What was owed has failed: nothing more can be said of the group.
    broken: bool,
}

impl Link {
    /// A connection at rest becomes that of a group.
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            opened: false,
            last: Last::None,
            owed: String::new(),
            before_turn: None,
            statement_ms: 0,
            statement_ms_varies: false,
            transaction_id: None,
            broken: false,
        }
    }

    /// Whether the outer transaction was begun.
    pub(super) fn is_opened(&self) -> bool {
        self.opened
    }

    /// Whether the group is beyond use.
    pub(super) fn is_broken(&self) -> bool {
        self.broken || self.connection.is_closed()
    }

    /// The server does not answer: nothing more is asked of this connection.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
    }

    /// By which the fate of the outer transaction can be learned.
    pub(super) fn transaction_id(&self) -> Option<&str> {
        self.transaction_id.as_deref()
    }

    /// The transaction of a component begins.
    pub(super) fn begin_turn(&mut self, parts: &DatabaseParts, time: TransactionTime) {
        let statement_ms = parts.shared.settings.statement_ms_max;
        self.before_turn = Some((self.owed.len(), self.last, self.statement_ms));
        match self.last {
            Last::None => {
                let DatabaseParts { schema, lock_key, .. } = parts;
                let wait = waits(parts, time);
                // READ COMMITTED: statements after the lock see what its holder before committed. Constraints that wait for
                // the COMMIT would cost the whole group. Triggers tell by `syncline.writer` who writes, and others which lock to take.
                self.owe(&format!(
                    "BEGIN ISOLATION LEVEL READ COMMITTED; {wait}SET LOCAL search_path TO {schema}; SET CONSTRAINTS ALL IMMEDIATE; \
                     SELECT pg_advisory_xact_lock({lock_key}), pg_current_xact_id()::text; SET LOCAL syncline.writer TO '{lock_key}'; \
                     SET LOCAL statement_timeout TO {statement_ms}; \
                     SAVEPOINT turn"
                ));
            }
            Last::Kept => {
                self.owe("RELEASE turn");
                if self.statement_ms != statement_ms {
                    self.owe(&format!("SET LOCAL statement_timeout TO {statement_ms}"));
                }
                self.owe("SAVEPOINT turn");
            }
            Last::Undone => {}
        }
        // Undone is what it was when the savepoint was made.
        self.statement_ms = statement_ms;
        self.statement_ms_varies = false;
        self.owe_time(parts, time);
    }

    /// The server lets the turn be idle for as long as it may stay open, which may be longer than others may.
    fn owe_time(&mut self, parts: &DatabaseParts, time: TransactionTime) {
        let settings = &parts.shared.settings;
        let open_ms = u64::try_from(time.open_max(settings.transaction_ms_max).as_millis()).unwrap_or(u64::MAX);
        if open_ms > settings.transaction_ms_max {
            let idle_ms = idle_ms(settings).saturating_add(open_ms).min(MS_MAX);
            self.owe(&format!("SET LOCAL idle_in_transaction_session_timeout TO {idle_ms}"));
        }
        if time.is_long() {
            // Readers may hold what it changes.
            self.owe(&format!("SET LOCAL lock_timeout TO {}", time.step_ms_max(settings.begin_wait_ms_max).min(MS_MAX)));
        }
    }

    /// What the turn did is part of the group.
    pub(super) fn keep_turn(&mut self) {
        if !self.forget_turn() {
            self.last = Last::Kept;
        }
    }

    /// What the turn did is undone.
    pub(super) fn undo_turn(&mut self) {
        if !self.forget_turn() {
            self.owed.clear();
            self.owe("ROLLBACK TO turn");
            self.last = Last::Undone;
        }
    }

    /// Takes back what is owed for a turn of which nothing was sent; whether it is one.
    fn forget_turn(&mut self) -> bool {
        let Some((length, last, statement_ms)) = self.before_turn.take() else { return false };
        self.owed.truncate(length);
        (self.last, self.statement_ms) = (last, statement_ms);
        true
    }

    /// Runs a command with the next statement. It must be one that cannot fail.
    pub(super) fn owe(&mut self, command: &str) {
        if !self.owed.is_empty() {
            self.owed.push_str("; ");
        }
        self.owed.push_str(command);
    }

    /// Goes back to a savepoint with the next statement.
    pub(super) fn owe_rollback_to(&mut self, savepoint: &str) {
        if self.statement_ms_varies {
            self.statement_ms = 0;
        }
        self.owe(&format!("ROLLBACK TO {savepoint}"));
    }

    /// Runs statements of the turn, each for at most `statement_ms`, up to the first that fails; after `until` no more are
    /// sent.
    pub(super) async fn run(
        &mut self,
        parts: &DatabaseParts,
        statements: &[Statement],
        row_limit: Option<u32>,
        statement_ms: u64,
        until: Instant,
    ) -> Result<Vec<RowSet>, ExecutorError> {
        if self.statement_ms != statement_ms {
            self.owe(&format!("SET LOCAL statement_timeout TO {}", statement_ms.min(MS_MAX)));
            self.statement_ms = statement_ms;
            self.statement_ms_varies = true;
        }
        let owed = std::mem::take(&mut self.owed);
        self.before_turn = None;
        self.opened = true;
        let connection = &self.connection;
        let first = async { if owed.is_empty() { Ok(Vec::new()) } else { connection.simple_query(&owed).await } };
        // Polled, and so sent, in this order.
        let (said, results) = join(first, pipeline(connection, parts, statements, row_limit, until)).await;
        match said {
            Ok(said) => {
                let id = said.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.try_get(1).ok().flatten(),
                    _ => None,
                });
                if let Some(id) = id {
                    self.transaction_id = Some(id.to_owned());
                }
            }
            Err(error) => {
                self.broken = true;
                return Err(match executor_error(error) {
                    ExecutorError::Aborted => ExecutorError::Aborted,
                    other => ExecutorError::Unavailable(format!("no turn to write: {other}")),
                });
            }
        }
        results
    }

    /// Brings the outer transaction to its end. The connection goes back to the pool, unless something is wrong with it.
    /// `mark`: what a group that is to be committed runs last.
    pub(super) async fn finish(self, flush: Flush, mark: &str) -> Result<(), CommitError> {
        if !self.opened {
            return Ok(());
        }
        if self.broken && flush != Flush::Commit {
            // The server rolls back when the connection ends.
            drop(Connection::take(self.connection));
            return Ok(());
        }
        let command = match (flush, self.last) {
            (Flush::Nothing | Flush::Lost, _) => "ROLLBACK".to_owned(),
            (Flush::Commit, Last::Undone) => format!("{}; {mark}; COMMIT", self.owed),
            (Flush::Commit, _) if self.owed.is_empty() => format!("RELEASE turn; {mark}; COMMIT"),
            (Flush::Commit, _) => format!("{}; RELEASE turn; {mark}; COMMIT", self.owed),
        };
        let Err(error) = self.connection.batch_execute(&command).await else { return Ok(()) };
        // Whatever is wrong with it, nobody gets it again.
        drop(Connection::take(self.connection));
        let refused = is_refusal(&error);
        let error = executor_error(error);
        Err(if refused { CommitError::Refused(error) } else { CommitError::Unknown(error) })
    }
}

/// Set before a group waits for its lock: a transaction that may take long waits as long for those of other processes.
fn waits(parts: &DatabaseParts, time: TransactionTime) -> String {
    if !time.is_long() {
        return String::new();
    }
    let wait_ms = time.step_ms_max(parts.shared.settings.begin_wait_ms_max).min(MS_MAX);
    format!("SET LOCAL statement_timeout TO {wait_ms}; SET LOCAL lock_timeout TO {wait_ms}; ")
}

/// Whether the server answered, and goes on.
fn is_refusal(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// Sends statements one behind the other, then waits for their answers. What follows a change of the schema is prepared
/// after it.
async fn pipeline(
    connection: &Connection,
    parts: &DatabaseParts,
    statements: &[Statement],
    row_limit: Option<u32>,
    until: Instant,
) -> Result<Vec<RowSet>, ExecutorError> {
    let limits = parts.shared.result_limits();
    let (mut results, mut bytes, mut rows) = (Vec::with_capacity(statements.len()), 0, 0);
    let alike = statements.chunk_by(|before, after| !changes_schema(&before.sql) && !changes_schema(&after.sql));
    for together in alike.flat_map(|alike| alike.chunks(SENT_MAX)) {
        if Instant::now() >= until {
            return Err(out_of_time());
        }
        for result in send_all(connection, parts, together, row_limit, limits).await? {
            (bytes, rows) = (bytes + result.rows.content_bytes(), rows + result.rows.len());
            if bytes > BATCH_BYTES_MAX || rows > BATCH_ROWS_MAX {
                return Err(ExecutorError::Limit("size of the results of a batch".into()));
            }
            results.push(result);
        }
    }
    Ok(results)
}

async fn send_all(
    connection: &Connection,
    parts: &DatabaseParts,
    statements: &[Statement],
    row_limit: Option<u32>,
    limits: ResultLimits,
) -> Result<Vec<RowSet>, ExecutorError> {
    let mut prepared = Vec::with_capacity(statements.len());
    for statement in statements {
        prepared.push(statement::prepare(connection, &parts.schema, statement).await?);
    }
    let run = |(prepared, statement)| Box::pin(maybe_done(statement::run(connection, prepared, statement, row_limit, limits)));
    let mut running: Vec<_> = prepared.iter().zip(statements).map(run).collect();
    poll_fn(|context| {
        // Being polled sends it; its answer is waited for below.
        for running in &mut running {
            let _ = running.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut results = Vec::with_capacity(running.len());
    for mut running in running {
        running.as_mut().await;
        results.extend(running.as_mut().take_output().transpose()?);
    }
    Ok(results)
}
