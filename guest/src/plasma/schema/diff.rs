//! What differs between two schemas, and whether that is safe.

use serde::Serialize;

use super::Schema;

/// A column by its table and name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnName {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
}

/// A column that is new in a table that was there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewColumn {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// Whether null is a value of it.
    pub nullable: bool,
    /// Whether existing rows can be filled.
    pub has_default: bool,
}

/// A column whose type, nullability or encryption differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedColumn {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// What it was (`integer`, `text nullable`, `json encrypted`).
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// What differs, in the shape that the admin API shows. Indexes are named `table.index`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDiff {
    /// New tables.
    pub added_tables: Vec<String>,
    /// Tables that are gone.
    pub removed_tables: Vec<String>,
    /// New columns of tables that stay.
    pub added_columns: Vec<NewColumn>,
    /// Columns that are gone from tables that stay.
    pub removed_columns: Vec<ColumnName>,
    /// Columns that are held otherwise.
    pub changed_columns: Vec<ChangedColumn>,
    /// Tables whose primary key differs.
    pub changed_primary_keys: Vec<String>,
    /// New indexes of tables that stay, and changed ones.
    pub added_indexes: Vec<String>,
    /// Indexes that are gone, and changed ones.
    pub removed_indexes: Vec<String>,
}

impl SchemaDiff {
    /// What leads from one schema to another.
    pub fn between(from: &Schema, to: &Schema) -> Self {
        todo!("{from:?} {to:?}")
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether rows as clients see them may differ afterwards.
    pub fn is_visible(&self) -> bool {
        todo!()
    }

    /// The rule of version 1: why this may not be done without leave to destroy, one line a reason.
    pub fn assert_safe_for_v1(&self) -> Result<(), Vec<String>> {
        todo!()
    }

    /// Why this cannot be done at all, not even with leave to destroy.
    pub fn impossible(&self) -> Vec<String> {
        todo!()
    }
}
