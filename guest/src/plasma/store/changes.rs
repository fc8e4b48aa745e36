//! The change log.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::{first_rows, integer, list, number, optional_text, rows, text, unsigned};
use crate::imports::{Dialect, Query, Statement, Transaction, Value};
use crate::plasma::failure::Failure;
use crate::plasma::regions::Regions;
use crate::sql::Sql;

/// The current version and where the log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The newest version below which nothing is open: the one that readers see.
    pub version: u64,
    /// The newest version that was given out; the next one is the one after it.
    pub last: u64,
    /// Below it the log is not whole.
    pub min_version: u64,
}

/// The [`Head`] from some relation of regions. All regions share one order, and each notes the last version that it gave out.
macro_rules! head_from {
    ($regions:literal) => {
        concat!(
            "SELECT max(version) AS last, max(min_version) AS min_version, (SELECT min(first_version) FROM {}_plasma_open_ranges) \
             AS held_from, count(*) AS regions FROM ",
            $regions
        )
    };
}

/// What the [`Head`] is read from.
pub const HEAD: &str = head_from!("{}_plasma_region_versions");
/// The same, with the rows locked: it waits for a transaction that took versions by its own means, and sees them then.
const HEAD_LOCKED: &str = head_from!("(SELECT version, min_version FROM {}_plasma_region_versions ORDER BY region FOR UPDATE) AS locked");

/// Asks for the [`Head`].
pub fn head_statement(sql: &Sql) -> Statement {
    sql.statement(HEAD, [])
}

/// Asks for the [`Head`] in a transaction that is going to give out versions: nobody else does until it ends, not even one who
/// writes to the database beside the servers. In SQLite that holds anyway.
pub fn head_to_write_statement(sql: &Sql) -> Statement {
    match sql.dialect() {
        Dialect::Sqlite => head_statement(sql),
        Dialect::Postgres => sql.statement(HEAD_LOCKED, []),
    }
}

/// Reads the answer to [`head_statement`] or [`head_to_write_statement`]; zeros before the first version.
pub fn head_of(rows: &[Vec<Value>]) -> Result<Head, Failure> {
    rows.first().map_or_else(|| Err(Failure::Unexpected("no region has a version".into())), |row| head_of_row(row))
}

/// Reads the columns of [`HEAD`].
pub fn head_of_row(row: &[Value]) -> Result<Head, Failure> {
    let (last, min_version) = (unsigned(&row[0])?, unsigned(&row[1])?);
    let version = match &row[2] {
        Value::Null => last,
        held_from => last.min(unsigned(held_from)?.saturating_sub(1)),
    };
    Ok(Head { version, last, min_version })
}

/// The [`Head`].
pub fn head(sql: &Sql, view: &dyn Query) -> Result<Head, Failure> {
    head_of(&view.query(head_statement(sql), None)?.rows)
}

/// The [`Head`], for a transaction that is going to give out versions.
pub fn head_to_write(sql: &Sql, transaction: &dyn Transaction) -> Result<Head, Failure> {
    head_of(&transaction.query(head_to_write_statement(sql), None)?.rows)
}

/// Asks for the last version of each region that gave out any, as a JSON object; null: none did.
pub fn regions_template(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "SELECT json_group_object(region, version) FROM {}_plasma_region_versions WHERE version > 0",
        Dialect::Postgres => "SELECT CAST(json_object_agg(region, version) AS TEXT) FROM {}_plasma_region_versions WHERE version > 0",
    }
}

/// Reads the answer to [`regions_template`].
pub fn regions_of(cell: Value) -> Result<Regions, Failure> {
    let Some(listed) = optional_text(cell)? else { return Ok(Regions::new()) };
    serde_json::from_str(&listed).map_err(|error| Failure::Unexpected(format!("versions of regions: {error}")))
}

/// The last version of each region that gave out any.
pub fn regions(sql: &Sql, view: &dyn Query) -> Result<Regions, Failure> {
    let found = rows(sql, view, regions_template(sql.dialect()), [])?;
    found.into_iter().flatten().next().map_or_else(|| Ok(Regions::new()), regions_of)
}

/// Notes the last version that a region gave out.
pub fn set_version(sql: &Sql, region: &str, version: u64) -> Statement {
    sql.statement("UPDATE {}_plasma_region_versions SET version = ? WHERE region = ?", [number(version), region.into()])
}

