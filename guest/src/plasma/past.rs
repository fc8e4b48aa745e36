//! Tables as they were at a version: what is unchanged since, and the before-images of what changed.
//!
//! Nothing is written, not even to temporary tables: the past is a common table expression of the statement that asks for it, so
//! writers are not disturbed.

use serde_json::{Map, Value as Json};

use super::engine::Engine;
use super::failure::Failure;
use super::language::{CompiledQuery, Query, Sources, SqlBuilder, compile_query_after};
use super::pull::{list_of, push_list};
use super::schema::{Column, Table, bulk_cell, bulk_value, quoted};
use super::store::changes::Past;
use super::store::meta;
use crate::imports::{self, Dialect, Value};
use crate::sql::Sql;

/// The relation of the rows of a changed table as they were.
pub fn images_of(table: &str) -> String {
    format!("{table} images")
}

/// Before-images as the JSON that [`push_images`] takes.
pub fn images_json(table: &Table, past: &[Past]) -> Result<String, Failure> {
    let mut rows = Vec::new();
    for row in past.iter().filter_map(|past| past.row.as_deref()) {
        let row = image(row)?;
        let cell = |column: &Column| bulk_value(column, row.get(&column.name).unwrap_or(&Json::Null));
        rows.push(table.columns.iter().map(cell).collect::<Json>());
    }
    Ok(Json::Array(rows).to_string())
}

/// A before-image as a row.
pub fn image(text: &str) -> Result<Map<String, Json>, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Unexpected(format!("a before-image: {error}")))
}

/// The keys of changed rows as a JSON array.
pub fn keys_json(past: &[Past]) -> String {
    list_of(past.iter().map(|row| row.key.as_str()))
}

/// The columns of a table, quoted.
pub fn column_names(table: &Table) -> String {
    table.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

/// Adds the relation [`images_of`] a table; its rows are the given value.
pub fn push_images(builder: &mut SqlBuilder<'_>, dialect: Dialect, table: &Table, given: usize) {
    let image =
        |(position, column): (usize, &Column)| format!("{} AS {}", bulk_cell(column, "e.value", position, dialect), quoted(&column.name));
    let images = table.columns.iter().enumerate().map(image).collect::<Vec<_>>().join(", ");
    builder.push(&format!("{} AS MATERIALIZED (SELECT {images} FROM ", quoted(&images_of(&table.name))));
    push_list(builder, dialect, given, "e");
    builder.push(")");
}

/// Adds a selection of the rows of a table that are unchanged; the keys of the others are the given value.
pub fn push_unchanged(builder: &mut SqlBuilder<'_>, sql: &Sql, table: &Table, given: usize) {
    let dialect = sql.dialect();
    let relation = Sources::of_prefix(sql.prefix()).relation(&table.name);
    let key = table.key_columns().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
    let key_member = |(position, column): (usize, &Column)| bulk_cell(column, "e.value", position, dialect);
    let key_members = table.key_columns().enumerate().map(key_member).collect::<Vec<_>>().join(", ");
    builder.push(&format!("SELECT {} FROM {relation} WHERE ({key}) NOT IN (SELECT {key_members} FROM ", column_names(table)));
    push_list(builder, dialect, given, "e");
    builder.push(")");
}

/// From which version on before-images are kept; none: they are not.
pub fn images_since(sql: &Sql, view: &dyn imports::Query) -> Result<Option<u64>, Failure> {
    Ok(meta::get(sql, view, meta::IMAGES_SINCE)?.and_then(|version| version.parse().ok()))
}

/// Tables of which some rows changed, as they were before.
pub struct PastTables<'a> {
    engine: &'a Engine,
    sql: &'a Sql,
    /// The table, its changed keys, and its images, both as JSON.
    changed: Vec<(&'a Table, String, String)>,
}

impl<'a> PastTables<'a> {
    /// No table changed.
    pub fn new(engine: &'a Engine, sql: &'a Sql) -> Self {
        Self { engine, sql, changed: Vec::new() }
    }

    /// Rows of a table changed.
    pub fn add(&mut self, table: &'a Table, past: &[Past]) -> Result<(), Failure> {
        if !past.is_empty() {
            self.changed.push((table, keys_json(past), images_json(table, past)?));
        }
        Ok(())
    }

    /// A query over the tables as they were, with the read predicates of that state.
    pub fn compile(&self, query: &Query) -> CompiledQuery {
        let mut sources = Sources::of_prefix(self.sql.prefix());
        for (table, _, _) in &self.changed {
            sources.replaced.insert(table.name.clone(), quoted(&past_of(table)));
        }
        let before = |builder: &mut SqlBuilder<'_>| {
            for (position, (table, _, _)) in self.changed.iter().enumerate() {
                builder.push(if position == 0 { "WITH " } else { ", " });
                push_past(builder, self.sql, table, position * 2);
            }
        };
        compile_query_after(&self.engine.schema, query, self.sql.dialect(), &sources, true, &before)
    }

    /// The values that [`Self::compile`] leaves to be given.
    pub fn given(&self) -> Vec<Value> {
        self.changed.iter().flat_map(|(_, keys, images)| [Value::Text(keys.clone()), Value::Text(images.clone())]).collect()
    }
}

/// Adds the relations [`images_of`] and [`past_of`] a table; its changed keys and their rows are the given values from `given` on.
pub fn push_past(builder: &mut SqlBuilder<'_>, sql: &Sql, table: &Table, given: usize) {
    push_images(builder, sql.dialect(), table, given + 1);
    builder.push(&format!(", {} AS (", quoted(&past_of(table))));
    push_unchanged(builder, sql, table, given);
    builder.push(&format!(" UNION ALL SELECT {} FROM {}) ", column_names(table), quoted(&images_of(&table.name))));
}

/// The relation of a table as it was.
pub fn past_of(table: &Table) -> String {
    format!("{} past", table.name)
}
