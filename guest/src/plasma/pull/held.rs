//! Pulls while a range of versions is open: rows are sent, and their visibility judged, as they were below it.
//!
//! What changed above the range has before-images there, and the first of each row has it as it was. Everything else is as it is.

use std::collections::BTreeMap;

use super::page::Reader;
use super::statements::push_rows_where;
use crate::imports::Value;
use crate::plasma::failure::Failure;
use crate::plasma::language::{Compiled, Sources, SqlBuilder, dependencies};
use crate::plasma::past::{images_json, images_of, images_since, keys_json, past_of, push_images, push_past};
use crate::plasma::schema::{Schema, Table, quoted};
use crate::plasma::store::changes::{self, Entry, Past};
use crate::sql::Sql;

/// What changed above an open range.
pub struct Held {
    /// By table: the rows that did, as they were below it.
    changed: BTreeMap<String, Vec<Past>>,
    /// Entries below it that are not the newest of their rows, but were there, in order.
    outdated: Vec<Entry>,
}

impl Reader<'_> {
    /// What a client at `from` must be told of otherwise than as it is, since a range is open above `current`. None: it cannot be
    /// told, or is too much.
    pub fn held_after(&self, from: u64, current: u64) -> Result<Option<Held>, Failure> {
        if images_since(self.sql, self.view)?.is_none_or(|since| since > current) {
            return Ok(None);
        }
        let mut held = Held { changed: BTreeMap::new(), outdated: Vec::new() };
        for table in changes::tables_changed_since(self.sql, self.view, current)? {
            let Some(past) = changes::changed_since(self.sql, self.view, &table, current)? else { return Ok(None) };
            let keys: Vec<_> = past.iter().map(|row| row.key.as_str()).collect();
            held.outdated.extend(changes::last_between(self.sql, self.view, &table, &keys, from, current)?);
            held.changed.insert(table, past);
        }
        held.outdated.sort_unstable_by_key(Entry::place);
        Ok(Some(held))
    }
}

impl Held {
    /// Puts entries between two places among those that are the newest of their rows.
    pub fn add_outdated(&self, entries: &mut Vec<Entry>, after: (u64, u64), up_to: (u64, u64)) {
        let between = self.outdated.iter().filter(|entry| entry.place() > after && entry.place() <= up_to);
        entries.extend(between.cloned());
        entries.sort_unstable_by_key(Entry::place);
    }

    /// Whether the row of an entry has changed since.
    pub fn is_outdated(&self, entry: &Entry) -> bool {
        self.outdated.binary_search_by_key(&entry.place(), Entry::place).is_ok()
    }

    /// The rows of a list of keys as they were, if they were visible: the position in the list, then all columns; and the values to
    /// be given. `as_images`: they have changed since.
    pub fn compile(
        &self,
        sql: &Sql,
        schema: &Schema,
        table: &Table,
        as_images: bool,
        keys: Value,
    ) -> Result<(Compiled, Vec<Value>), Failure> {
        let (now, mut given) = (Sources::of_prefix(sql.prefix()), vec![keys]);
        let mut before = now.clone();
        let read = &table.auth.read;
        let depended_on: Vec<_> =
            dependencies(read).into_iter().filter_map(|name| Some((schema.table(name)?, self.changed.get(name)?))).collect();
        for (table, past) in &depended_on {
            before.replaced.insert(table.name.clone(), quoted(&past_of(table)));
            given.extend([Value::Text(keys_json(past)), Value::Text(images_json(table, past)?)]);
        }
        let mut builder = SqlBuilder::new(sql.dialect(), &before);
        for (position, (table, _)) in depended_on.iter().enumerate() {
            builder.push(if position == 0 { "WITH " } else { ", " });
            push_past(&mut builder, sql, table, position * 2 + 1);
        }
        // A table that its own rules depend on has its images there already.
        if as_images && !depended_on.iter().any(|(other, _)| other.name == table.name) {
            builder.push(if depended_on.is_empty() { "WITH " } else { ", " });
            push_images(&mut builder, sql.dialect(), table, given.len());
            given.push(Value::Text(images_json(table, self.changed.get(&table.name).map_or(&[], Vec::as_slice))?));
        }
        let relation = if as_images { quoted(&images_of(&table.name)) } else { now.relation(&table.name) };
        builder.push(" ");
        push_rows_where(&mut builder, sql.dialect(), table, &relation, read);
        Ok((builder.finish(), given))
    }
}
