//! The start of a mount: tables, seed, and the way from a stored schema to the configured one.

use serde::Serialize;

use super::engine::Engine;
use super::failure::Failure;
use super::schema::{Schema, SchemaDiff};
use crate::imports::Imports;

/// Something that a migration did, in the shape that the admin API shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum MigrationEvent {
    /// It begins.
    Start,
    /// A statement that was run, or would be.
    Statement {
        /// Its text.
        sql: String,
    },
    /// Rows that were filled.
    Backfill {
        /// Whose.
        table: String,
        /// How many.
        rows: u64,
    },
    /// It is done.
    Done,
    /// It is refused.
    Refused,
}

/// What a migration did, or would do, in the shape that the admin API shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationResult {
    /// Always true.
    pub ok: bool,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What differs.
    pub diff: SchemaDiff,
    /// In order.
    pub events: Vec<MigrationEvent>,
}

/// Why a migration was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MigrationRefused {
    /// 409 `migration-refused`.
    #[error("migration refused: {}", reasons.join("; "))]
    Refused {
        /// One line each.
        reasons: Vec<String>,
        /// What differs.
        diff: Box<SchemaDiff>,
    },
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Engine {
    /// Creates or migrates what the mount keeps, and seeds it once. The error stops the start.
    pub fn start(&self, imports: Imports<'_>) -> Result<(), String> {
        let _ = imports;
        todo!()
    }

    /// Brings the stored schema to another one.
    pub fn migrate(
        &self,
        imports: Imports<'_>,
        to: &Schema,
        dry_run: bool,
        allow_destructive: bool,
    ) -> Result<MigrationResult, MigrationRefused> {
        let _ = (imports, to, dry_run, allow_destructive);
        todo!()
    }
}