/// Lets a region give out versions, if it does not yet.
pub fn add_region(sql: &Sql, region: &str) -> Statement {
    let template = "INSERT INTO {}_plasma_region_versions (region, version, min_version) VALUES (?, 0, 0) ON CONFLICT (region) DO NOTHING";
    sql.statement(template, [region.into()])
}

/// Raises the beginning of the log.
pub fn raise_min_version(sql: &Sql, region: &str, version: u64) -> Statement {
    let parameters = [number(version), region.into(), number(version)];
    sql.statement("UPDATE {}_plasma_region_versions SET min_version = ? WHERE region = ? AND min_version < ?", parameters)
}

/// Whether the log has entries of a table.
pub fn has_entries(sql: &Sql, view: &dyn Query, table: &str) -> Result<bool, Failure> {
    Ok(!rows(sql, view, "SELECT 1 FROM {}_plasma_changes WHERE tbl = ? LIMIT 1", [table.into()])?.is_empty())
}

/// An entry to be written.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its version.
    pub version: u64,
    /// Its place within the version.
    pub sequence: u64,
    /// The table of its row.
    pub table: String,
    /// The primary key of its row, as in [`crate::plasma::schema::pk_json`].
    pub key: String,
    /// Whether the row is there afterwards.
    pub put: bool,
    /// The row before, as JSON.
    pub before: Option<String>,
}

/// The position of the last entry of each row, by table and key.
fn last_of_rows(entries: &[NewEntry]) -> HashMap<(&str, &str), usize> {
    entries.iter().enumerate().map(|(position, entry)| ((entry.table.as_str(), entry.key.as_str()), position)).collect()
}

/// Writes entries; each is the newest one of its row, unless a later one of the list is.
pub fn append(sql: &Sql, region: &str, at_ms: u64, entries: &[NewEntry]) -> Vec<Statement> {
    if entries.is_empty() {
        return Vec::new();
    }
    let keys: Json = last_of_rows(entries).keys().map(|(table, key)| json!([table, key])).collect();
    let list = list(sql.dialect());
    let outdate = match sql.dialect() {
        Dialect::Sqlite => format!(
            "UPDATE {{}}_plasma_changes SET newest = 0 WHERE newest = 1 AND (tbl, pk) IN (SELECT e.value ->> 0, e.value ->> 1 FROM {list})"
        ),
        Dialect::Postgres => format!(
            "UPDATE {{}}_plasma_changes AS log SET newest = 0 FROM {list} WHERE log.newest = 1 AND log.tbl = e.value ->> 0 \
             AND log.pk = e.value ->> 1"
        ),
    };
    vec![sql.statement(&outdate, [keys.to_string().into()]), append_first(sql, region, at_ms, entries)]
}

/// The same for rows of which the log has no entry.
pub fn append_first(sql: &Sql, region: &str, at_ms: u64, entries: &[NewEntry]) -> Statement {
    let last_of = last_of_rows(entries);
    let list_of_entries: Json = entries
        .iter()
        .enumerate()
        .map(|(position, entry)| {
            let newest = i32::from(last_of[&(entry.table.as_str(), entry.key.as_str())] == position);
            let op = if entry.put { "put" } else { "del" };
            json!([entry.version, entry.sequence, entry.table, entry.key, op, entry.before, newest])
        })
        .collect();
    let (list, before) = (
        list(sql.dialect()),
        match sql.dialect() {
            Dialect::Sqlite => "e.value ->> 5",
            Dialect::Postgres => "CAST(e.value ->> 5 AS jsonb)",
        },
    );
    let insert = format!(
        "INSERT INTO {{}}_plasma_changes (version, seq, tbl, pk, op, before, newest, region, at) \
         SELECT CAST(e.value ->> 0 AS BIGINT), CAST(e.value ->> 1 AS BIGINT), e.value ->> 2, e.value ->> 3, e.value ->> 4, {before}, \
         CAST(e.value ->> 6 AS BIGINT), CAST(? AS TEXT), CAST(? AS BIGINT) FROM {list}"
    );
    sql.statement(&insert, [region.into(), number(at_ms), list_of_entries.to_string().into()])
}

/// A live entry: the newest one of its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When the row changed last.
    pub version: u64,
    /// The place within the version.
    pub sequence: u64,
    /// Its table.
    pub table: String,
    /// Its primary key, as JSON.
    pub key: String,
    /// Whether the row is there.
    pub put: bool,
}

