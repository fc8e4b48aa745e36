//! Durable jobs (`pubsub.schedule`), kept in a database of the host's own, so that they live where the data lives.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use super::Runtime;
use super::environment::Environment;
use super::instance::{Answer, Invocation};
use super::mount::MountCore;
use crate::executor::durable::{DurableDatabase, statement};
use crate::executor::{Dialect, Executor, ExecutorError, Statement, Value};

/// Jobs are looked for at least this often: another process may have put one down.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A job that failed is tried again after this long.
const RETRY_MS: u64 = 30_000;
/// Jobs of one mount that run at the same time.
const JOBS_AT_ONCE: usize = 4;
/// Steps of one job (with a cursor) in a row, before others get their turn.
const STEPS_MAX: usize = 1000;

/// The jobs of all mounts.
pub(crate) struct Jobs {
    database: DurableDatabase,
    environment: Arc<dyn Environment>,
    /// A job was put down.
    changed: watch::Sender<()>,
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

/// Jobs that run.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    /// Mount and name of each.
    names: HashMap<Id, (String, String)>,
}

impl Running {
    /// The names of those of a mount.
    fn of(&self, mount: &str) -> impl Iterator<Item = &String> {
        self.names.values().filter(move |(of, _)| of == mount).map(|(_, name)| name)
    }

    /// Waits until one is over.
    async fn one_ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => drop(self.names.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id))),
            None => std::future::pending().await,
        }
    }
}

impl Jobs {
    /// Opens (and creates) the jobs of an executor.
    pub(crate) async fn open(executor: &dyn Executor, environment: Arc<dyn Environment>) -> Result<Self, ExecutorError> {
        let database = DurableDatabase::open(executor, "jobs").await?;
        let bytes = if database.database().info().dialect == Dialect::Postgres { "BYTEA" } else { "BLOB" };
        let jobs = Self { database, environment, changed: watch::Sender::new(()) };
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {{}}jobs (mount TEXT NOT NULL, name TEXT NOT NULL, due BIGINT NOT NULL, payload {bytes} NOT NULL, \
             cursor {bytes}, version BIGINT NOT NULL, PRIMARY KEY (mount, name))"
        );
        jobs.database.write(&[jobs.statement(&create, Vec::new())]).await?;
        Ok(jobs)
    }

    /// Of a process that has none: nothing is created, and putting one down is an error.
    pub(crate) async fn none(executor: &dyn Executor, environment: Arc<dyn Environment>) -> Result<Self, ExecutorError> {
        Ok(Self { database: DurableDatabase::open(executor, "jobs").await?, environment, changed: watch::Sender::new(()) })
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
        self.changed.send_replace(());
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

    /// The job of a mount that is due first, but for those that run.
    async fn next(&self, mount: &str, running: &Running) -> Result<Option<Job>, ExecutorError> {
        let select = self.statement(
            &format!(
                "SELECT name, due, payload, cursor, version FROM {{}}jobs WHERE mount = ? ORDER BY due, name LIMIT {}",
                JOBS_AT_ONCE + 1
            ),
            vec![mount.into()],
        );
        let rows = self.database.read(&select).await?.rows;
        let job = |row: Vec<Value>| match <[Value; 5]>::try_from(row) {
            Ok([Value::Text(name), Value::Integer(due), Value::Blob(payload), cursor, Value::Integer(version)]) => {
                let cursor = if let Value::Blob(cursor) = cursor { Some(cursor) } else { None };
                Some(Job { mount: mount.to_owned(), name, due_ms: u64::try_from(due).unwrap_or(0), payload, cursor, version })
            }
            _ => None,
        };
        Ok(rows.iter().filter_map(job).find(|job| !running.of(mount).any(|name| *name == job.name)))
    }

    /// Other mounts are there.
    pub(crate) fn look_again(&self) {
        self.changed.send_replace(());
    }

    /// Fires jobs as they are due, until the run time is gone: those of different mounts, and some of each mount, beside
    /// each other, so that one that takes long does not hold up the others.
    pub(crate) async fn run(self: Arc<Self>, runtime: Weak<Runtime>) {
        let mut changed = self.changed.subscribe();
        let mut running = Running::default();
        while let Some(current) = runtime.upgrade() {
            // Seen before the look, so that what changes during it is not missed.
            changed.borrow_and_update();
            let mut wait = LOOK_AGAIN;
            for mount in current.mounts() {
                wait = wait.min(self.fire_due(&mount, &mut running).await);
            }
            drop(current);
            tokio::select! {
                biased;
                // Whether something changed or the time is over: it looks.
                _ = changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
                () = running.one_ended() => {}
            }
        }
        // Calls are not torn out of the middle.
        running.tasks.detach_all();
    }

    /// Fires what is due of a mount; how long nothing else will be.
    async fn fire_due(self: &Arc<Self>, mount: &Arc<MountCore>, running: &mut Running) -> Duration {
        while running.of(&mount.name).count() < JOBS_AT_ONCE {
            match self.next(&mount.name, running).await {
                Ok(Some(job)) if job.due_ms <= self.environment.now_ms() => {
                    let (jobs, mount, key) = (self.clone(), mount.clone(), (job.mount.clone(), job.name.clone()));
                    let task = running.tasks.spawn(async move { jobs.fire(&mount, &job).await });
                    running.names.insert(task.id(), key);
                }
                Ok(Some(job)) => return Duration::from_millis(job.due_ms.saturating_sub(self.environment.now_ms())),
                Ok(None) => return LOOK_AGAIN,
                Err(error) => {
                    tracing::warn!(%error, mount = mount.name, "jobs cannot be read now");
                    return Duration::from_secs(1);
                }
            }
        }
        LOOK_AGAIN
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
        statement(&self.database.database().info(), template, parameters)
    }
}

fn time(milliseconds: u64) -> Value {
    Value::Integer(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}
