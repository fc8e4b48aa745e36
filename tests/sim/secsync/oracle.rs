//! Judges a run of secsync by what the database holds at the end: the truth that every client was told a part of.
//!
//! * What is acknowledged is there, once. What is refused, or was never right, is not.
//! * Each document has one order; clocks of an author on a snapshot have no hole; snapshots form one chain.
//! * A connection hears the document as it was at one moment, and from then on everything that others save, once and in
//!   order; an answer comes after all that was saved before it.
//! * At the end every client has what the server has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection as Database, OpenFlags};
use serde_json::Value;
use syncline::storage::Storage;

use super::history::{Connection, Heard, History, Kind, Signature, State, signature};

/// A snapshot or update as the database has it.
#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    signature: Signature,
    /// The snapshot itself, or the one that the update refers to.
    snapshot: String,
    /// The parent of a snapshot.
    parent: Option<String>,
    /// Author and clock of an update.
    update: Option<(String, u64)>,
    /// The frame.
    body: Value,
}

/// Documents, each with its entries in order.
type Truth = BTreeMap<String, Vec<Entry>>;

/// What is wrong, one line each.
pub fn check(history: &History, file: &Path, storage: &Storage, mount: &str) -> Vec<String> {
    if !file.exists() {
        return vec!["there is no database".into()];
    }
    let truth = match read(file, storage, mount) {
        Ok(truth) => truth,
        Err(error) => return vec![format!("the database cannot be read: {error}")],
    };
    let mut wrong = Vec::new();
    for (document, entries) in &truth {
        check_order(document, entries, history, &mut wrong);
    }
    check_sent(history, &truth, &mut wrong);
    for (index, connection) in history.connections.iter().enumerate() {
        let entries = truth.get(&connection.document).map(Vec::as_slice).unwrap_or_default();
        if let Err(what) = check_connection(index, connection, entries, history) {
            wrong.push(format!("connection {index} of client {}: {what}", connection.client));
        }
    }
    check_ends(history, &truth, &mut wrong);
    wrong
}

const SNAPSHOTS: &str = "SELECT doc_id, seq, id, parent_id, NULL, NULL, NULL, body, object_key FROM ss_snapshots";
const UPDATES: &str = "SELECT s.doc_id, u.seq, u.snapshot_id, NULL, u.pub_key, u.clock, u.signature, u.body, u.object_key \
     FROM ss_updates u LEFT JOIN ss_snapshots s ON s.id = u.snapshot_id";

fn read(file: &Path, storage: &Storage, mount: &str) -> anyhow::Result<Truth> {
    let database = Database::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let intact: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    anyhow::ensure!(intact == "ok", "integrity check: {intact}");
    let mut truth = Truth::new();
    for select in [SNAPSHOTS, UPDATES] {
        let mut statement = database.prepare(select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (body, key): (Option<String>, Option<String>) = (row.get(7)?, row.get(8)?);
            let body: Value = match (body, key) {
                (Some(body), None) => serde_json::from_str(&body)?,
                (None, Some(key)) => serde_json::from_slice(&object(storage, mount, &key)?)?,
                (body, key) => anyhow::bail!("a row with {} body and object {key:?}", if body.is_some() { "a" } else { "no" }),
            };
            let author: Option<String> = row.get(4)?;
            let clock: Option<i64> = row.get(5)?;
            let named: Option<String> = row.get(6)?;
            anyhow::ensure!(named.is_none_or(|named| named == signature(&body)), "a row whose body is another frame: {body}");
            let entry = Entry {
                sequence: row.get::<_, i64>(1)?.cast_unsigned(),
                signature: signature(&body),
                snapshot: row.get(2)?,
                parent: row.get(3)?,
                update: author.zip(clock.map(i64::cast_unsigned)),
                body,
            };
            truth.entry(row.get(0)?).or_default().push(entry);
        }
    }
    for entries in truth.values_mut() {
        entries.sort_by_key(|entry| entry.sequence);
    }
    Ok(truth)
}

/// An object; its future is never pending, since faults are over.
fn object(storage: &Storage, mount: &str, key: &str) -> anyhow::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let content = runtime.block_on(storage.objects.read(mount, key, None));
    Ok(content.map_err(|error| anyhow::anyhow!("object {key}: {error}"))?.to_vec())
}

/// The order of a document: sequence, chain of snapshots, clocks.
fn check_order(document: &str, entries: &[Entry], history: &History, wrong: &mut Vec<String>) {
    let (mut active, mut clocks) = (None::<&str>, BTreeMap::<String, u64>::new());
    for (index, entry) in entries.iter().enumerate() {
        if entry.sequence != index as u64 + 1 {
            wrong.push(format!("{document}: sequence {} at place {}", entry.sequence, index + 1));
        }
        match &entry.update {
            None => {
                let parent = entry.parent.as_deref().filter(|parent| !parent.is_empty());
                if active.is_some() && parent != active {
                    wrong.push(format!("{document}: snapshot {} on {parent:?}, and {active:?} was active", entry.snapshot));
                }
                if let Some(Kind::Snapshot { parent_clocks, .. }) = history.sent.get(&entry.signature).map(|sent| &sent.kind)
                    && active.is_some()
                    && *parent_clocks != clocks
                {
                    wrong.push(format!("{document}: snapshot {} misses updates", entry.snapshot));
                }
                active = Some(&entry.snapshot);
                clocks.clear();
            }
            Some((author, clock)) => {
                if active != Some(&entry.snapshot) {
                    wrong.push(format!("{document}: an update on {}, and {active:?} was active", entry.snapshot));
                }
                let next = clocks.get(author).map_or(0, |last| last + 1);
                if *clock != next {
                    wrong.push(format!("{document}: clock {clock} of {author} where {next} is the next"));
                }
                clocks.insert(author.clone(), *clock);
            }
        }
    }
}

