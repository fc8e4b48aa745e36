//! Follows the database: whenever something has become durable, it reads what is new in the log, runs it through the model,
//! and compares all rows. So every version is known when somebody is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value, json};

use super::history::History;
use super::rows::{Caller, Rows, key, tables};

/// A client of a group, and the number of a mutation.
type Processed = (String, String, u64);

/// What the log has of a version.
#[derive(Debug, Default)]
struct Entry {
    mutations: Vec<Processed>,
    /// Keys of the rows that it touched.
    touched: BTreeSet<String>,
}

/// What the database holds.
struct Found {
    version: u64,
    min_version: u64,
    rows: Rows,
    /// Entries of new versions.
    log: BTreeMap<u64, Entry>,
    /// Group and last mutation of each client.
    clients: BTreeMap<String, (String, u64)>,
}

/// Reads what is new; what is wrong, one line each.
pub fn observe(history: &Mutex<History>, file: &Path) -> Vec<String> {
    let mut history = history.lock();
    match read(file, history.version) {
        Ok(None) => Vec::new(),
        Ok(Some(found)) => Follower { history: &mut history, wrong: Vec::new() }.follow(&found),
        Err(error) => vec![format!("the database cannot be read: {error}")],
    }
}

/// None before there are tables.
fn read(file: &Path, after: u64) -> anyhow::Result<Option<Found>> {
    if !file.exists() {
        return Ok(None);
    }
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let database = database.unchecked_transaction()?;
    let heads = "SELECT count(*) FROM sqlite_schema WHERE name = '_plasma_region_versions'";
    if database.query_row(heads, [], |row| number(row, 0))? == 0 {
        return Ok(None);
    }
    let head =
        database.query_row("SELECT version, min_version FROM _plasma_region_versions", [], |row| Ok((number(row, 0)?, number(row, 1)?)));
    let (version, min_version) = match head {
        Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
        head => head?,
    };
    let mut rows = Rows::default();
    for table in tables() {
        let mut statement = database.prepare(&format!("SELECT * FROM {table}"))?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut cursor = statement.query([])?;
        while let Some(row) = cursor.next()? {
            rows.put(table, wire_form(row, &names)?);
        }
    }
    let mut log = BTreeMap::<u64, Entry>::new();
    let mut statement = database.prepare("SELECT version, cg, c, mid FROM _plasma_mutations WHERE version > ? ORDER BY c, mid")?;
    let mut cursor = statement.query([after.cast_signed()])?;
    while let Some(row) = cursor.next()? {
        log.entry(number(row, 0)?).or_default().mutations.push((row.get(1)?, row.get(2)?, number(row, 3)?));
    }
    let mut statement = database.prepare("SELECT version, tbl, pk FROM _plasma_changes WHERE version > ?")?;
    let mut cursor = statement.query([after.cast_signed()])?;
    while let Some(row) = cursor.next()? {
        let (table, primary_key): (String, Vec<String>) = (row.get(1)?, serde_json::from_str(&row.get::<_, String>(2)?)?);
        let parts: Vec<&str> = primary_key.iter().map(String::as_str).collect();
        log.entry(number(row, 0)?).or_default().touched.insert(key(&table, &parts));
    }
    let mut statement = database.prepare("SELECT c, cg, lmid FROM _plasma_clients")?;
    let clients = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, number(row, 2)?))))?.collect::<Result<_, _>>()?;
    Ok(Some(Found { version, min_version, rows, log, clients }))
}

/// A count or a version.
fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(i64::cast_unsigned)
}

/// A row as clients get it.
fn wire_form(row: &Row<'_>, names: &[String]) -> anyhow::Result<Value> {
    let mut fields = Map::new();
    for (index, name) in names.iter().enumerate() {
        let value = match (row.get_ref(index)?, name.as_str()) {
            (ValueRef::Null, _) => Value::Null,
            (ValueRef::Integer(number), "done" | "shared") => json!(number == 1),
            (ValueRef::Integer(number), _) => json!(number),
            (ValueRef::Text(text), "meta" | "cover") => serde_json::from_slice(text)?,
            (ValueRef::Text(text), "body") if text.starts_with(b"{") => serde_json::from_slice(text)?,
            (ValueRef::Text(text), _) => std::str::from_utf8(text)?.into(),
            (value, _) => anyhow::bail!("{name} holds {value:?}"),
        };
        fields.insert(name.clone(), value);
    }
    Ok(fields.into())
}

struct Follower<'a> {
    history: &'a mut History,
    wrong: Vec<String>,
}

