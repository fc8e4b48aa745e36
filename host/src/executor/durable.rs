//! A database of the host's own: writes that are durable when they return.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Database, DatabaseInfo, DatabaseName, Dialect, Executor, ExecutorError, GroupObserver, RowSet, Statement, Value};

/// A database whose writer waits for the disk.
pub struct DurableDatabase {
    database: Arc<dyn Database>,
    groups: Arc<Groups>,
}

struct Groups {
    settled: watch::Sender<u64>,
    lost: Mutex<BTreeSet<u64>>,
}

impl GroupObserver for Groups {
    fn settled(&self, _database: &DatabaseName, group: u64, durable: bool) {
        if !durable {
            self.lost.lock().insert(group);
        }
        self.settled.send_replace(group);
    }
}

impl DurableDatabase {
    /// Opens a database of the host's own.
    pub async fn open(executor: &dyn Executor, name: &str) -> Result<Self, ExecutorError> {
        let groups = Arc::new(Groups { settled: watch::Sender::new(0), lost: Mutex::default() });
        let name = DatabaseName { mount: crate::runtime::OWN_NAME.into(), name: name.into() };
        let database = executor.open(&name, groups.clone()).await?;
        Ok(Self { database, groups })
    }

    /// The database, for its dialect.
    pub fn database(&self) -> &dyn Database {
        &*self.database
    }

    /// The database, to be kept.
    pub fn shared(&self) -> Arc<dyn Database> {
        self.database.clone()
    }

    /// Runs statements in one transaction; durable when this returns.
    pub async fn write(&self, statements: &[Statement]) -> Result<Vec<RowSet>, ExecutorError> {
        let mut transaction = self.database.begin().await?;
        let results = transaction.execute_batch(statements).await?;
        let mut ended_in = 0;
        transaction.commit(&mut |group| ended_in = group).await?;
        let mut settled = self.groups.settled.subscribe();
        let waited = settled.wait_for(|settled| *settled >= ended_in).await;
        if waited.is_err() || self.groups.lost.lock().contains(&ended_in) {
            return Err(ExecutorError::Unavailable("the group was lost".into()));
        }
        Ok(results)
    }

    /// Runs a query on what is durable.
    pub async fn read(&self, statement: &Statement) -> Result<RowSet, ExecutorError> {
        self.database.snapshot().await?.query(statement, None).await
    }
}

/// A statement of the host's own in the dialect of a database. In the template `{}` stands for the prefix of tables, `?`
/// for a parameter (and for nothing else).
pub fn statement(info: &DatabaseInfo, template: &str, parameters: Vec<Value>) -> Statement {
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

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}