/// What was sent, and what became of it.
fn check_sent(history: &History, truth: &Truth, wrong: &mut Vec<String>) {
    let mut places = BTreeMap::<&Signature, Vec<(&String, &Entry)>>::new();
    for (document, entry) in truth.iter().flat_map(|(document, entries)| entries.iter().map(move |entry| (document, entry))) {
        places.entry(&entry.signature).or_default().push((document, entry));
        match history.sent.get(&entry.signature) {
            Some(sent) if sent.valid && sent.document == *document && !matches!(sent.kind, Kind::Ephemeral(_)) => {
                if entry.body["ciphertext"].as_str() != Some(&sent.ciphertext) {
                    wrong.push(format!("{document}: stored with another ciphertext: {}", entry.signature));
                }
            }
            sent => wrong.push(format!("{document}: stored what must not be: {sent:?}")),
        }
    }
    for (signature, places) in &places {
        if places.len() > 1 {
            wrong.push(format!("stored {} times: {signature}", places.len()));
        }
    }
    for (index, connection) in history.connections.iter().enumerate() {
        for heard in &connection.heard {
            match heard {
                Heard::Saved(signature) if !places.contains_key(signature) => {
                    wrong.push(format!(
                        "connection {index} was told that it is saved, and it is not there: {:?}",
                        history.sent.get(signature)
                    ));
                }
                // Sent elsewhere too, it may have been taken there.
                Heard::Refused(signature) if history.sent[signature].connections.len() == 1 && places.contains_key(signature) => {
                    wrong.push(format!("connection {index} was told that it is refused, and it is there: {:?}", history.sent[signature]));
                }
                Heard::Broadcast(_) | Heard::Saved(_) | Heard::Refused(_) => {}
            }
        }
    }
}

/// How many of the entries a document held when it was read.
fn known(opened: &State, entries: &[Entry]) -> Result<usize, String> {
    let Some(snapshot) = &opened.snapshot else {
        return if opened.updates.is_empty() { Ok(0) } else { Err("updates without a snapshot".into()) };
    };
    let active = entries.iter().position(|entry| entry.signature == *snapshot);
    let Some(active) = active else { return Err("the document had a snapshot that is not there".into()) };
    let on_it = entries[active + 1..].iter().take_while(|entry| entry.update.is_some());
    let first: BTreeSet<&Signature> = on_it.take(opened.updates.len()).map(|entry| &entry.signature).collect();
    if first != opened.updates.iter().collect() {
        return Err(format!("the document held {} updates that are not those saved first", opened.updates.len()));
    }
    Ok(active + 1 + opened.updates.len())
}

/// What a connection heard, held against the order of its document.
fn check_connection(index: usize, connection: &Connection, entries: &[Entry], history: &History) -> Result<(), String> {
    let Some(opened) = &connection.opened else { return Ok(()) };
    let mut place = known(opened, entries)?;
    // Its own is not broadcast to it, unless it came from another of its connections first.
    let is_own = |entry: &Entry| history.sent.get(&entry.signature).is_some_and(|sent| sent.connections.contains(&index));
    let next_of_others = |place: usize| entries[place..].iter().position(|entry| !is_own(entry)).map(|offset| place + offset);
    for (number, heard) in connection.heard.iter().enumerate() {
        match heard {
            Heard::Broadcast(signature) => {
                let Some(offset) = entries[place..].iter().position(|entry| entry.signature == *signature) else {
                    let before = entries.iter().any(|entry| entry.signature == *signature);
                    let what = if before { "had it already" } else { "it is not there" };
                    return Err(format!("broadcast {number} came, and {what}: {:?}", history.sent.get(signature)));
                };
                if let Some(missed) = next_of_others(place).filter(|next| *next < place + offset) {
                    return Err(format!("broadcast {number} came before that of sequence {}", entries[missed].sequence));
                }
                place += offset + 1;
            }
            Heard::Saved(signature) => {
                let saved = entries.iter().position(|entry| entry.signature == *signature);
                if let Some((next, saved)) = next_of_others(place).zip(saved).filter(|(next, saved)| next < saved) {
                    let (next, saved) = (entries[next].sequence, entries[saved].sequence);
                    return Err(format!("the answer for sequence {saved} came before the broadcast of sequence {next}"));
                }
            }
            Heard::Refused(_) => {}
        }
    }
    if connection.last.is_some()
        && let Some(missed) = next_of_others(place)
    {
        return Err(format!("sequence {} was never broadcast to it", entries[missed].sequence));
    }
    Ok(())
}

/// Every client has what the server has.
fn check_ends(history: &History, truth: &Truth, wrong: &mut Vec<String>) {
    let mut connected = BTreeSet::new();
    for connection in &history.connections {
        let Some(last) = &connection.last else { continue };
        connected.insert(connection.client);
        let entries = truth.get(&connection.document).map(Vec::as_slice).unwrap_or_default();
        let active = entries.iter().rposition(|entry| entry.update.is_none());
        let expected = State {
            snapshot: active.map(|active| entries[active].signature.clone()),
            updates: entries[active.map_or(0, |active| active + 1)..].iter().map(|entry| entry.signature.clone()).collect(),
        };
        if *last != expected {
            let missing = expected.updates.difference(&last.updates).count();
            let more = last.updates.difference(&expected.updates).count();
            wrong.push(format!("client {} has another document than the server: {missing} updates less, {more} more", connection.client));
        }
    }
    if connected.len() != history.clients {
        wrong.push(format!("{} of {} clients are connected at the end", connected.len(), history.clients));
    }
}
