//! The statements over the rows of one table.

use serde_json::Value as Json;

use super::schema::{Column, Table, cast, quoted, select_cell, table_name, to_sql};
use super::write::Row;
use crate::imports::{Dialect, Statement, Value};
use crate::sql::Sql;

/// Texts of statements that follow from a table alone, with the dialect's placeholders.
#[derive(Debug)]
pub struct TableSql {
    select: String,
    select_all: String,
    insert: String,
    delete: String,
}

/// `"a" = ?` for each column, joined; placeholders are numbered from `first`.
fn equal<'a>(columns: impl Iterator<Item = &'a Column>, dialect: Dialect, first: usize, joint: &str) -> String {
    let parts = columns.enumerate().map(|(index, column)| format!("{} = {}", quoted(&column.name), place(column, dialect, first + index)));
    parts.collect::<Vec<_>>().join(joint)
}

/// The placeholder for a value of a column.
pub fn place(column: &Column, dialect: Dialect, number: usize) -> String {
    match dialect {
        Dialect::Sqlite => "?".into(),
        Dialect::Postgres => format!("${number}{}", cast(column, dialect)),
    }
}

/// All columns of a table, as they are selected from an alias (with its dot; empty: none).
pub fn cells(table: &Table, alias: &str, dialect: Dialect) -> String {
    let cells = table.columns.iter().map(|column| select_cell(column, &format!("{alias}{}", quoted(&column.name)), dialect));
    cells.collect::<Vec<_>>().join(", ")
}

fn names<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

impl TableSql {
    /// For a table of a database.
    pub fn new(table: &Table, sql: &Sql) -> Self {
        let dialect = sql.dialect();
        let relation = table_name(sql.prefix(), &table.name);
        let by_key = equal(table.key_columns(), dialect, 1, " AND ");
        let places: Vec<_> = table.columns.iter().enumerate().map(|(index, column)| place(column, dialect, index + 1)).collect();
        let select_all = format!("SELECT {} FROM {relation}", cells(table, "", dialect));
        Self {
            select: format!("{select_all} WHERE {by_key}"),
            select_all,
            insert: format!(
                "INSERT INTO {relation} ({}) VALUES ({}) ON CONFLICT ({}) DO NOTHING",
                names(table.columns.iter()),
                places.join(", "),
                names(table.key_columns())
            ),
            delete: format!("DELETE FROM {relation} WHERE {by_key}"),
        }
    }

    /// The row of a key in normal form.
    pub fn select(&self, table: &Table, key: &[Json]) -> Statement {
        Statement { sql: self.select.clone(), parameters: key_values(table, key) }
    }

    /// The rows with a value in a column.
    pub fn select_by(&self, table: &Table, sql: &Sql, column: &Column, value: Value) -> Statement {
        self.select_by_name(table, sql, &column.name, value)
    }

    /// The rows with a value in the column of a name.
    pub fn select_by_name(&self, table: &Table, sql: &Sql, column: &str, value: Value) -> Statement {
        let condition = equal(table.column(column).into_iter(), sql.dialect(), 1, "");
        Statement { sql: format!("{} WHERE {condition}", self.select_all), parameters: vec![value] }
    }

    /// Inserts a complete row; changes nothing where its key is taken.
    pub fn insert(&self, table: &Table, row: &Row) -> Statement {
        let parameters = table.columns.iter().map(|column| to_sql(column, &row[&column.name])).collect();
        Statement { sql: self.insert.clone(), parameters }
    }

    /// Sets some columns of the row of a key.
    pub fn update(&self, table: &Table, sql: &Sql, columns: &[&Column], row: &Row, key: &[Json]) -> Statement {
        let dialect = sql.dialect();
        let set = equal(columns.iter().copied(), dialect, 1, ", ");
        let by_key = equal(table.key_columns(), dialect, columns.len() + 1, " AND ");
        let mut parameters: Vec<_> = columns.iter().map(|column| to_sql(column, &row[&column.name])).collect();
        parameters.extend(key_values(table, key));
        Statement { sql: format!("UPDATE {} SET {set} WHERE {by_key}", table_name(sql.prefix(), &table.name)), parameters }
    }

    /// Deletes the row of a key.
    pub fn delete(&self, table: &Table, key: &[Json]) -> Statement {
        Statement { sql: self.delete.clone(), parameters: key_values(table, key) }
    }
}

fn key_values(table: &Table, key: &[Json]) -> Vec<Value> {
    table.key_columns().zip(key).map(|(column, value)| to_sql(column, value)).collect()
}
