//! Durable jobs (`pubsub.schedule`).

use super::of_mounts;
use crate::sql::{Database, Dialect, Error, Value, Write, bytes, cells, number, unsigned};

/// A job that failed is tried again after this long, in milliseconds.
const RETRY_MS: u64 = 30_000;
/// How long a job is leased to the request that runs it, in milliseconds. It comes again after that if the request trapped.
const LEASE_MS: u64 = 60_000;

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whose it is.
    pub mount: String,
    /// As scheduled.
    pub name: String,
    /// As scheduled.
    pub payload: Vec<u8>,
    /// Of its last call.
    pub cursor: Option<Vec<u8>>,
    /// Of this very schedule.
    pub id: u64,
}

/// Puts a job down in the place of one of the same name.
pub fn schedule(mount: &str, name: &str, due_ms: u64, payload: &[u8], id: u64) -> Write {
    (
        "INSERT INTO {}jobs (mount, name, due, payload, cursor, id) VALUES (?, ?, ?, ?, NULL, ?) ON CONFLICT (mount, name) DO UPDATE \
         SET due = excluded.due, payload = excluded.payload, cursor = NULL, id = excluded.id",
        vec![mount.into(), name.as_bytes().into(), number(due_ms), payload.into(), Value::Integer(id.cast_signed())],
    )
}

/// Removes a job.
pub fn cancel(mount: &str, name: &str) -> Write {
    ("DELETE FROM {}jobs WHERE mount = ? AND name = ?", vec![mount.into(), name.as_bytes().into()])
}

/// Jobs of mounts that are due, leased: whoever asks next gets others.
pub fn take(database: &Database, mounts: &[String], now_ms: u64, limit: u32) -> Result<Vec<Job>, Error> {
    if mounts.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let (of_mounts, mut parameters) = of_mounts(mounts);
    let due = format!("FROM {{}}jobs WHERE {of_mounts} AND due <= ? ORDER BY due, mount, name LIMIT {limit}");
    parameters.push(number(now_ms));
    // Mostly nothing is: then nobody waits for the writer.
    if database.run(&format!("SELECT 1 {due}"), &parameters)?.rows.is_empty() {
        return Ok(Vec::new());
    }
    database.write(|link| {
        let lock = if database.dialect() == Dialect::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" };
        let rows = link.run(&database.own(&format!("SELECT mount, name, payload, cursor, id {due}{lock}")), &parameters)?.rows;
        let jobs = rows.into_iter().map(job).collect::<Result<Vec<Job>, Error>>()?;
        for job in &jobs {
            let lease = database.own("UPDATE {}jobs SET due = ? WHERE mount = ? AND name = ?");
            link.run(&lease, &[number(now_ms + LEASE_MS), job.mount.as_str().into(), job.name.as_bytes().into()])?;
        }
        Ok(jobs)
    })
}

fn job(row: Vec<Value>) -> Result<Job, Error> {
    let [mount, name, payload, cursor, id] = cells(row)?;
    let unreadable = || Error::Unavailable("the name of a job cannot be read".into());
    Ok(Job {
        mount: crate::sql::text(mount)?,
        name: String::from_utf8(bytes(name)?).map_err(|_| unreadable())?,
        payload: bytes(payload)?,
        cursor: if cursor == Value::Null { None } else { Some(bytes(cursor)?) },
        id: if let Value::Integer(id) = id { id.cast_unsigned() } else { return Err(unreadable()) },
    })
}

/// The job returned: it goes on from a cursor at once, or is done and forgotten unless it was put down anew.
pub fn done(database: &Database, job: &Job, cursor: Option<&[u8]>, now_ms: u64) -> Result<(), Error> {
    let key = [job.mount.as_str().into(), job.name.as_bytes().into(), Value::Integer(job.id.cast_signed())];
    match cursor {
        None => database.run("DELETE FROM {}jobs WHERE mount = ? AND name = ? AND id = ?", &key).map(drop),
        Some(cursor) => {
            let mut parameters = vec![cursor.into(), number(now_ms)];
            parameters.extend(key);
            database.run("UPDATE {}jobs SET cursor = ?, due = ? WHERE mount = ? AND name = ? AND id = ?", &parameters).map(drop)
        }
    }
}

/// The job failed: it comes again later, with the cursor that it had.
pub fn failed(database: &Database, job: &Job, now_ms: u64) -> Result<(), Error> {
    let parameters =
        [number(now_ms + RETRY_MS), job.mount.as_str().into(), job.name.as_bytes().into(), Value::Integer(job.id.cast_signed())];
    database.run("UPDATE {}jobs SET due = ? WHERE mount = ? AND name = ? AND id = ?", &parameters).map(drop)
}

/// When the next job or post of these mounts is due.
pub fn next_due(database: &Database, mounts: &[String]) -> Result<Option<u64>, Error> {
    if mounts.is_empty() {
        return Ok(None);
    }
    let (of_mounts, parameters) = of_mounts(mounts);
    let first = |table: &str| format!("SELECT min(due) FROM {{}}{table} WHERE {of_mounts}");
    let parameters = [parameters.clone(), parameters].concat();
    let rows = database.run(&format!("SELECT ({}), ({})", first("jobs"), first("outbox")), &parameters)?.rows;
    let times = rows.iter().flatten().filter(|cell| **cell != Value::Null).map(unsigned);
    Ok(times.collect::<Result<Vec<u64>, Error>>()?.into_iter().min())
}
