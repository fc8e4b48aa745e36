//! Key-value as Spin gives it: one file with one connection for all, keys in no order.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::OptionalExtension as _;
use wasmtime::component::Resource;

use super::bindings::fermyon::spin::key_value;
use super::instance::{HANDLES_MAX, Instance};

/// The only label that there is.
const LABEL: &str = "default";

/// A handle.
pub struct Store;

/// All values.
pub struct Values {
    connection: Arc<Mutex<rusqlite::Connection>>,
    /// Bytes of a value at most; none: any number.
    value_bytes_max: Option<usize>,
}

fn other(error: impl std::fmt::Display) -> key_value::Error {
    key_value::Error::Other(error.to_string())
}

impl Values {
    /// Those of a folder.
    pub fn open(folder: &Path, value_bytes_max: Option<usize>) -> rusqlite::Result<Self> {
        let connection = rusqlite::Connection::open(folder.join("sqlite_key_value.db"))?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS fake_key_value (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), value_bytes_max })
    }

    async fn with<T: Send + 'static>(
        &self,
        run: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> wasmtime::Result<Result<T, key_value::Error>> {
        let connection = self.connection.clone();
        Ok(tokio::task::spawn_blocking(move || run(&connection.lock())).await?.map_err(other))
    }
}

impl key_value::Host for Instance {}

impl key_value::HostStore for Instance {
    async fn open(&mut self, label: String) -> wasmtime::Result<Result<Resource<Store>, key_value::Error>> {
        if label != LABEL {
            return Ok(Err(key_value::Error::AccessDenied));
        }
        if self.stores >= HANDLES_MAX {
            return Ok(Err(key_value::Error::StoreTableFull));
        }
        self.stores += 1;
        Ok(Ok(self.table.push(Store)?))
    }

    async fn get(&mut self, _store: Resource<Store>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, key_value::Error>> {
        let values = &self.shared.values;
        values.with(move |sql| sql.query_row("SELECT value FROM fake_key_value WHERE key = ?1", [key], |row| row.get(0)).optional()).await
    }

    async fn set(&mut self, _store: Resource<Store>, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), key_value::Error>> {
        let values = &self.shared.values;
        if let Some(max) = values.value_bytes_max.filter(|max| value.len() > *max) {
            return Ok(Err(other(format!("a value of {} bytes is too large: the limit is {max}", value.len()))));
        }
        let set = "INSERT INTO fake_key_value (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        values.with(move |sql| sql.execute(set, rusqlite::params![key, value]).map(drop)).await
    }

    async fn delete(&mut self, _store: Resource<Store>, key: String) -> wasmtime::Result<Result<(), key_value::Error>> {
        self.shared.values.with(move |sql| sql.execute("DELETE FROM fake_key_value WHERE key = ?1", [key]).map(drop)).await
    }

    async fn exists(&mut self, store: Resource<Store>, key: String) -> wasmtime::Result<Result<bool, key_value::Error>> {
        Ok(self.get(store, key).await?.map(|value| value.is_some()))
    }

    async fn get_keys(&mut self, _store: Resource<Store>) -> wasmtime::Result<Result<Vec<String>, key_value::Error>> {
        let keys = |sql: &rusqlite::Connection| {
            let mut statement = sql.prepare("SELECT key FROM fake_key_value ORDER BY random()")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        self.shared.values.with(keys).await
    }

    async fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.stores -= 1;
        self.table.delete(store)?;
        Ok(())
    }
}
