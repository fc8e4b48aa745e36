//! The statements that lead from one schema to another.

use super::{Schema, SchemaDiff};
use crate::imports::{Dialect, Statement};

/// One step of a migration.
#[derive(Clone, Debug)]
pub struct MigrationStatement {
    /// What to execute.
    pub statement: Statement,
    /// The table whose existing rows it fills; the count of rows is what the statement changed.
    pub backfills: Option<String>,
}

/// All statements, in order, for one transaction. `diff` is [`SchemaDiff::between`] the two.
pub fn migration_statements(from: &Schema, to: &Schema, diff: &SchemaDiff, dialect: Dialect, prefix: &str) -> Vec<MigrationStatement> {
    todo!("{from:?} {to:?} {diff:?} {dialect:?} {prefix}")
}