impl Entry {
    /// Where it stands in the log.
    pub fn place(&self) -> (u64, u64) {
        (self.version, self.sequence)
    }
}

/// The live entries after a place, up to a version, in order, at most so many.
pub fn live_after(sql: &Sql, view: &dyn Query, after: (u64, u64), up_to: u64, rows_max: usize) -> Result<Vec<Entry>, Failure> {
    let template = "SELECT version, seq, tbl, pk, op FROM {}_plasma_changes WHERE newest = 1 AND (version, seq) > (?, ?) \
                    AND version <= ? ORDER BY version, seq LIMIT ?";
    let limit = number(rows_max as u64);
    let found = rows(sql, view, template, [number(after.0), number(after.1), number(up_to), limit])?;
    found.into_iter().map(entry_of).collect()
}

/// Version, place, table, key and operation.
fn entry_of(row: Vec<Value>) -> Result<Entry, Failure> {
    let [version, sequence, table, key, op] = <[Value; 5]>::try_from(row).map_err(|_| Failure::Unexpected("five columns".into()))?;
    let (version, sequence) = (unsigned(&version)?, unsigned(&sequence)?);
    Ok(Entry { version, sequence, table: text(table)?, key: text(key)?, put: text(op)? == "put" })
}

/// Which of some rows have an entry, and the version of the newest: pairs of the position in `keys` and the version.
pub fn versions_of(sql: &Sql, view: &dyn Query, table: &str, keys: &[String]) -> Result<Vec<(usize, u64)>, Failure> {
    let (list, key) = (list(sql.dialect()), super::list_text(sql.dialect()));
    let template = format!(
        "SELECT e.key, log.version FROM {list} CROSS JOIN {{}}_plasma_changes AS log WHERE log.newest = 1 AND log.tbl = ? AND log.pk = {key}"
    );
    let found = rows(sql, view, &template, [json!(keys).to_string().into(), table.into()])?;
    found.iter().map(|row| Ok((position(sql, &row[0])?, unsigned(&row[1])?))).collect()
}

/// The position that `key` of [`list`] stands for.
pub fn position(sql: &Sql, cell: &Value) -> Result<usize, Failure> {
    let first = i64::from(sql.dialect() == Dialect::Postgres);
    usize::try_from(integer(cell)? - first).map_err(|_| Failure::Unexpected("a position is negative".into()))
}

/// Whether one of some tables changed after a version.
pub fn any_changed_after(sql: &Sql, view: &dyn Query, tables: &Json, version: u64) -> Result<bool, Failure> {
    let (list, table) = (list(sql.dialect()), super::list_text(sql.dialect()));
    let template = format!(
        "SELECT 1 FROM {list} WHERE EXISTS (SELECT 1 FROM {{}}_plasma_changes AS log WHERE log.tbl = {table} AND log.version > ?) LIMIT 1"
    );
    Ok(!rows(sql, view, &template, [tables.to_string().into(), number(version)])?.is_empty())
}

/// A row as it was: none where it did not exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Its primary key, as JSON.
    pub key: String,
    /// The row, as JSON.
    pub row: Option<String>,
    /// Whether an image of it should be there but is not.
    pub missing: bool,
}

/// Entries of one table that [`changed_since`] looks at.
const CHANGES_MAX: usize = 5_000;

/// The rows of a table that changed after a version, as they were at it. None: there are more than 5000 entries, or an image is missing.
pub fn changed_since(sql: &Sql, view: &dyn Query, table: &str, version: u64) -> Result<Option<Vec<Past>>, Failure> {
    let before = before_text(sql.dialect());
    let template = format!("SELECT pk, op, {before} FROM {{}}_plasma_changes WHERE tbl = ? AND version > ? ORDER BY version, seq");
    let statement = sql.statement(&template, [table.into(), number(version)]);
    let found = first_rows(view, statement, CHANGES_MAX + 1)?;
    if found.len() > CHANGES_MAX {
        return Ok(None);
    }
    let mut seen = std::collections::HashSet::new();
    let mut past = Vec::new();
    for row in found {
        let row = past_of(row)?;
        // The first entry after the version has the row of that version.
        if seen.insert(row.key.clone()) {
            past.push(row);
        }
    }
    Ok(Some(past).filter(|past| !past.iter().any(|row| row.missing)))
}

