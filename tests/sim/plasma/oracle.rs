//! What is judged at quiescence. Everything else is judged at once: by the replica, by `history.rs` whenever an answer was
//! taken in, and by `observer.rs` whenever something became durable.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::history::History;
use super::mutations::Mutation;
use super::rows::Rows;

/// What is wrong, one line each.
pub fn check(history: &History, file: &Path, clients: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = history.versions.get(&history.version).cloned().unwrap_or_default();
    if let Err(error) = check_file(file, &rows) {
        wrong.push(format!("the database: {error}"));
    }
    check_counters(history, &mut wrong);
    check_writes(history, &mut wrong);
    check_ends(history, clients, &mut wrong);
    wrong
}

fn check_file(file: &Path, rows: &Rows) -> anyhow::Result<()> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let intact: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    anyhow::ensure!(intact == "ok", "{intact}");
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM _plasma_changes GROUP BY tbl, pk HAVING sum(newest) > 1)";
    let doubled: i64 = database.query_row(doubled, [], |row| row.get(0))?;
    anyhow::ensure!(doubled == 0, "{doubled} rows have more than one newest entry in the log");
    // Without an entry a row would never come in a first load.
    let (newest, present): (i64, usize) = (
        database.query_row("SELECT count(*) FROM _plasma_changes WHERE newest = 1 AND op = 'put'", [], |row| row.get(0))?,
        rows.iter().count(),
    );
    anyhow::ensure!(usize::try_from(newest) == Ok(present), "{newest} rows have a newest entry in the log, and {present} are there");
    Ok(())
}

/// Whatever the order: counts are the sum of what was processed. Holds also where the log was compacted before anybody looked.
fn check_counters(history: &History, wrong: &mut Vec<String>) {
    if history.groups.values().any(|group| group.forgotten) {
        // Who begins anew may do again what was done.
        return;
    }
    let Some(rows) = history.versions.get(&history.version) else { return };
    for (key, row) in rows.iter().filter(|(key, _)| key.starts_with("counters/") && !history.writes.contains_key(*key)) {
        let counted = |mutation: &&Mutation| mutation.name == "inc" && mutation.args["id"] == row["id"];
        let processed = history.mutations.values().filter(|mutation| history.processed(&mutation.client, mutation.id).is_some());
        let sum: i64 = processed.filter(counted).filter_map(|mutation| mutation.args["by"].as_i64()).sum();
        if row["n"] != sum {
            wrong.push(format!("{key} is {}, and {sum} was added", row["n"]));
        }
    }
}

/// What the administrator was told.
fn check_writes(history: &History, wrong: &mut Vec<String>) {
    let Some(rows) = history.versions.get(&history.version) else { return };
    for marker in &history.written {
        if rows.get(marker).is_none() {
            wrong.push(format!("{marker} was acknowledged, and is not there"));
        }
    }
}

/// Every client has what its user may see.
fn check_ends(history: &History, clients: usize, wrong: &mut Vec<String>) {
    let Some(rows) = history.versions.get(&history.version) else { return wrong.push("there are no rows".into()) };
    for (number, (caller, replica, at_end)) in &history.ends {
        let visible = rows.visible(caller);
        if !at_end {
            wrong.push(format!("client {number} is in the middle of a load"));
        }
        if !replica.iter().eq(visible.iter().map(|(key, row)| (*key, *row))) {
            let missing: Vec<_> = visible.keys().filter(|key| !replica.contains_key(**key)).collect();
            let more: Vec<_> = replica.keys().filter(|key| !visible.contains_key(*key)).collect();
            wrong.push(format!("client {number} has other rows than {caller:?} sees: {missing:?} less, {more:?} more"));
        }
    }
    if history.ends.len() != clients {
        wrong.push(format!("{} of {clients} clients came to an end", history.ends.len()));
    }
}
