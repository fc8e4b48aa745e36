//! Marks of committed groups: how a writer learns what became of a COMMIT that brought no answer.
//!
//! The number of a transaction is not enough. One that was given out, and of which nothing had reached the disk, is given out
//! again after a crash, so `pg_xact_status` may tell of somebody else's. So each group leaves a mark in its own transaction, in
//! a row that only its writer writes: the mark is there if and only if the group is.

use super::names::{lock_key, schema};
use super::pool::Pool;
use super::statement::executor_error;
use super::{PostgresSettings, Shared, make_schema};
use crate::executor::{DatabaseName, ExecutorError};
use crate::runtime::OWN_NAME;

/// The name under which the table has a schema of its own.
const DATABASE: &str = "groups";
/// How long rows of writers stay that do not write any more.
const KEPT: &str = "7 days";

/// Where marks are, and who leaves them.
pub(super) struct Marks {
    table: String,
    /// This executor; each start of a process is another one.
    process: u64,
}

/// What a group leaves.
pub(super) struct Mark {
    writer: String,
    group: String,
}

impl Marks {
    /// Makes the table where there is none.
    pub(super) async fn start(pool: &Pool, settings: &PostgresSettings) -> Result<Self, ExecutorError> {
        let name = DatabaseName { mount: OWN_NAME.into(), name: DATABASE.into() };
        let schema = schema(&settings.schema_prefix, &name);
        let key = lock_key(&schema, &name);
        make_schema(pool, &schema, key).await?;
        let table = format!("{schema}.syncline_groups");
        let make = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({key}); CREATE TABLE IF NOT EXISTS {table} \
             (writer TEXT PRIMARY KEY, last_group TEXT NOT NULL, at TIMESTAMPTZ NOT NULL) WITH (fillfactor = 50); \
             DELETE FROM {table} WHERE at < now() - interval '{KEPT}'; COMMIT"
        );
        pool.get().await?.batch_execute(&make).await.map_err(executor_error)?;
        Ok(Self { table, process: rand::random() })
    }

    /// The mark of the next group of the writer with a lock.
    pub(super) fn next(&self, lock_key: i64) -> Mark {
        let group: u64 = rand::random();
        Mark { writer: format!("{:016x}/{lock_key}", self.process), group: format!("{group:016x}") }
    }

    /// The statement that leaves a mark. It holds nothing but numbers of our own.
    pub(super) fn statement(&self, Mark { writer, group }: &Mark) -> String {
        format!(
            "INSERT INTO {} (writer, last_group, at) VALUES ('{writer}', '{group}', now()) \
             ON CONFLICT (writer) DO UPDATE SET last_group = excluded.last_group, at = excluded.at",
            self.table
        )
    }
}

impl Shared {
    /// Whether a mark is there. Only who left it last may ask, and only when its transaction is over.
    pub(super) async fn is_marked(&self, Mark { writer, group }: &Mark) -> Result<bool, ExecutorError> {
        let sql = format!("SELECT 1 FROM {} WHERE writer = $1 AND last_group = $2", self.marks.table);
        let found = self.pool.get().await?.query_opt(&sql, &[writer, group]).await.map_err(executor_error)?;
        Ok(found.is_some())
    }
}
