//! What became visible or invisible without having changed itself.
//!
//! A read predicate may reach other tables by `exists`. Where some of those changed since the version whose visibility the client
//! has, the statement below compares the predicate over the tables as they are with the predicate over the tables as they were: a
//! table as it was is what is unchanged, and the before-images of what changed. It first restricts to rows that a changed row, as it
//! is or was, has to do with: only they can have flipped.

use std::collections::{BTreeMap, BTreeSet};

use super::page::Reader;
use super::patch::push_row;
use super::statements::{has_key, push_list};
use crate::imports::{Dialect, Value};
use crate::plasma::cookie::Loading;
use crate::plasma::failure::Failure;
use crate::plasma::language::{Compiled, Exists, Frame, Predicate, Scope, Sources, SqlBuilder};
use crate::plasma::past::{column_names, images_json, images_of, images_since, keys_json, push_images, push_unchanged};
use crate::plasma::schema::{Schema, Table, pk_json, quoted};
use crate::plasma::store;
use crate::plasma::store::changes::{self, Past};
use crate::plasma::table_sql::cells;
use crate::plasma::write::row_of;
use crate::sql::Sql;

/// Rows that may flip in one table; more: the client begins anew, page by page.
const FLIPS_MAX: usize = 10_000;

/// A row that flipped.
#[derive(Debug, PartialEq)]
pub struct Flip {
    /// Its table.
    pub table: String,
    /// Its primary key, as JSON.
    pub key: String,
    /// When it changed last.
    pub version: u64,
    /// The row, as JSON, if it is visible now.
    pub row: Option<String>,
}

/// What flipped.
#[derive(Debug, PartialEq)]
pub enum Flips {
    /// Nothing that visibility depends on changed.
    None,
    /// These.
    Rows(Vec<Flip>),
    /// It cannot be told, or is too much: the client begins anew.
    Unknown,
}

impl Reader<'_> {
    /// Whether visibility depends on a table that changed after a version.
    pub fn depends_on_what_changed_after(&self, version: u64) -> Result<bool, Failure> {
        let pulls = &self.who.shown.pulls;
        Ok(!pulls.dependencies.is_empty() && changes::any_changed_after(self.sql, self.view, &pulls.depended_on, version)?)
    }

    /// What flipped among the rows that the client has.
    pub fn flips(&self, from: &Loading, current: u64) -> Result<Flips, Failure> {
        let pulls = &self.who.shown.pulls;
        if from.p >= current || !self.depends_on_what_changed_after(from.p)? {
            return Ok(Flips::None);
        }
        let since = images_since(self.sql, self.view)?;
        if since.is_none_or(|since| since > from.p) {
            return Ok(Flips::Unknown);
        }
        let mut changed = BTreeMap::new();
        for name in pulls.dependencies.values().flatten() {
            if changed.contains_key(name.as_str()) {
                continue;
            }
            let Some(past) = changes::changed_since(self.sql, self.view, name, from.p)? else { return Ok(Flips::Unknown) };
            changed.insert(name.as_str(), past);
        }
        changed.retain(|_, past| !past.is_empty());
        let mut flips = Vec::new();
        for (name, dependencies) in &pulls.dependencies {
            let touched: BTreeSet<String> = dependencies.iter().filter(|name| changed.contains_key(name.as_str())).cloned().collect();
            let Some(table) = self.who.shown.schema.table(name).filter(|_| !touched.is_empty()) else { continue };
            match self.flips_of(table, &touched, &changed, from.v)? {
                Some(found) => flips.extend(found),
                None => return Ok(Flips::Unknown),
            }
        }
        Ok(Flips::Rows(flips))
    }

    /// The rows of one table that flipped and have not changed after a version; none: too many.
    fn flips_of(
        &self,
        table: &Table,
        touched: &BTreeSet<String>,
        changed: &BTreeMap<&str, Vec<Past>>,
        unchanged_after: u64,
    ) -> Result<Option<Vec<Flip>>, Failure> {
        let compiled = self.who.shown.pulls.flips(self.sql, &self.who.shown.schema, table, touched);
        let mut given = Vec::new();
        for name in touched {
            let past = &changed[name.as_str()];
            let table = self.who.shown.schema.table(name).ok_or_else(|| Failure::Unexpected(format!("no table {name}")))?;
            given.push(Value::Text(keys_json(past)));
            given.push(Value::Text(images_json(table, past)?));
        }
        let statement = compiled.statement(&self.who.bindings(), &given);
        let statement = statement.map_err(|error| Failure::Unexpected(error.to_string()))?;
        let found = store::first_rows(self.view, statement, FLIPS_MAX + 1)?;
        if found.len() > FLIPS_MAX {
            return Ok(None);
        }
        let keys: Vec<String> = found.iter().map(|cells| pk_json(&table.key_of(&row_of(table, &cells[1..])))).collect();
        let reads = self.who.shown.pulls.table(self.sql, table);
        let mut flips = Vec::new();
        for (position, version) in changes::versions_of(self.sql, self.view, &table.name, &keys)? {
            // What changed comes with its own entry.
            let (Some(key), Some(cells)) = (keys.get(position), found.get(position)) else { continue };
            if version > unchanged_after {
                continue;
            }
            let visible = store::integer(&cells[0])? != 0;
            let row = visible.then(|| {
                let mut text = String::new();
                push_row(&mut text, &reads, &cells[1..]);
                text
            });
            flips.push(Flip { table: table.name.clone(), key: key.clone(), version, row });
        }
        Ok(Some(flips))
    }
}

