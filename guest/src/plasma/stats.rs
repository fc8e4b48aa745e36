//! Figures for people.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::schema::table_name;
use super::store::{self, changes};
use crate::imports::{Imports, Statement, Value};

/// What the database holds, in the shape that the admin API shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Rows by table.
    pub tables: BTreeMap<String, u64>,
    /// Entries of the change log.
    pub log_entries: u64,
    /// Mutations that are remembered.
    pub mutations: u64,
    /// The current version.
    pub version: u64,
    /// Cookies below it get a reset.
    pub min_version: u64,
    /// Known clients.
    pub clients: u64,
    /// Known client groups.
    pub client_groups: u64,
    /// Known blobs.
    pub blobs: u64,
}

impl Engine {
    /// The current version; 0 before the first one.
    pub fn version(&self, imports: Imports<'_>) -> Result<u64, Failure> {
        let view = imports.executor.snapshot(DATABASE)?;
        Ok(changes::head(self.sql(imports)?, view.as_ref())?.version)
    }

    /// Counts everything.
    pub fn stats(&self, imports: Imports<'_>) -> Result<Stats, Failure> {
        let sql = self.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        let head = changes::head(sql, view.as_ref())?;
        let count = |relation: String| -> Result<u64, Failure> {
            let statement = Statement { sql: format!("SELECT count(*) FROM {relation}"), parameters: Vec::new() };
            let rows = store::checked(view.query(statement, None)?)?;
            store::unsigned(rows.first().and_then(|row| row.first()).unwrap_or(&Value::Null))
        };
        let system = |name: &str| count(table_name(sql.prefix(), name));
        let tables = self.schema.tables().iter().map(|table| Ok((table.name.clone(), system(&table.name)?)));
        Ok(Stats {
            tables: tables.collect::<Result<_, Failure>>()?,
            log_entries: system("_plasma_changes")?,
            mutations: system("_plasma_mutations")?,
            version: head.version,
            min_version: head.min_version,
            clients: system("_plasma_clients")?,
            client_groups: system("_plasma_client_groups")?,
            blobs: system("_plasma_blobs")?,
        })
    }
}
