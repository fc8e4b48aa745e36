//! The rows of the fixture's tables, and who may see and write them. Simpler than what it judges: a map, and a `match`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Who asks, as far as predicates of the fixture look at `ctx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `ctx.userId`.
    pub user: &'static str,
    /// Whether `ctx.role` is `admin`.
    pub is_admin: bool,
}

/// Rows by key (`todos/t1`). Clones share them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows(BTreeMap<String, Arc<Value>>);

/// The primary key columns of the tables that clients write.
const PRIMARY_KEYS: [(&str, &[&str]); 7] = [
    ("todos", &["id"]),
    ("comments", &["id"]),
    ("counters", &["id"]),
    ("notes", &["id"]),
    ("docs", &["id"]),
    ("members", &["team", "userId"]),
    ("boards", &["id"]),
];

/// The tables.
pub fn tables() -> impl Iterator<Item = &'static str> {
    PRIMARY_KEYS.iter().map(|(table, _)| *table)
}

/// The key of a primary key, as a patch names it.
pub fn key(table: &str, primary_key: &[&str]) -> String {
    primary_key.iter().fold(table.to_owned(), |key, part| key + "/" + &part.replace('%', "%25").replace('/', "%2F"))
}

/// The key of a row.
pub fn key_of(table: &str, row: &Value) -> String {
    let columns = PRIMARY_KEYS.iter().find(|(name, _)| *name == table).map(|(_, columns)| *columns).unwrap_or_default();
    let parts: Vec<&str> = columns.iter().map(|column| row[*column].as_str().unwrap_or_default()).collect();
    key(table, &parts)
}

fn table_of(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

impl Rows {
    /// A row.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).map(Arc::as_ref)
    }

    /// Puts a row without asking anybody.
    pub fn put(&mut self, table: &str, row: Value) {
        self.0.insert(key_of(table, &row), Arc::new(row));
    }

    /// Whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// Keys and rows.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().map(|(key, row)| (key, row.as_ref()))
    }

    /// Keys of rows that are not the same in both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a String> {
        let changed = self.0.iter().filter(|(key, row)| other.0.get(*key) != Some(row)).map(|(key, _)| key);
        changed.chain(other.0.keys().filter(|key| !self.0.contains_key(*key)))
    }

    /// What somebody sees.
    pub fn visible(&self, caller: &Caller) -> BTreeMap<&String, &Value> {
        self.iter().filter(|(key, row)| self.may_read(table_of(key), row, caller)).collect()
    }

    fn may_read(&self, table: &str, row: &Value, caller: &Caller) -> bool {
        match table {
            "todos" => row["owner"] == caller.user || row["shared"] == true || caller.is_admin,
            "notes" | "docs" => row["owner"] == caller.user,
            "boards" => self.0.contains_key(&key("members", &[row["team"].as_str().unwrap_or_default(), caller.user])),
            _ => true,
        }
    }

    /// Write permissions of the fixture look at one row.
    fn check_write(&self, table: &str, row: &Value, caller: &Caller) -> Result<(), String> {
        let allowed = match table {
            "boards" => true,
            _ => self.may_read(table, row, caller),
        };
        if allowed { Ok(()) } else { Err(format!("{} may not write to {table}", caller.user)) }
    }

    /// As a mutator's step.
    pub fn insert(&mut self, table: &str, row: Value, caller: &Caller) -> Result<(), String> {
        let key = key_of(table, &row);
        if self.0.contains_key(&key) {
            return Err(format!("row exists: {key}"));
        }
        self.check_write(table, &row, caller)?;
        self.put(table, row);
        Ok(())
    }

    /// As a mutator's step: changes some columns of a row that is there.
    pub fn update(&mut self, table: &str, key: &str, columns: Map<String, Value>, caller: &Caller) -> Result<(), String> {
        let Some(before) = self.get(key) else { return Err(format!("row not found: {key}")) };
        let mut after = before.clone();
        if let Some(fields) = after.as_object_mut() {
            fields.extend(columns);
        }
        self.check_write(table, before, caller)?;
        self.check_write(table, &after, caller)?;
        self.put(table, after);
        Ok(())
    }

    /// As a mutator's step: `defaults` are columns of a new row.
    pub fn upsert(&mut self, table: &str, row: Value, defaults: Value, caller: &Caller) -> Result<(), String> {
        let key = key_of(table, &row);
        let columns = row.as_object().cloned().unwrap_or_default();
        if self.0.contains_key(&key) {
            return self.update(table, &key, columns, caller);
        }
        let mut whole = defaults.as_object().cloned().unwrap_or_default();
        whole.extend(columns);
        self.insert(table, whole.into(), caller)
    }

    /// As a mutator's step.
    pub fn delete(&mut self, table: &str, key: &str, caller: &Caller) -> Result<(), String> {
        if let Some(row) = self.get(key) {
            self.check_write(table, row, caller)?;
            self.0.remove(key);
        }
        Ok(())
    }
}