impl Follower<'_> {
    fn follow(mut self, found: &Found) -> Vec<String> {
        let (before, min_before) = (self.history.version, self.history.min_version);
        if found.version < before || found.min_version < min_before {
            self.wrong.push(format!("the database went back from version {before} to {}", found.version));
            return self.wrong;
        }
        let mut rows = self.rows_at(before);
        let compacted = found.min_version > min_before;
        for version in before + 1..=found.version {
            let entry = found.log.get(&version);
            match self.step(version, entry, &rows, compacted && version <= found.min_version) {
                Some(after) => {
                    self.check_logged(version, entry, (&rows, &after), found.min_version);
                    rows = Arc::new(after);
                    self.history.versions.insert(version, rows.clone());
                }
                None => {
                    self.resume_behind_gap(version - 1, found);
                    break;
                }
            }
        }
        (self.history.version, self.history.min_version) = (found.version, found.min_version);
        self.check_rows(found);
        self.check_clients(found);
        self.wrong
    }

    fn rows_at(&self, version: u64) -> Arc<Rows> {
        self.history.versions.get(&version).cloned().unwrap_or_default()
    }

    /// The rows after a version; none if the log has been compacted meanwhile and does not say what it was.
    fn step(&mut self, version: u64, entry: Option<&Entry>, rows: &Rows, may_be_compacted: bool) -> Option<Rows> {
        let nothing = Entry::default();
        let entry = entry.unwrap_or(&nothing);
        if let Some(processed) = entry.mutations.first() {
            if entry.mutations.len() > 1 {
                self.wrong.push(format!("version {version} is of {} mutations", entry.mutations.len()));
            }
            return Some(self.mutate(version, processed, rows));
        }
        let marker = entry.touched.iter().find(|key| self.history.writes.contains_key(*key));
        if let Some(marker) = marker {
            return Some(self.write(version, &marker.clone(), rows));
        }
        // With a group its part of the log is forgotten, or begins anew under the same numbers.
        if may_be_compacted || self.history.groups.values().any(|group| group.forgotten) {
            return None;
        }
        if version == 1
            && let Some(seed) = &self.history.seed
        {
            return Some(seed.clone());
        }
        if !(self.history.switches && entry.touched.is_empty()) {
            self.wrong.push(format!("version {version} is of nobody: {entry:?}"));
        }
        Some(rows.clone())
    }

    fn mutate(&mut self, version: u64, (group, client, id): &Processed, rows: &Rows) -> Rows {
        let forgotten = self.history.is_forgotten(group);
        let log = self.history.logs.entry(client.clone()).or_default();
        let expected = log.processed.len() as u64 + 1;
        if forgotten && *id < expected {
            // It began anew.
            log.processed.truncate(usize::try_from(id - 1).unwrap_or_default());
        } else if *id != expected {
            self.wrong.push(format!("version {version} is mutation {id} of {client}, and {expected} is the next"));
        }
        let after = match self.history.mutations.get(&(client.clone(), *id)) {
            Some(mutation) => mutation.apply(rows).ok(),
            None => {
                let intruder = if self.history.intruders.contains(client) { "what was to be refused" } else { "what nobody made" };
                self.wrong.push(format!("version {version} is {intruder}: mutation {id} of {client}"));
                None
            }
        };
        let log = self.history.logs.entry(client.clone()).or_default();
        log.group.clone_from(group);
        log.processed.push((version, Some(after.is_some())));
        after.unwrap_or_else(|| rows.clone())
    }

    fn write(&mut self, version: u64, marker: &str, rows: &Rows) -> Rows {
        if self.history.not_written.contains(marker) {
            self.wrong.push(format!("version {version} is a write that was refused: {marker}"));
        }
        match written(rows, &self.history.writes[marker]) {
            Ok(after) => after,
            Err(why) => {
                self.wrong.push(format!("version {version} is a write that must fail: {why}"));
                rows.clone()
            }
        }
    }

    /// What is not in the log would be missed by everybody who pulls.
    fn check_logged(&mut self, version: u64, entry: Option<&Entry>, (before, after): (&Rows, &Rows), min_version: u64) {
        if version <= min_version {
            return;
        }
        let logged = |key: &&String| entry.is_some_and(|entry| entry.touched.contains(*key));
        if let Some(missing) = after.difference(before).find(|key| !logged(key)) {
            self.wrong.push(format!("{missing} changed in version {version}, and the log does not say so"));
        }
    }

    /// Compaction was quicker than whoever looks: what is there counts.
    fn resume_behind_gap(&mut self, before: u64, found: &Found) {
        self.history.gaps.push((before, found.version));
        self.history.versions.insert(found.version, Arc::new(found.rows.clone()));
        for (client, (group, last)) in &found.clients {
            let log = self.history.logs.entry(client.clone()).or_default();
            log.group.clone_from(group);
            let last = usize::try_from(*last).unwrap_or_default();
            if log.processed.len() < last {
                log.processed.resize(last, (found.version, None));
            }
        }
    }

    fn check_rows(&mut self, found: &Found) {
        let expected = self.rows_at(found.version);
        if let Some(key) = expected.difference(&found.rows).next() {
            let (expected, is) = (expected.get(key), found.rows.get(key));
            self.wrong.push(format!("at version {}, {key} is {is:?}, and ought to be {expected:?}", found.version));
            self.history.versions.insert(found.version, Arc::new(found.rows.clone()));
        }
    }

    fn check_clients(&mut self, found: &Found) {
        for (client, (group, last)) in &found.clients {
            let known = self.history.logs.get(client).map_or(0, |log| log.processed.len() as u64);
            if known != *last && !self.history.is_forgotten(group) {
                self.wrong.push(format!("the last mutation of {client} is {last}, and {known} were processed"));
            }
        }
        for (client, log) in &self.history.logs {
            if !found.clients.contains_key(client) && !self.history.is_forgotten(&log.group) {
                self.wrong.push(format!("{client} was forgotten, and nobody asked for that"));
            }
        }
    }
}

/// What a write of the server's side makes of the rows, or why it fails.
pub fn written(rows: &Rows, operations: &[Value]) -> Result<Rows, String> {
    let anybody = Caller { user: "", is_admin: true };
    let mut after = rows.clone();
    for operation in operations {
        let (kind, fields) = operation.as_object().and_then(|operation| operation.iter().next()).ok_or("an operation has a kind")?;
        let table = fields["table"].as_str().unwrap_or_default();
        let primary_key: Vec<&str> = fields["pk"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let key = key(table, &primary_key);
        match kind.as_str() {
            "insert" => after.insert(table, fields["row"].clone(), &anybody)?,
            "upsert" => after.upsert(table, fields["row"].clone(), json!({}), &anybody)?,
            "update" => after.update(table, &key, fields["set"].as_object().cloned().unwrap_or_default(), &anybody)?,
            // Whoever asks is above all permissions.
            _ => drop(after.remove(&key)),
        }
    }
    Ok(after)
}
