//! Built-in mutators: `<table>.insert`, `.upsert`, `.update`, `.delete`.

use serde_json::{Map, Value as Json};

use super::Stopped;
use crate::plasma::schema::{Schema, Table, key_text};
use crate::plasma::write::Writer;

/// What one of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crud {
    Insert,
    Upsert,
    Update,
    Delete,
}

/// The one of a name.
pub fn find<'a>(schema: &'a Schema, name: &str) -> Option<(&'a Table, Crud)> {
    let (table, action) = name.split_once('.')?;
    let action = match action {
        "insert" => Crud::Insert,
        "upsert" => Crud::Upsert,
        "update" => Crud::Update,
        "delete" => Crud::Delete,
        _ => return None,
    };
    Some((schema.table(table)?, action))
}

/// Runs one: the arguments are a row, or for `update` and `delete` at least its primary key.
pub fn run<'a>(writer: &mut Writer<'a>, table: &Table, action: Crud, arguments: &Json) -> Result<(), Stopped> {
    let table = writer.table(&table.name)?;
    let row = arguments.as_object().ok_or_else(|| Stopped::failed("args must be an object"))?;
    match action {
        Crud::Insert => Ok(writer.insert(table, row, false)?),
        Crud::Upsert => Ok(writer.upsert(table, row)?),
        Crud::Update => {
            let key = key_of(table, row)?;
            match writer.update(table, &key, |_| Ok(row.clone()))? {
                true => Ok(()),
                false => Err(Stopped::failed(format!("row not found: {}", key_text(&table.name, &key)))),
            }
        }
        Crud::Delete => Ok(writer.delete(table, &key_of(table, row)?)?),
    }
}

fn key_of(table: &Table, row: &Map<String, Json>) -> Result<Vec<Json>, Stopped> {
    let part = |name: &str| row.get(name).cloned().ok_or_else(|| Stopped::failed(format!("column {name} is not nullable")));
    table.key_columns().map(|column| part(&column.name)).collect()
}