/// Compiles the comparison for a table. Given are, for each changed table in order, its changed keys and their rows as they were.
pub fn compile_flips(sql: &Sql, schema: &Schema, table: &Table, changed: &BTreeSet<String>) -> Compiled {
    let dialect = sql.dialect();
    let now = Sources::of_prefix(sql.prefix());
    let mut before = now.clone();
    for name in changed {
        before.replaced.insert(name.clone(), quoted(&format!("{name} unchanged")));
        before.replaced.insert(images_of(name), quoted(&images_of(name)));
    }
    let mut builder = SqlBuilder::new(dialect, &now);
    for (position, dependency) in changed.iter().filter_map(|name| schema.table(name)).enumerate() {
        builder.push(if position == 0 { "WITH " } else { ", " });
        push_versions_of(&mut builder, sql, dependency, position * 2);
    }
    let visible = |builder: &mut SqlBuilder<'_>, read: &Predicate| {
        builder.push("coalesce(").predicate(read, Frame::alias("t0")).push(match dialect {
            Dialect::Sqlite => ", 0)",
            Dialect::Postgres => ", false)",
        });
    };
    let read = &table.auth.read;
    builder.push(" SELECT CASE WHEN ");
    visible(&mut builder, read);
    let keys =
        |alias: &str| table.key_columns().map(|column| format!("\"{alias}\".{}", quoted(&column.name))).collect::<Vec<_>>().join(", ");
    let relation = now.relation(&table.name);
    builder.push(&format!(
        " THEN 1 ELSE 0 END, {} FROM {relation} AS \"t0\" WHERE ({}) IN (",
        cells(table, "\"t0\".", dialect),
        keys("t0")
    ));
    let mut chains = Vec::new();
    collect_chains(&table.auth.read, &mut Vec::new(), changed, &mut chains);
    for (position, chain) in chains.iter().enumerate() {
        builder.push(if position == 0 { "" } else { " UNION " });
        push_candidates(&mut builder, &now, chain, &keys("c0"), &relation);
    }
    builder.push(") AND ");
    visible(&mut builder, read);
    builder.push(" <> ");
    builder.use_sources(&before);
    visible(&mut builder, &as_before(read, changed));
    builder.finish()
}

/// Adds three relations for a changed table: its changed rows as they were, those and as they are, and what is unchanged.
fn push_versions_of(builder: &mut SqlBuilder<'_>, sql: &Sql, table: &Table, given: usize) {
    let dialect = sql.dialect();
    let name = |which: &str| quoted(&format!("{} {which}", table.name));
    let relation = Sources::of_prefix(sql.prefix()).relation(&table.name);
    let columns = column_names(table);
    push_images(builder, dialect, table, given + 1);
    let of_alias = table.columns.iter().map(|column| format!("t.{}", quoted(&column.name))).collect::<Vec<_>>().join(", ");
    builder.push(&format!(
        ", {} AS MATERIALIZED (SELECT {columns} FROM {} UNION ALL SELECT {of_alias} FROM ",
        name("touched"),
        quoted(&images_of(&table.name))
    ));
    push_list(builder, dialect, given, "e");
    builder.push(&format!(" CROSS JOIN {relation} AS t WHERE {}), {} AS (", has_key(table, "t", "e", dialect), name("unchanged")));
    push_unchanged(builder, sql, table, given);
    builder.push(")");
}

