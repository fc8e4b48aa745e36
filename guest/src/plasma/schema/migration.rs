//! The statements that lead from one schema to another.

use super::ddl::{all_indexes, column_definition, create_index, create_table, index_name, literal, quoted, table_name};
use super::diff::{is_held_otherwise, new_indexes};
use super::{Column, ColumnType, Schema, SchemaDiff, Table};
use crate::imports::{Dialect, Statement};

/// The table that is filled in place of one that must be built anew; none of a schema can have its name.
const REBUILT: &str = "_plasma_rebuilt";

/// One step of a migration.
#[derive(Clone, Debug)]
pub struct MigrationStatement {
    /// What to execute.
    pub statement: Statement,
    /// The table whose existing rows it gives a value.
    pub backfills: Option<String>,
}

impl MigrationStatement {
    fn of(sql: String) -> Self {
        Self { statement: Statement { sql, parameters: Vec::new() }, backfills: None }
    }
}

/// All statements, in order, for one transaction. Nothing is asked here: see [`SchemaDiff::assert_safe_for_v1`], and for
/// what cannot be done [`impossible`].
pub fn migration_statements(from: &Schema, to: &Schema, dialect: Dialect, prefix: &str) -> Vec<MigrationStatement> {
    let mut steps = Vec::new();
    for table in from.tables() {
        match to.table(&table.name) {
            None => steps.push(format!("DROP TABLE {}", table_name(prefix, &table.name))),
            // What is dropped with a rebuilt table may be gone already.
            Some(after) => steps.extend(new_indexes(after, table).iter().map(|index| drop_index(prefix, table, &index.name))),
        }
    }
    let mut steps: Vec<MigrationStatement> = steps.into_iter().map(MigrationStatement::of).collect();
    for table in to.tables() {
        let made = match from.table(&table.name) {
            None => vec![MigrationStatement::of(create_table(table, dialect, &table_name(prefix, &table.name)))],
            Some(before) if must_be_rebuilt(before, table) => rebuild(before, table, dialect, prefix),
            Some(before) => add_columns(before, table, dialect, prefix),
        };
        steps.extend(made);
        // Those that are there already are left alone.
        steps.extend(all_indexes(table).iter().map(|index| MigrationStatement::of(create_index(table, index, dialect, prefix))));
    }
    steps
}

/// Why a migration cannot be done, not even with leave to destroy: columns whose present rows can have no value.
pub fn impossible(from: &Schema, to: &Schema) -> Vec<String> {
    let mut reasons: Vec<String> = SchemaDiff::between(from, to).unfillable().collect();
    for table in to.tables() {
        let Some(before) = from.table(&table.name) else { continue };
        for column in &table.columns {
            let Some(old) = before.column(&column.name) else { continue };
            if conversion(old, column, "", Dialect::Sqlite).is_none() && !column.nullable && column.default.is_none() {
                reasons.push(format!("column {}.{} cannot keep its values and has no default", table.name, column.name));
            }
        }
    }
    reasons
}

fn drop_index(prefix: &str, table: &Table, index: &str) -> String {
    format!("DROP INDEX IF EXISTS {}", quoted(&index_name(prefix, &table.name, index)))
}

fn must_be_rebuilt(from: &Table, to: &Table) -> bool {
    let key_differs = !from.key_columns().map(|column| &column.name).eq(to.key_columns().map(|column| &column.name));
    let changed = |column: &Column| to.column(&column.name).is_none_or(|after| is_held_otherwise(column, after));
    key_differs || from.columns.iter().any(changed)
}

fn add_columns(from: &Table, to: &Table, dialect: Dialect, prefix: &str) -> Vec<MigrationStatement> {
    let added = to.columns.iter().filter(|column| from.column(&column.name).is_none());
    let add = |column: &Column| {
        let definition = column_definition(column, dialect);
        let step = MigrationStatement::of(format!("ALTER TABLE {} ADD COLUMN {definition}", table_name(prefix, &to.name)));
        MigrationStatement { backfills: column.default.as_ref().map(|_| to.name.clone()), ..step }
    };
    added.map(add).collect()
}

fn rebuild(from: &Table, to: &Table, dialect: Dialect, prefix: &str) -> Vec<MigrationStatement> {
    let (name, rebuilt) = (table_name(prefix, &to.name), table_name(prefix, REBUILT));
    let columns: Vec<String> = to.columns.iter().map(|column| quoted(&column.name)).collect();
    let values: Vec<String> = to.columns.iter().map(|column| rebuilt_value(from, column, dialect)).collect();
    let fill = format!("INSERT INTO {rebuilt} ({}) SELECT {} FROM {name}", columns.join(", "), values.join(", "));
    vec![
        MigrationStatement::of(create_table(to, dialect, &rebuilt)),
        MigrationStatement { backfills: Some(to.name.clone()), ..MigrationStatement::of(fill) },
        MigrationStatement::of(format!("DROP TABLE {name}")),
        MigrationStatement::of(format!("ALTER TABLE {rebuilt} RENAME TO {name}")),
    ]
}

fn rebuilt_value(from: &Table, column: &Column, dialect: Dialect) -> String {
    let default = column.default.as_ref().map(|default| literal(column, default, dialect));
    let Some(old) = from.column(&column.name) else { return default.unwrap_or_else(|| "NULL".into()) };
    let kept = conversion(old, column, &quoted(&column.name), dialect);
    match (kept, default) {
        (Some(kept), Some(default)) if old.nullable && !column.nullable => format!("coalesce({kept}, {default})"),
        (Some(kept), _) => kept,
        (None, default) => default.unwrap_or_else(|| "NULL".into()),
    }
}

/// A present value as one of the new column; none where it cannot be kept.
fn conversion(from: &Column, to: &Column, value: &str, dialect: Dialect) -> Option<String> {
    use ColumnType::{Bigint, Boolean, Integer, Json, Real, Text, Timestamp};
    if from.encrypted || to.encrypted {
        return (from.encrypted && to.encrypted).then(|| value.to_owned());
    }
    let sqlite = dialect == Dialect::Sqlite;
    let pick = |in_sqlite: &str, in_postgres: &str| Some(if sqlite { in_sqlite } else { in_postgres }.replace("{}", value));
    match (from.column_type, to.column_type) {
        (from, to) if from == to => Some(value.to_owned()),
        (Integer, Timestamp) | (Timestamp, Integer) => Some(value.to_owned()),
        (Integer | Timestamp, Real) => pick("CAST({} AS REAL)", "{}::double precision"),
        (Integer | Timestamp, Bigint) => pick("CAST({} AS TEXT)", "{}::numeric"),
        (Integer | Timestamp | Bigint, Text) => pick("CAST({} AS TEXT)", "{}::text"),
        (Boolean, Integer) => pick("{}", "{}::integer::bigint"),
        (Integer, Boolean) => pick("({} <> 0)", "({} <> 0)"),
        (Boolean, Text) => pick("CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END", "{}::text"),
        (Text, Json) => pick("json_quote({})", "to_jsonb({})"),
        _ => None,
    }
}