/// All of them, however many they are. The database looks for the first entry of each row, since the log may be long.
pub fn all_changed_since(sql: &Sql, view: &dyn Query, table: &str, version: u64) -> Result<Vec<Past>, Failure> {
    let template = format!(
        "SELECT pk, op, {} FROM (SELECT pk, op, before, row_number() OVER (PARTITION BY pk ORDER BY version, seq) AS place \
         FROM {{}}_plasma_changes WHERE tbl = ? AND version > ?) AS entries WHERE place = 1",
        before_text(sql.dialect())
    );
    rows(sql, view, &template, [table.into(), number(version)])?.into_iter().map(past_of).collect()
}

/// The tables that changed after a version.
pub fn tables_changed_since(sql: &Sql, view: &dyn Query, version: u64) -> Result<Vec<String>, Failure> {
    let found = rows(sql, view, "SELECT DISTINCT tbl FROM {}_plasma_changes WHERE version > ?", [number(version)])?;
    found.into_iter().flatten().map(text).collect()
}

/// Of some rows of a table the last entry after one version and up to another, where there is any.
pub fn last_between(sql: &Sql, view: &dyn Query, table: &str, keys: &[&str], after: u64, up_to: u64) -> Result<Vec<Entry>, Failure> {
    let (list, key) = (list(sql.dialect()), super::list_text(sql.dialect()));
    let template = format!(
        "SELECT version, seq, tbl, pk, op FROM (SELECT version, seq, tbl, pk, op, row_number() OVER (PARTITION BY pk ORDER BY version DESC, \
         seq DESC) AS place FROM {{}}_plasma_changes WHERE tbl = ? AND version > ? AND version <= ? AND pk IN (SELECT {key} FROM {list})) \
         AS entries WHERE place = 1"
    );
    let found = rows(sql, view, &template, [table.into(), number(after), number(up_to), json!(keys).to_string().into()])?;
    found.into_iter().map(entry_of).collect()
}

/// A before-image as text.
fn before_text(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "before",
        Dialect::Postgres => "CAST(before AS text)",
    }
}

/// Key, operation and before-image of the first entry of a row after a version.
fn past_of(row: Vec<Value>) -> Result<Past, Failure> {
    let [key, op, before] = <[Value; 3]>::try_from(row).map_err(|_| Failure::Unexpected("three columns".into()))?;
    let (key, op, row) = (text(key)?, text(op)?, optional_text(before)?);
    Ok(Past { key, missing: op == "del" && row.is_none(), row })
}

/// Whether no version after one wrote a row.
pub fn is_last_entry(sql: &Sql, view: &dyn Query, version: u64) -> Result<bool, Failure> {
    Ok(rows(sql, view, "SELECT 1 FROM {}_plasma_changes WHERE version > ? LIMIT 1", [number(version)])?.is_empty())
}

/// The version up to which a pull from `from` may bring a client where a range of versions is open and it is not known how rows were
/// that changed above it: one that changed below it, too, cannot be sent, and nothing from the first of those changes on is.
pub fn settled_up_to(sql: &Sql, view: &dyn Query, from: u64, head: Head) -> Result<u64, Failure> {
    if head.version == head.last {
        return Ok(head.version);
    }
    let template = "SELECT min(below.version) FROM {}_plasma_changes AS above JOIN {}_plasma_changes AS below \
                    ON below.tbl = above.tbl AND below.pk = above.pk AND below.version > ? AND below.version <= ? WHERE above.version > ?";
    let found = rows(sql, view, template, [number(from), number(head.version), number(head.version)])?;
    match found.first().and_then(|row| row.first()) {
        None | Some(Value::Null) => Ok(head.version),
        Some(first) => Ok(unsigned(first)?.saturating_sub(1)),
    }
}

/// The newest version that was committed before a time, by halving: times grow with versions.
pub fn version_before(sql: &Sql, view: &dyn Query, head: Head, time_ms: u64) -> Result<u64, Failure> {
    let (mut low, mut high) = (0, head.version);
    while low < high {
        let middle = high - (high - low) / 2;
        // The first entry from the middle on tells of all versions between them, which wrote nothing.
        let template = "SELECT version, at FROM {}_plasma_changes WHERE version >= ? ORDER BY version, seq LIMIT 1";
        let found = rows(sql, view, template, [number(middle)])?;
        let before = match found.first() {
            Some(row) => unsigned(&row[1])? < time_ms,
            None => false,
        };
        if before { low = middle } else { high = middle - 1 }
    }
    Ok(low)
}
