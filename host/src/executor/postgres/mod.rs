//! PostgreSQL: one schema per family of databases of a mount, over a pool of connections.
//!
//! * One writer per database, in this process and among several: an advisory lock that is held as long as a group is
//!   open. The transactions of components are savepoints within the group ([`super::group`] decides when it ends).
//! * Snapshots are REPEATABLE READ on connections of their own and see what is durable, nothing else.
//! * Statements go in the extended protocol: one at a time, parameters apart from the text. A statement costs one round
//!   trip; what the host itself has to say travels with it (`link`).
//! * A commit whose answer got lost is looked up by its number when the server can be reached again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use self::address::{AddressError, PostgresAddress};
use self::marks::Marks;
use self::names::{lock_key, mount_prefix, schema};
use self::pool::Pool;
use self::snapshot::{OpenSnapshots, PostgresSnapshot};
use self::space::Spaces;
use self::statement::{ResultLimits, executor_error};
use self::transaction::PostgresTransaction;
use self::writer::{DatabaseParts, Writer};
use super::probe::Probe;
use super::{
    Database, DatabaseInfo, DatabaseName, Dialect, Executor, ExecutorError, GroupObserver, Hold, MountUsage, Snapshot, Transaction,
    TransactionTime,
};
use crate::backup::Standstill;

mod address;
mod link;
mod marks;
pub(crate) mod names;
pub(crate) mod pool;
mod snapshot;
mod space;
pub(crate) mod statement;
mod transaction;
mod value;
mod writer;

/// A connection that goes back to the pool by being dropped.
type Connection = deadpool_postgres::Object;

/// What the comment on each schema begins with; the number is that of the layout within it.
const FORMAT: &str = "syncline format 1: ";

/// Settings of a [`PostgresExecutor`]. [`PostgresSettings::new`] has the defaults.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Where the server is, and as whom to speak to it.
    pub address: PostgresAddress,
    /// Names of schemas begin with it (that of the address, or `syncline`): several installations can share a database.
    pub schema_prefix: String,
    /// Connections at most (20).
    pub connections_max: usize,
    /// How long one statement may run, in milliseconds (1000).
    pub statement_ms_max: u64,
    /// How long a transaction may stay open, in milliseconds (1000). Then its next statement and its commit fail.
    pub transaction_ms_max: u64,
    /// How long to wait for the writer, or for a connection, in milliseconds (4000).
    pub begin_wait_ms_max: u64,
    /// How long a host that stops still asks for the fate of a commit without an answer, in milliseconds (10 000).
    pub fate_ms_max: u64,
    /// How long a snapshot may stay open, in milliseconds (300 000). Then its next query fails.
    pub snapshot_ms_max: u64,
    /// Rows in a result, where the caller names no limit of its own (100 000).
    pub rows_max: u32,
    /// Bytes in a result, 32 for each cell and its text or bytes (16 MiB).
    pub result_bytes_max: u64,
    /// Transactions in a group (512).
    pub group_transactions_max: u32,
    /// Milliseconds that a group takes transactions for, as long as there are more waiting (10).
    pub group_ms_max: u64,
}

impl PostgresSettings {
    /// The defaults for a server.
    pub fn new(address: PostgresAddress) -> Self {
        Self {
            schema_prefix: address.schema_prefix.clone().unwrap_or_else(|| "syncline".into()),
            address,
            connections_max: 20,
            statement_ms_max: 1_000,
            transaction_ms_max: 1_000,
            begin_wait_ms_max: 4_000,
            fate_ms_max: 10_000,
            snapshot_ms_max: 300_000,
            rows_max: 100_000,
            result_bytes_max: 16 << 20,
            group_transactions_max: 512,
            group_ms_max: 10,
        }
    }
}

/// The databases of a mount on a PostgreSQL server.
pub struct PostgresExecutor {
    shared: Arc<Shared>,
    databases: Mutex<Databases>,
    spaces: Spaces,
    /// For [`Executor::ready`]; opened when it is first asked.
    probe: tokio::sync::Mutex<Option<Probe>>,
}

#[derive(Default)]
struct Databases {
    by_name: BTreeMap<DatabaseName, Weak<PostgresDatabase>>,
    closed: bool,
}

struct Shared {
    settings: PostgresSettings,
    pool: Pool,
    runtime: Handle,
    snapshots: OpenSnapshots,
    marks: Marks,
    closed: AtomicBool,
}

