//! Writes of the server's side: `/admin/db`, and apps through `services`.

use serde_json::{Map, Value as Json};

use super::engine::{Engine, Hooks};
use super::failure::Failure;
use crate::imports::Imports;

/// On whose behalf rows are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The server's own: nothing is judged.
    Bypass,
    /// Someone's: the write predicates hold with this `ctx`.
    Enforce(Map<String, Json>),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// An existing key is an error.
    Insert {
        /// Its table.
        table: String,
        /// Columns left out take their defaults.
        row: Map<String, Json>,
    },
    /// Inserts, or updates the given columns.
    Upsert {
        /// Its table.
        table: String,
        /// With all columns of the key.
        row: Map<String, Json>,
    },
    /// A missing row is an error.
    Update {
        /// Its table.
        table: String,
        /// The primary key.
        key: Vec<Json>,
        /// Columns to set.
        set: Map<String, Json>,
    },
    /// A missing row is none.
    Delete {
        /// Its table.
        table: String,
        /// The primary key.
        key: Vec<Json>,
    },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version it took.
    pub version: u64,
    /// Rows that changed, those that follow from deletions among them.
    pub changed: u64,
}

/// What is done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It comes.
    Insert,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

impl Action {
    /// `insert`, `update`, `delete`
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Why a write was refused; nothing of it was kept.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteRefused {
    /// 403 `plasma-authorization` (`PlasmaAuthorizationError`).
    #[error("{} on {table} is not allowed", action.name())]
    Authorization {
        /// Where.
        table: String,
        /// What.
        action: Action,
    },
    /// 422 `db-error`.
    #[error("{0}")]
    Invalid(String),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Operation {
    /// From `{"insert":{table,row}}` and its like.
    pub fn parse(source: &Json) -> Result<Self, String> {
        todo!("{source}")
    }
}

impl Engine {
    /// Carries out writes, all or none, under one version. Inside a mutator of the app (the transaction of its push is open) they
    /// are part of that mutation: under its version and, with [`Policy::Enforce`], in its caller's name.
    pub fn write(
        &self,
        imports: Imports<'_>,
        policy: &Policy,
        operations: &[Operation],
        hooks: &dyn Hooks,
    ) -> Result<Written, WriteRefused> {
        let _ = (imports, policy, operations, &hooks);
        todo!()
    }

    /// The complete row of a key as the policy shows it; inside a mutator of the app with what that wrote.
    pub fn get(&self, imports: Imports<'_>, policy: &Policy, table: &str, key: &[Json]) -> Result<Option<Map<String, Json>>, WriteRefused> {
        let _ = (imports, policy, table, key);
        todo!()
    }
}
