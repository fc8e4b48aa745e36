//! The statements that create tables and indexes.

use serde_json::Value as Json;

use super::{Column, ColumnType, Index, Schema, Table, to_sql};
use crate::imports::{Dialect, Value};

/// The longest identifier that PostgreSQL does not cut, in bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// An identifier in SQL.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name in SQL, quoted.
pub fn table_name(prefix: &str, table: &str) -> String {
    quoted(&format!("{prefix}{table}"))
}

/// The name of an index in SQL, unquoted: unique over all tables and at most 63 bytes long.
pub fn index_name(prefix: &str, table: &str, index: &str) -> String {
    // Tables and indexes share one space of names, in which `a_b` of `c` must not meet `b` of `c_a`.
    let digest = format!("{table}\0{index}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a: the name must be the same for ever, and none of this is a secret.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digest = format!("_{:08x}", digest as u32 ^ (digest >> 32) as u32);
    let mut name = format!("{prefix}{table}_{}", index.replace(' ', "_"));
    name.truncate(IDENTIFIER_BYTES_MAX - digest.len());
    name + &digest
}

/// Creates what is missing of all tables and indexes; idempotent.
pub fn create_schema(schema: &Schema, dialect: Dialect, prefix: &str) -> Vec<String> {
    let of_table = |table: &Table| {
        let created = create_table(table, dialect, &table_name(prefix, &table.name));
        let indexes = all_indexes(table).into_iter().map(|index| create_index(table, &index, dialect, prefix)).collect::<Vec<_>>();
        std::iter::once(created).chain(indexes)
    };
    schema.tables().iter().flat_map(of_table).collect()
}

/// The indexes of a table with those for its references, which deletions of the referenced rows look up.
pub(super) fn all_indexes(table: &Table) -> Vec<Index> {
    let mut indexes = table.indexes.clone();
    for column in table.columns.iter().filter(|column| column.references.is_some()) {
        let leads_key = table.key_columns().next().is_some_and(|first| first.name == column.name);
        if !leads_key && !table.indexes.iter().any(|index| index.columns.first() == Some(&column.name)) {
            // A space keeps it apart from the names that a schema can give.
            let name = format!("{} reference", column.name);
            indexes.push(Index { name, columns: vec![column.name.clone()], unique: false });
        }
    }
    indexes
}

/// Creates one table under a quoted name.
pub(super) fn create_table(table: &Table, dialect: Dialect, name: &str) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| column_definition(column, dialect)).collect();
    let key: Vec<String> = table.key_columns().map(|column| quoted(&column.name)).collect();
    let strict = if dialect == Dialect::Sqlite { " STRICT" } else { "" };
    format!("CREATE TABLE IF NOT EXISTS {name} ({}, PRIMARY KEY ({})){strict}", columns.join(", "), key.join(", "))
}

/// Creates one index.
pub(super) fn create_index(table: &Table, index: &Index, dialect: Dialect, prefix: &str) -> String {
    // In PostgreSQL an index serves an order only with its nulls at the same end.
    let order = if dialect == Dialect::Postgres { " ASC NULLS FIRST" } else { "" };
    let columns: Vec<String> = index.columns.iter().map(|column| format!("{}{order}", quoted(column))).collect();
    let unique = if index.unique { "UNIQUE " } else { "" };
    let name = quoted(&index_name(prefix, &table.name, &index.name));
    format!("CREATE {unique}INDEX IF NOT EXISTS {name} ON {} ({})", table_name(prefix, &table.name), columns.join(", "))
}

/// A column as `CREATE TABLE` and `ADD COLUMN` define it.
pub(super) fn column_definition(column: &Column, dialect: Dialect) -> String {
    let null = if column.nullable { "" } else { " NOT NULL" };
    let default = column.default.as_ref().map(|default| format!(" DEFAULT {}", literal(column, default, dialect))).unwrap_or_default();
    format!("{} {}{null}{default}", quoted(&column.name), sql_type(column, dialect))
}

fn sql_type(column: &Column, dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite if column.is_json() => "TEXT",
        Dialect::Postgres if column.is_json() => "jsonb",
        Dialect::Sqlite => match column.column_type {
            ColumnType::Integer | ColumnType::Timestamp | ColumnType::Boolean => "INTEGER",
            ColumnType::Real => "REAL",
            ColumnType::Bytes => "BLOB",
            ColumnType::Text | ColumnType::Bigint | ColumnType::Json | ColumnType::File => "TEXT",
        },
        Dialect::Postgres => match column.column_type {
            ColumnType::Text => "text COLLATE \"C\"",
            ColumnType::Integer | ColumnType::Timestamp => "bigint",
            ColumnType::Bigint => "numeric",
            ColumnType::Real => "double precision",
            ColumnType::Boolean => "boolean",
            ColumnType::Bytes => "bytea",
            ColumnType::Json | ColumnType::File => "jsonb",
        },
    }
}

/// A default, which comes from the configuration and is in normal form, as an SQL literal: a definition takes no parameter.
pub(super) fn literal(column: &Column, value: &Json, dialect: Dialect) -> String {
    let text = match to_sql(column, value) {
        Value::Null => return "NULL".into(),
        Value::Integer(number) if dialect == Dialect::Postgres && column.column_type == ColumnType::Boolean => {
            return if number != 0 { "TRUE".into() } else { "FALSE".into() };
        }
        Value::Integer(number) => return number.to_string(),
        Value::Real(number) => return format!("{number:e}"),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            let hex = crate::encoding::hex(&bytes);
            if dialect == Dialect::Sqlite { format!("X'{hex}'") } else { format!("'\\x{hex}'") }
        }
    };
    if dialect == Dialect::Postgres { format!("{text}::{}", sql_type(column, dialect).trim_end_matches(" COLLATE \"C\"")) } else { text }
}
