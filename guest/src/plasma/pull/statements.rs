//! The statements of pulls, compiled once per instance.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Value as Json, json};

use super::visibility::compile_flips;
use crate::imports::Dialect;
use crate::plasma::language::{Compiled, Frame, Predicate, Sources, SqlBuilder, dependencies};
use crate::plasma::schema::{Column, Schema, Table, bulk_cell, quoted};
use crate::plasma::table_sql::cells;
use crate::sql::Sql;

/// How one table is read.
pub struct TableReads {
    columns: Vec<Column>,
    /// The visible rows of a list of keys: the position in the list, then all columns.
    pub rows: Compiled,
}

impl TableReads {
    /// The columns, in the order of the cells.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter()
    }
}

/// A table, and which of those it depends on changed.
type FlipsKey = (String, BTreeSet<String>);

/// What an instance keeps for pulls.
pub struct PullStatements {
    /// By table whose visibility depends on others: which ones.
    pub dependencies: BTreeMap<String, BTreeSet<String>>,
    /// All tables that visibility depends on, as a JSON array.
    pub depended_on: Json,
    tables: RefCell<HashMap<String, Rc<TableReads>>>,
    flips: RefCell<HashMap<FlipsKey, Rc<Compiled>>>,
}

impl PullStatements {
    /// For a schema.
    pub fn new(schema: &Schema) -> Self {
        let mut of_tables = BTreeMap::new();
        for table in schema.tables() {
            let found: BTreeSet<String> = dependencies(&table.auth.read).into_iter().map(str::to_owned).collect();
            if !found.is_empty() {
                of_tables.insert(table.name.clone(), found);
            }
        }
        let all: BTreeSet<&String> = of_tables.values().flatten().collect();
        let depended_on = json!(all);
        Self { dependencies: of_tables, depended_on, tables: RefCell::default(), flips: RefCell::default() }
    }

    /// How a table is read.
    pub fn table(&self, sql: &Sql, table: &Table) -> Rc<TableReads> {
        if let Some(known) = self.tables.borrow().get(&table.name) {
            return known.clone();
        }
        let made = Rc::new(TableReads { columns: table.columns.clone(), rows: compile_rows_where(sql, table, &table.auth.read) });
        self.tables.borrow_mut().insert(table.name.clone(), made.clone());
        made
    }

    /// The statement that finds what became visible or invisible in a table when some of those it depends on changed.
    pub fn flips(&self, sql: &Sql, schema: &Schema, table: &Table, changed: &BTreeSet<String>) -> Rc<Compiled> {
        let key = (table.name.clone(), changed.clone());
        if let Some(known) = self.flips.borrow().get(&key) {
            return known.clone();
        }
        let made = Rc::new(compile_flips(sql, schema, table, changed));
        self.flips.borrow_mut().insert(key, made.clone());
        made
    }
}

/// Adds the members of the JSON array in the given value as a relation of `value` and `key`.
pub fn push_list(builder: &mut SqlBuilder<'_>, dialect: Dialect, given: usize, alias: &str) {
    match dialect {
        Dialect::Sqlite => builder.push("json_each(").given(given, "").push(&format!(") AS {alias}")),
        Dialect::Postgres => {
            builder.push("json_array_elements(").given(given, "::text").push(&format!("::json) WITH ORDINALITY AS {alias}(value, key)"))
        }
    };
}

/// `alias.key = the key that a member of a list has`, for all columns of the primary key.
pub fn has_key(table: &Table, alias: &str, list: &str, dialect: Dialect) -> String {
    let member = format!("{list}.value");
    let equal = |(position, column): (usize, &Column)| {
        format!("{alias}.{} = {}", quoted(&column.name), bulk_cell(column, &member, position, dialect))
    };
    table.key_columns().enumerate().map(equal).collect::<Vec<_>>().join(" AND ")
}

/// The rows of a list of keys that meet a predicate: the position in the list, then all columns.
pub fn compile_rows_where(sql: &Sql, table: &Table, predicate: &Predicate) -> Compiled {
    let sources = Sources::of_prefix(sql.prefix());
    let mut builder = SqlBuilder::new(sql.dialect(), &sources);
    push_rows_where(&mut builder, sql.dialect(), table, &sources.relation(&table.name), predicate);
    builder.finish()
}

/// Adds the selection of those rows from a relation with the columns of the table; the list is the first given value.
pub fn push_rows_where(builder: &mut SqlBuilder<'_>, dialect: Dialect, table: &Table, relation: &str, predicate: &Predicate) {
    builder.push(&format!("SELECT e.key, {} FROM ", cells(table, "\"t0\".", dialect)));
    push_list(builder, dialect, 0, "e");
    // The list comes first: SQLite keeps the order of a cross join.
    builder.push(&format!(" CROSS JOIN {relation} AS \"t0\" WHERE {} AND ", has_key(table, "\"t0\"", "e", dialect)));
    builder.predicate(predicate, Frame::alias("t0"));
}
