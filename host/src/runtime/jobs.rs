//! Durable jobs (`pubsub.schedule`), kept in a database of the host's own, so that they live where the data lives.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::Runtime;
use super::environment::Environment;
use super::instance::{Answer, Invocation};
use super::mount::MountCore;
use crate::executor::durable::DurableDatabase;
use crate::executor::{Dialect, Executor, ExecutorError, Statement, Value};

/// Jobs are looked for at least this often: another process may have put one down.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A job that failed is tried again after this long.
const RETRY_MS: u64 = 30_000;
/// Steps of one job (with a cursor) in a row, before others get their turn.
const STEPS_MAX: usize = 1000;

/// The jobs of all mounts.
pub(crate) struct Jobs {
    database: DurableDatabase,
    environment: Arc<dyn Environment>,
    changed: Notify,
}

struct Job {
    mount: String,
    name: String,
    due_ms: u64,
    payload: Vec<u8>,
    /// Where its last step left off.
    cursor: Option<Vec<u8>>,
    /// Another one each time the job is put down: a job that puts itself down anew is not forgotten.
    version: i64,
}

impl Jobs {
    /// Opens (and creates) the jobs of an executor.
    pub(crate) async fn open(executor: &dyn Executor, environment: Arc<dyn Environment>) -> Result<Self, ExecutorError> {
        let database = DurableDatabase::open(executor, "jobs").await?;
        let bytes = if database.database().info().dialect == Dialect::Postgres { "BYTEA" } else { "BLOB" };
        let jobs = Self { database, environment, changed: Notify::new() };
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {{}}jobs (mount TEXT NOT NULL, name TEXT NOT NULL, due BIGINT NOT NULL, payload {bytes} NOT NULL, \
             cursor {bytes}, version BIGINT NOT NULL, PRIMARY KEY (mount, name))"
        );
        jobs.database.write(&[jobs.statement(&create, Vec::new())]).await?;
        Ok(jobs)
    }

    /// Puts a job down; durable when this returns. The same name replaces.
    pub(crate) async fn schedule(&self, mount: &str, name: &str, due_ms: u64, payload: Vec<u8>) -> Result<(), ExecutorError> {
        let insert = self.statement(
            "INSERT INTO {}jobs (mount, name, due, payload, cursor, version) VALUES (?, ?, ?, ?, NULL, ?) \
             ON CONFLICT (mount, name) DO UPDATE \
             SET due = excluded.due, payload = excluded.payload, cursor = NULL, version = excluded.version",
            vec![mount.into(), name.into(), time(due_ms), Value::Blob(payload), Value::Integer(self.environment.random().cast_signed())],
        );
        self.database.write(&[insert]).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Removes a job.
    pub(crate) async fn cancel(&self, mount: &str, name: &str) -> Result<(), ExecutorError> {
        let delete = self.statement("DELETE FROM {}jobs WHERE mount = ? AND name = ?", vec![mount.into(), name.into()]);
        self.database.write(&[delete]).await.map(drop)
    }

    /// Removes a job that fired, unless it was put down anew meanwhile.
    async fn forget(&self, job: &Job) -> Result<(), ExecutorError> {
        let delete = self.statement(
            "DELETE FROM {}jobs WHERE mount = ? AND name = ? AND version = ?",
            vec![job.mount.as_str().into(), job.name.as_str().into(), Value::Integer(job.version)],
        );
        self.database.write(&[delete]).await.map(drop)
    }

    async fn postpone(&self, job: &Job, due_ms: u64, cursor: Option<Vec<u8>>) -> Result<(), ExecutorError> {
        let cursor = cursor.map_or(Value::Null, Value::Blob);
        let update = self.statement(
            "UPDATE {}jobs SET due = ?, cursor = ? WHERE mount = ? AND name = ? AND version = ?",
            vec![time(due_ms), cursor, job.mount.as_str().into(), job.name.as_str().into(), Value::Integer(job.version)],
        );
        self.database.write(&[update]).await.map(drop)
    }

    /// The job that is due first among those of some mounts.
    async fn next(&self, runtime: &Runtime) -> Result<Option<(Job, Arc<MountCore>)>, ExecutorError> {
        let select = self.statement("SELECT mount, name, due, payload, cursor, version FROM {}jobs ORDER BY due, mount, name", Vec::new());
        let rows = self.database.read(&select).await?.rows;
        let job = |row: Vec<Value>| match <[Value; 6]>::try_from(row) {
            Ok([Value::Text(mount), Value::Text(name), Value::Integer(due), Value::Blob(payload), cursor, Value::Integer(version)]) => {
                let cursor = if let Value::Blob(cursor) = cursor { Some(cursor) } else { None };
                Some(Job { mount, name, due_ms: u64::try_from(due).unwrap_or(0), payload, cursor, version })
            }
            _ => None,
        };
        Ok(rows.into_iter().filter_map(job).find_map(|job| runtime.mount(&job.mount).map(|mount| (job, mount))))
    }

    /// Other mounts are there.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Fires jobs as they are due, until the run time is gone.
    pub(crate) async fn run(self: Arc<Self>, runtime: Weak<Runtime>) {
        while let Some(current) = runtime.upgrade() {
            let wait = match self.next(&current).await {
                Ok(Some((job, mount))) if job.due_ms <= self.environment.now_ms() => {
                    self.fire(&mount, &job).await;
                    continue;
                }
                Ok(Some((job, _))) => Duration::from_millis(job.due_ms.saturating_sub(self.environment.now_ms())).min(LOOK_AGAIN),
                Ok(None) => LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, "jobs cannot be read now");
                    Duration::from_secs(1)
                }
            };
            drop(current);
            // Whether something changed or the time is over: it looks.
            let _ = tokio::time::timeout(wait, self.changed.notified()).await;
        }
    }

    async fn fire(&self, mount: &Arc<MountCore>, job: &Job) {
        let mut cursor = job.cursor.clone();
        for _ in 0..STEPS_MAX {
            let invocation = Invocation::Fire { name: job.name.clone(), payload: job.payload.clone(), cursor: cursor.clone() };
            let Ok(completed) = mount.run(&invocation, mount.call_deadline()).await else {
                return self.put_off(mount, job, cursor).await;
            };
            let Answer::Cursor(next) = completed.answer else { return };
            if mount.finish_and_wait(completed.call, completed.bundles).await.is_err() {
                return self.put_off(mount, job, cursor).await;
            }
            if next.is_none() {
                mount.metrics.job(&mount.name, true);
                // Forgotten before the next look, or it would fire again at once.
                if let Err(error) = self.forget(job).await {
                    tracing::warn!(%error, job = job.name, "a job that is done could not be forgotten and will fire again");
                }
                return;
            }
            cursor = next;
        }
        self.put_off(mount, job, cursor).await;
    }

    async fn put_off(&self, mount: &Arc<MountCore>, job: &Job, cursor: Option<Vec<u8>>) {
        mount.metrics.job(&mount.name, false);
        tracing::warn!(mount = mount.name, job = job.name, retry_ms = RETRY_MS, "a job failed and is tried again later");
        if let Err(error) = self.postpone(job, self.environment.now_ms() + RETRY_MS, cursor).await {
            tracing::warn!(%error, "a job could not be put off");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn statement(&self, template: &str, parameters: Vec<Value>) -> Statement {
        let info = self.database.database().info();
        let mut sql = String::with_capacity(template.len());
        let mut number = 0;
        for piece in template.replace("{}", &info.table_prefix).split_inclusive('?') {
            match piece.strip_suffix('?') {
                Some(before) if info.dialect == Dialect::Postgres => {
                    number += 1;
                    sql.push_str(&format!("{before}${number}"));
                }
                _ => sql.push_str(piece),
            }
        }
        Statement { sql, parameters }
    }
}

fn time(milliseconds: u64) -> Value {
    Value::Integer(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}
