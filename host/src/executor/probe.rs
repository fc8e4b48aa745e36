//! Whether an executor works: a number that is written, committed and read back.

use super::durable::DurableDatabase;
use super::{Dialect, Executor, ExecutorError, Statement, Value};

/// A database of the host's own, `ready`.
pub(super) struct Probe {
    database: DurableDatabase,
    number: i64,
}

impl Probe {
    /// Opens the database.
    pub(super) async fn open(executor: &dyn Executor) -> Result<Self, ExecutorError> {
        Ok(Self { database: DurableDatabase::open(executor, "ready").await?, number: 0 })
    }

    /// Writes, commits and reads. Another process may write the same row at the same time; what it wrote will do.
    pub(super) async fn run(&mut self) -> Result<(), ExecutorError> {
        self.number += 1;
        let place = if self.database.database().info().dialect == Dialect::Postgres { "$1" } else { "?" };
        let create = "CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, number BIGINT NOT NULL)".to_owned();
        let write = format!("INSERT INTO probe (id, number) VALUES (1, {place}) ON CONFLICT (id) DO UPDATE SET number = excluded.number");
        let write = Statement { sql: write, parameters: vec![Value::Integer(self.number)] };
        self.database.write(&[Statement { sql: create, parameters: Vec::new() }, write]).await?;
        let read = Statement { sql: "SELECT number FROM probe WHERE id = 1".to_owned(), parameters: Vec::new() };
        match self.database.read(&read).await?.rows.to_vec().as_slice() {
            [row] if matches!(row.as_slice(), [Value::Integer(_)]) => Ok(()),
            _ => Err(ExecutorError::Unavailable("the readiness probe did not find what it wrote".into())),
        }
    }
}
