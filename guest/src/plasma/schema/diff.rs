//! What differs between two schemas, and whether that is safe.

use serde::Serialize;

use super::ddl::all_indexes;
use super::{Column, Index, Schema, Table};

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

/// What differs, in the shape that the admin API shows. Predicates, defaults, relations and references are no part of
/// it: the tables stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDiff {
    /// New tables; their columns and indexes are not listed apart.
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
    /// Names of new indexes of tables that stay, and of changed ones.
    pub added_indexes: Vec<String>,
    /// Names of indexes that are gone, and of changed ones.
    pub removed_indexes: Vec<String>,
}

impl SchemaDiff {
    /// What leads from one schema to another.
    pub fn between(from: &Schema, to: &Schema) -> Self {
        let mut diff = Self::default();
        let missing = |schema: &Schema, table: &&Table| schema.table(&table.name).is_none();
        let names = |tables: &mut dyn Iterator<Item = &Table>| tables.map(|table| table.name.clone()).collect();
        diff.added_tables = names(&mut to.tables().iter().filter(|table| missing(from, table)));
        diff.removed_tables = names(&mut from.tables().iter().filter(|table| missing(to, table)));
        for table in to.tables() {
            if let Some(before) = from.table(&table.name) {
                diff.compare(before, table);
            }
        }
        diff
    }

    fn compare(&mut self, from: &Table, to: &Table) {
        for column in &to.columns {
            let (table, name) = (to.name.clone(), column.name.clone());
            match from.column(&column.name) {
                None => {
                    let (nullable, has_default) = (column.nullable, column.default.is_some());
                    self.added_columns.push(NewColumn { table, column: name, nullable, has_default });
                }
                Some(before) if is_held_otherwise(before, column) => {
                    let (from, to) = (described(before), described(column));
                    self.changed_columns.push(ChangedColumn { table, column: name, from, to });
                }
                Some(_) => {}
            }
        }
        let gone = from.columns.iter().filter(|column| to.column(&column.name).is_none());
        self.removed_columns.extend(gone.map(|column| ColumnName { table: from.name.clone(), column: column.name.clone() }));
        if !from.key_columns().map(|column| &column.name).eq(to.key_columns().map(|column| &column.name)) {
            self.changed_primary_keys.push(to.name.clone());
        }
        self.added_indexes.extend(new_indexes(from, to).into_iter().map(|index| index.name));
        self.removed_indexes.extend(new_indexes(to, from).into_iter().map(|index| index.name));
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What differs, one line each, for whoever reads a log.
    pub fn lines(&self) -> Vec<String> {
        let whole = |what: &str, names: &[String]| names.iter().map(|name| format!("{what} {name}")).collect::<Vec<_>>();
        let mut lines = whole("new table", &self.added_tables);
        lines.extend(whole("no more table", &self.removed_tables));
        lines.extend(self.added_columns.iter().map(|new| format!("new column {}.{}", new.table, new.column)));
        lines.extend(self.removed_columns.iter().map(|gone| format!("no more column {}.{}", gone.table, gone.column)));
        let changed = |changed: &ChangedColumn| {
            format!("column {}.{} was {} and would be {}", changed.table, changed.column, changed.from, changed.to)
        };
        lines.extend(self.changed_columns.iter().map(changed));
        lines.extend(whole("another primary key of", &self.changed_primary_keys));
        lines.extend(whole("new index", &self.added_indexes));
        lines.extend(whole("no more index", &self.removed_indexes));
        lines
    }

    /// The rule of version 1: why this may not be done without leave to destroy, one line a reason.
    pub fn assert_safe_for_v1(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        reasons.extend(self.removed_tables.iter().map(|table| format!("table {table} would be dropped")));
        reasons.extend(self.removed_columns.iter().map(|gone| format!("column {}.{} would be dropped", gone.table, gone.column)));
        reasons.extend(self.changed_columns.iter().map(|changed| format!("column {}.{} would change", changed.table, changed.column)));
        reasons.extend(self.changed_primary_keys.iter().map(|table| format!("primary key of {table} would change")));
        reasons.extend(self.unfillable());
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Columns that existing rows cannot have a value for, one line each: not even leave to destroy helps.
    pub fn unfillable(&self) -> impl Iterator<Item = String> {
        let unfillable = self.added_columns.iter().filter(|column| !column.nullable && !column.has_default);
        unfillable.map(|column| format!("column {}.{} is not nullable and has no default", column.table, column.column))
    }
}

/// Whether clients must load anew after a migration: rows look different, or other ones are visible.
pub fn needs_reset(from: &Schema, to: &Schema) -> bool {
    let diff = SchemaDiff::between(from, to);
    let rows_differ = !diff.removed_tables.is_empty()
        || !diff.added_columns.is_empty()
        || !diff.removed_columns.is_empty()
        || !diff.changed_columns.is_empty()
        || !diff.changed_primary_keys.is_empty();
    rows_differ || to.tables().iter().any(|table| from.table(&table.name).is_some_and(|before| before.auth.read != table.auth.read))
}

/// Whether the database must hold a column otherwise.
pub(super) fn is_held_otherwise(from: &Column, to: &Column) -> bool {
    (from.column_type, from.nullable, from.encrypted) != (to.column_type, to.nullable, to.encrypted)
}

fn described(column: &Column) -> String {
    let mut text = column.column_type.name().to_owned();
    if column.nullable {
        text.push_str(" nullable");
    }
    if column.encrypted {
        text.push_str(" encrypted");
    }
    text
}

/// The indexes of `to` that `from` has not, or has otherwise.
pub(super) fn new_indexes(from: &Table, to: &Table) -> Vec<Index> {
    let before = all_indexes(from);
    all_indexes(to).into_iter().filter(|index| !before.contains(index)).collect()
}