/// The predicate over changed tables as they were: what is unchanged, or an image. Two questions instead of one over both, so that
/// the first finds its rows by an index.
fn as_before(predicate: &Predicate, changed: &BTreeSet<String>) -> Predicate {
    let of_parts = |parts: &[Predicate]| parts.iter().map(|part| as_before(part, changed)).collect();
    match predicate {
        Predicate::Const(_) | Predicate::Compare(_) => predicate.clone(),
        Predicate::And(parts) => Predicate::And(of_parts(parts)),
        Predicate::Or(parts) => Predicate::Or(of_parts(parts)),
        Predicate::Not(part) => Predicate::Not(Box::new(as_before(part, changed))),
        Predicate::Exists(exists) => {
            let condition = Box::new(as_before(&exists.condition, changed));
            let unchanged = Predicate::Exists(Exists { table: exists.table.clone(), condition: condition.clone() });
            match changed.contains(&exists.table) {
                true => Predicate::Or(vec![unchanged, Predicate::Exists(Exists { table: images_of(&exists.table), condition })]),
                false => unchanged,
            }
        }
    }
}

/// The way from a predicate to one `exists` in it, whose table changed: all around it, outermost first.
type Chain<'a> = Vec<&'a Exists>;

fn collect_chains<'a>(predicate: &'a Predicate, around: &mut Chain<'a>, changed: &BTreeSet<String>, found: &mut Vec<Chain<'a>>) {
    match predicate {
        Predicate::Const(_) | Predicate::Compare(_) => {}
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().for_each(|part| collect_chains(part, around, changed, found)),
        Predicate::Not(part) => collect_chains(part, around, changed, found),
        Predicate::Exists(exists) => {
            around.push(exists);
            if changed.contains(&exists.table) {
                found.push(around.clone());
            }
            collect_chains(&exists.condition, around, changed, found);
            around.pop();
        }
    }
}

/// Adds the keys of the rows that changed rows at the end of a chain have to do with. The rows in between are taken as they are: one
/// that changed begins a chain of its own.
fn push_candidates(builder: &mut SqlBuilder<'_>, now: &Sources, chain: &[&Exists], keys: &str, relation: &str) {
    let depth = chain.len();
    let last = chain[depth - 1];
    builder.push(&format!("SELECT {keys} FROM {} AS \"c{depth}\"", quoted(&format!("{} touched", last.table))));
    for (level, exists) in chain.iter().enumerate().rev().skip(1) {
        builder.push(&format!(" CROSS JOIN {} AS \"c{}\"", now.relation(&exists.table), level + 1));
    }
    builder.push(&format!(" CROSS JOIN {relation} AS \"c0\" WHERE "));
    for (level, exists) in chain.iter().enumerate() {
        builder.push(if level == 0 { "" } else { " AND " });
        let (row, outer) = (format!("c{}", level + 1), format!("c{level}"));
        let frame = Frame { row: Scope::Alias(&row), outer: Some(Scope::Alias(&outer)) };
        builder.predicate(&relaxed(&exists.condition), frame);
    }
}

/// A predicate that holds wherever the other may hold for some state of the tables that it reaches.
fn relaxed(predicate: &Predicate) -> Predicate {
    match predicate {
        Predicate::Exists(_) => Predicate::Const(true),
        Predicate::Not(part) if !crate::plasma::language::dependencies(part).is_empty() => Predicate::Const(true),
        Predicate::And(parts) => Predicate::And(parts.iter().map(relaxed).collect()),
        Predicate::Or(parts) => Predicate::Or(parts.iter().map(relaxed).collect()),
        other => other.clone(),
    }
}
