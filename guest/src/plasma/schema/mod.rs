//! The schema: tables, their columns and rules, as the configuration declares them and after all checks.

mod cell;
mod ddl;
mod diff;
mod key;
mod migration;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use serde_json::Value as Json;

pub use cell::{bulk_cell, bulk_value, cast, from_sql, select_cell, to_sql, write_json};
pub(super) use cell::{member_to_type, type_bulk_value, type_cast, type_to_sql};
pub use ddl::{create_schema, index_name, quoted, table_name};
pub use diff::{ChangedColumn, ColumnName, NewColumn, SchemaDiff, needs_reset};
pub use key::{key_text, pk_json};
pub use migration::{MigrationStatement, impossible, migration_statements};
pub(super) use parse::{pair_problem, relation_problem};
pub use value::{JSON_DEPTH_MAX, ValueError, complete_row, is_deeper_than, normalize, normalize_key, normalize_set};
pub(super) use value::{has_zero_character, normal_value, number_text, real_json};

use crate::plasma::language::Predicate;

/// The largest magnitude of an `integer` or `timestamp`.
pub const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;

/// The type of a column, apart from `encrypted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ColumnType {
    /// A string.
    Text,
    /// A whole number within ±(2^53−1).
    Integer,
    /// Decimal digits of any length, as a string.
    Bigint,
    /// A finite double.
    Real,
    /// True or false.
    Boolean,
    /// Any JSON.
    Json,
    /// Milliseconds since 1970.
    Timestamp,
    /// Bytes, base64 on the wire.
    Bytes,
    /// A reference to a blob.
    File,
}

impl ColumnType {
    /// All, in the order of the documents.
    pub const ALL: [Self; 9] =
        [Self::Text, Self::Integer, Self::Bigint, Self::Real, Self::Boolean, Self::Json, Self::Timestamp, Self::Bytes, Self::File];

    /// The name in a schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::Json => "json",
            Self::Timestamp => "timestamp",
            Self::Bytes => "bytes",
            Self::File => "file",
        }
    }
}

/// What happens to a row whose referenced row is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The deletion is refused.
    Restrict,
    /// It is deleted, too.
    Cascade,
    /// Its column becomes null.
    SetNull,
}

/// A column whose values are those of another table's column. The layer that every write passes keeps it true, so that
/// what follows from a deletion is logged; the database itself knows nothing of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The referenced table.
    pub table: String,
    /// Its column: the only one of its primary key, or of a unique index.
    pub column: String,
    /// What a deletion over there does here.
    pub on_delete: OnDelete,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether null is a value of it.
    pub nullable: bool,
    /// What an insert without it writes, in normal form; a nullable column without one gets null.
    pub default: Option<Json>,
    /// Whether its values are envelopes.
    pub encrypted: bool,
    /// Whose values it takes.
    pub references: Option<Reference>,
}

impl Column {
    /// Whether the database holds it as JSON.
    pub fn is_json(&self) -> bool {
        self.encrypted || matches!(self.column_type, ColumnType::Json | ColumnType::File)
    }
}

/// An index.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Its name within the table.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Whether no two rows may have the same values.
    pub unique: bool,
}

/// How many rows a relation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// An object or null.
    One,
    /// An array.
    Many,
}

/// Rows of another table that belong to a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// How many.
    pub kind: RelationKind,
    /// The other table.
    pub table: String,
    /// Columns of this table.
    pub from: Vec<String>,
    /// As many columns of the other, equal to them.
    pub to: Vec<String>,
}

/// Who may do what with the rows of a table: `true` where the schema says nothing, `false` for an action that the
/// object form of `write` leaves out.
#[derive(Clone, Debug, PartialEq)]
pub struct TableAuth {
    /// Whether the table has an `auth` block.
    pub declared: bool,
    /// Who sees a row.
    pub read: Predicate,
    /// Judged on the new row.
    pub insert: Predicate,
    /// Judged on the old and on the new row.
    pub update: Predicate,
    /// Judged on the old row.
    pub delete: Predicate,
}

/// A table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// In the order of their names, which is also the order of the cells of `SELECT`s over all columns.
    pub columns: Vec<Column>,
    /// Positions in `columns`, in the order of the key.
    pub primary_key: Vec<usize>,
    /// In the order of their names.
    pub indexes: Vec<Index>,
    /// By name.
    pub relations: BTreeMap<String, Relation>,
    /// Who may do what.
    pub auth: TableAuth,
}

impl Table {
    /// The position of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok()
    }

    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.position(name).map(|position| &self.columns[position])
    }

    /// The columns of the primary key, in its order.
    pub fn key_columns(&self) -> impl ExactSizeIterator<Item = &Column> + Clone {
        self.primary_key.iter().map(|position| &self.columns[*position])
    }

    /// The columns whose values refer to blobs.
    pub fn files(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.column_type == ColumnType::File && !column.encrypted)
    }

    /// The primary key of a complete row.
    pub fn key_of(&self, row: &serde_json::Map<String, Json>) -> Vec<Json> {
        self.key_columns().map(|column| row.get(&column.name).cloned().unwrap_or(Json::Null)).collect()
    }
}

/// A reference as its target sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Referrer<'a> {
    /// The table that refers.
    pub table: &'a Table,
    /// Its column.
    pub column: &'a Column,
    /// What is referred to, and what a deletion does.
    pub reference: &'a Reference,
}

/// All tables, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    source: Json,
    tables: Vec<Table>,
}

impl Schema {
    /// Parses and checks; every problem is named by the path of its key, which begins with `path` (`schema`).
    pub fn parse(source: &Json, path: &str) -> Result<Self, Vec<String>> {
        let tables = parse::tables(source, path)?;
        Ok(Self { source: source.clone(), tables })
    }

    /// What it was parsed from.
    pub fn source(&self) -> &Json {
        &self.source
    }

    /// All tables, in the order of their names.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// A table by its name. System tables are unknown ones.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.binary_search_by(|table| table.name.as_str().cmp(name)).ok().map(|position| &self.tables[position])
    }

    /// Whether some column is a `file`.
    pub fn has_files(&self) -> bool {
        self.tables.iter().flat_map(|table| &table.columns).any(|column| column.column_type == ColumnType::File)
    }

    /// Why `requireTableAuth` refuses the schema, one line a table.
    pub fn tables_without_auth(&self) -> Vec<String> {
        let open = self.tables.iter().filter(|table| !table.auth.declared);
        open.map(|table| format!("requireTableAuth: table {} has no auth block", table.name)).collect()
    }

    /// What refers to a table.
    pub fn referrers(&self, target: &str) -> Vec<Referrer<'_>> {
        let columns = self.tables.iter().flat_map(|table| table.columns.iter().map(move |column| (table, column)));
        let referring = columns.filter_map(|(table, column)| Some(Referrer { table, column, reference: column.references.as_ref()? }));
        referring.filter(|referrer| referrer.reference.table == target).collect()
    }
}