impl Shared {
    fn result_limits(&self) -> ResultLimits {
        ResultLimits { rows_max: self.settings.rows_max, bytes_max: self.settings.result_bytes_max }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Bytes of the tables and indexes of a mount, with what is free in them.
    async fn size_bytes(&self, mount: &str) -> Result<u64, ExecutorError> {
        let prefix = mount_prefix(&self.settings.schema_prefix, mount);
        let sql = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND starts_with(n.nspname, $1)";
        let row = self.pool.get().await?.query_one(sql, &[&prefix]).await.map_err(executor_error)?;
        let bytes: i64 = row.try_get(0).map_err(executor_error)?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}

fn closed() -> ExecutorError {
    ExecutorError::Unavailable("the host is stopping".to_owned())
}

impl PostgresExecutor {
    /// Connects. Called within a tokio runtime with time enabled.
    pub async fn start(settings: PostgresSettings) -> Result<Self, ExecutorError> {
        let pool = Pool::new(&settings)?;
        let (snapshots, closed) = (OpenSnapshots::default(), AtomicBool::new(false));
        let marks = Marks::start(&pool, &settings).await?;
        let shared = Arc::new(Shared { settings, pool, runtime: Handle::current(), snapshots, marks, closed });
        Ok(Self { shared, databases: Mutex::default(), spaces: Spaces::default(), probe: tokio::sync::Mutex::default() })
    }

    /// What the server is: its version, and whether it is spoken to over TLS.
    pub async fn server(&self) -> Result<String, ExecutorError> {
        let sql = "SELECT current_setting('server_version'), coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)";
        let row = self.shared.pool.get().await?.query_one(sql, &[]).await.map_err(executor_error)?;
        let (version, secure): (String, bool) = (row.try_get(0).map_err(executor_error)?, row.try_get(1).map_err(executor_error)?);
        Ok(format!("PostgreSQL {version}, {} TLS", if secure { "over" } else { "without" }))
    }
}

/// Makes a schema where there is none, and refuses one that is not ours or newer than we are.
pub(crate) async fn make_schema(pool: &Pool, schema: &str, lock_key: i64) -> Result<(), ExecutorError> {
    let connection = pool.get().await?;
    let comment = || async {
        let sql = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1";
        let row = connection.query_opt(sql, &[&schema]).await.map_err(executor_error)?;
        row.map(|row| row.try_get::<_, Option<String>>(0).map_err(executor_error)).transpose()
    };
    if comment().await?.is_none() {
        let make = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({lock_key}); CREATE SCHEMA IF NOT EXISTS {schema}; \
             COMMENT ON SCHEMA {schema} IS '{FORMAT}{schema}'; COMMIT"
        );
        if let Err(error) = connection.batch_execute(&make).await {
            drop(Connection::take(connection));
            return Err(executor_error(error));
        }
    }
    match comment().await? {
        Some(Some(comment)) if comment.starts_with(FORMAT) => Ok(()),
        found => {
            let found = found.flatten().unwrap_or_else(|| "no comment".into());
            Err(ExecutorError::Unavailable(format!("the schema {schema} is of another version or program ({found})")))
        }
    }
}

#[async_trait]
impl Executor for PostgresExecutor {
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError> {
        let schema = schema(&self.shared.settings.schema_prefix, name);
        let lock_key = lock_key(&schema, name);
        make_schema(&self.shared.pool, &schema, lock_key).await?;
        let parts = DatabaseParts { name: name.clone(), schema, lock_key, shared: Arc::clone(&self.shared), observer };
        let mut databases = self.databases.lock();
        if databases.closed {
            return Err(closed());
        }
        if databases.by_name.get(name).is_some_and(|database| database.strong_count() > 0) {
            let DatabaseName { mount, name } = name;
            return Err(ExecutorError::Unavailable(format!("the database {name:?} of {mount:?} is open already")));
        }
        let parts = Arc::new(parts);
        let database = Arc::new(PostgresDatabase { writer: Writer::start(Arc::clone(&parts)), parts });
        databases.by_name.insert(name.clone(), Arc::downgrade(&database));
        Ok(database)
    }

    async fn ready(&self) -> Result<(), ExecutorError> {
        let mut probe = self.probe.lock().await;
        let probe = match &mut *probe {
            Some(probe) => probe,
            none => none.insert(Probe::open(self).await?),
        };
        probe.run().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn size_bytes(&self, mount: &str) -> Result<Option<u64>, ExecutorError> {
        self.shared.size_bytes(mount).await.map(Some)
    }

    fn database_bytes(&self, mount: &str) -> Option<u64> {
        Some(self.spaces.bytes(&self.shared, mount))
    }

    fn usage(&self, mount: &str) -> MountUsage {
        MountUsage { log_bytes: 0, snapshot_age: self.shared.snapshots.oldest(mount) }
    }

    async fn stand_still(&self) -> Result<Standstill, ExecutorError> {
        Err(ExecutorError::Unavailable("PostgreSQL has means of its own: stop the server, use pg_dump, and copy the data folder".into()))
    }

    async fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        let open: Vec<_> = {
            let mut databases = self.databases.lock();
            databases.closed = true;
            databases.by_name.values().filter_map(Weak::upgrade).collect()
        };
        futures_util::future::join_all(open.iter().map(|database| database.writer.close())).await;
        self.shared.pool.close();
    }
}

struct PostgresDatabase {
    parts: Arc<DatabaseParts>,
    writer: Writer,
}

#[async_trait]
impl Database for PostgresDatabase {
    fn info(&self) -> DatabaseInfo {
        DatabaseInfo { dialect: Dialect::Postgres, table_prefix: String::new() }
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError> {
        Ok(Box::new(PostgresSnapshot::open(Arc::clone(&self.parts)).await?))
    }

    fn hold(&self) -> Hold {
        self.writer.hold()
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError> {
        self.begin_within(TransactionTime::AsSet).await
    }

    async fn begin_within(&self, time: TransactionTime) -> Result<Box<dyn Transaction>, ExecutorError> {
        let turn = self.writer.turn(time.step_ms_max(self.parts.shared.settings.begin_wait_ms_max)).await?;
        Ok(Box::new(PostgresTransaction::new(Arc::clone(&self.parts), turn, time)?))
    }
}
