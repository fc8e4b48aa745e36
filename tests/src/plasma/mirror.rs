//! The result of a live query as a client keeps it, which takes no frame that does not fit.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The rows of one live query.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The columns of the primary key.
    key: Vec<&'static str>,
    /// The rows, in the order of the query.
    pub rows: Vec<Value>,
    /// The version that they are of; none: nothing came yet.
    pub version: Option<u64>,
    /// Results that came whole.
    pub wholes: u64,
}

impl Mirror {
    /// Nothing yet.
    pub fn new(key: &[&'static str]) -> Self {
        Self { key: key.to_vec(), rows: Vec::new(), version: None, wholes: 0 }
    }

    fn key_of(&self, row: &Value) -> String {
        self.key.iter().map(|column| row[column].clone()).collect::<Value>().to_string()
    }

    /// Takes what came: `rows`, or `put`, `del` and `order`.
    ///
    /// # Errors
    /// It does not fit onto what is there.
    pub fn apply(&mut self, message: &Value) -> anyhow::Result<()> {
        let version = message["version"].as_u64().context("a version")?;
        ensure!(self.version.is_none_or(|before| before <= version), "version {version} after {:?}", self.version);
        self.version = Some(version);
        if let Some(rows) = message["rows"].as_array() {
            self.rows = rows.clone();
            self.wholes += 1;
            return Ok(());
        }
        let list = |name: &str| message[name].as_array().with_context(|| format!("{name} in {message}"));
        let before = std::mem::take(&mut self.rows);
        let mut by_key: BTreeMap<String, Value> = before.into_iter().map(|row| (self.key_of(&row), row)).collect();
        for key in list("del")? {
            ensure!(by_key.remove(&key.to_string()).is_some(), "{key} was not there, and is to go: {message}");
        }
        for row in list("put")? {
            by_key.insert(self.key_of(row), row.clone());
        }
        let order = list("order")?;
        ensure!(order.len() == by_key.len(), "{} rows and {} places", by_key.len(), order.len());
        let placed = order.iter().map(|key| by_key.remove(&key.to_string()).with_context(|| format!("no row {key}: {message}")));
        self.rows = placed.collect::<anyhow::Result<_>>()?;
        Ok(())
    }
}
