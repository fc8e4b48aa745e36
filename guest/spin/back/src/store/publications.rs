//! The row of publications of each mount, from which connections in other instances read what is new.
//!
//! Promise: positions become visible in their order. SQLite has one writer at a time; in PostgreSQL whoever writes holds a lock
//! of the mount until its commit. The newest row of a mount always stays, so that its position is known.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use crate::bindings::exports::syncline::host::pubsub::{Class, ConnectionId, Publication};
use crate::codec::{decode, encode};
use crate::sql::{Database, Dialect, Error, Link, Value, bytes, cells, number, unsigned};

/// How long publications are kept, in milliseconds.
pub const KEPT_MS: u64 = 5 * 60 * 1000;
/// Rows written with one statement.
const ROWS_MAX: usize = 256;
/// Bytes written with one statement.
const BYTES_MAX: usize = 8 << 20;
/// Rows read at once.
const READ_MAX: usize = 1000;
/// Topics that a question names at most; of more all are read and compared here.
const TOPICS_MAX: usize = 200;

/// Publications after a position.
#[derive(Debug, Default)]
pub struct Found {
    /// With their positions.
    pub publications: Vec<(u64, Publication)>,
    /// The answer is complete up to here.
    pub next: u64,
    /// Something after the position is gone.
    pub missed: bool,
}

/// Puts publications at the end of a mount's row, in a transaction that is about to be committed; the position of the last.
pub fn append(database: &Database, link: &dyn Link, mount: &str, now_ms: u64, publications: &[Publication]) -> Result<Option<u64>, Error> {
    if publications.is_empty() {
        return Ok(None);
    }
    if database.dialect() == Dialect::Postgres {
        link.run("SELECT CAST(pg_advisory_xact_lock($1) AS text)", &[lock_key(mount).into()])?;
    }
    let (mut last, mut rows, mut size) = (None, Vec::new(), 0);
    for publication in publications {
        let content = encode(publication);
        size += content.len();
        rows.push((hash(&publication.topic), content));
        if rows.len() >= ROWS_MAX || size >= BYTES_MAX {
            last = insert(database, link, mount, now_ms, &mut rows)?.max(last);
            size = 0;
        }
    }
    Ok(insert(database, link, mount, now_ms, &mut rows)?.max(last))
}

fn insert(database: &Database, link: &dyn Link, mount: &str, now_ms: u64, rows: &mut Vec<(i64, Vec<u8>)>) -> Result<Option<u64>, Error> {
    if rows.is_empty() {
        return Ok(None);
    }
    let places = vec!["(?, ?, ?, ?)"; rows.len()].join(", ");
    let sql = database.own(&format!("INSERT INTO {{}}topics (mount, hash, at, content) VALUES {places} RETURNING position"));
    let parameters: Vec<Value> =
        rows.drain(..).flat_map(|(hash, content)| [mount.into(), hash.into(), number(now_ms), content.into()]).collect();
    let positions = link.run(&sql, &parameters)?.rows;
    let positions = positions.iter().flatten().map(unsigned).collect::<Result<Vec<u64>, Error>>()?;
    Ok(positions.into_iter().max())
}

/// The newest position of a mount, as a connection sees it.
pub fn newest(database: &Database, link: &dyn Link, mount: &str) -> Result<u64, Error> {
    let sql = database.own("SELECT max(position) FROM {}topics WHERE mount = ?");
    first_position(&link.run(&sql, &[mount.into()])?.rows)
}

/// The newest positions of mounts.
pub fn newest_of(database: &Database, mounts: &[String]) -> Result<Vec<u64>, Error> {
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let each = vec!["(SELECT max(position) FROM {}topics WHERE mount = ?)"; mounts.len()].join(", ");
    let parameters: Vec<Value> = mounts.iter().map(|mount| mount.as_str().into()).collect();
    let rows = database.run(&format!("SELECT {each}"), &parameters)?.rows;
    rows.into_iter().next().unwrap_or_default().iter().map(position).collect()
}

/// Publications of a mount after a position.
pub fn after(database: &Database, mount: &str, topics: &[String], after: u64, bytes_max: u64) -> Result<Found, Error> {
    // Asked first: what comes after it is left for the next time.
    let newest = first_position(&database.run("SELECT max(position) FROM {}topics WHERE mount = ?", &[mount.into()])?.rows)?;
    if newest <= after {
        return Ok(Found { next: after, ..Found::default() });
    }
    let named = match topics.len() {
        1..=TOPICS_MAX => {
            let hashes: Vec<String> = topics.iter().map(|topic| hash(topic).to_string()).collect();
            format!(" AND hash IN ({})", hashes.join(", "))
        }
        _ => String::new(),
    };
    let sql = format!(
        "SELECT t.position, t.content FROM (SELECT position, sum(bytes) OVER (ORDER BY position) - bytes AS before FROM \
         (SELECT position, length(content) AS bytes FROM {{}}topics WHERE mount = ? AND position > ? AND position <= ?{named} \
         ORDER BY position LIMIT {READ_MAX}) AS sizes) AS page JOIN {{}}topics AS t ON t.position = page.position \
         WHERE page.before < ? ORDER BY t.position"
    );
    let parameters = [mount.into(), number(after), number(newest), number(bytes_max.max(1))];
    let rows = database.run(&sql, &parameters)?.rows;
    let (count, mut size, mut last, mut publications) = (rows.len(), 0_u64, after, Vec::with_capacity(rows.len()));
    for row in rows {
        let [at, content] = cells(row)?;
        let content = bytes(content)?;
        (last, size) = (unsigned(&at)?, size + content.len() as u64);
        let publication = decode(&content).ok_or_else(|| Error::Unavailable("a publication cannot be read".into()))?;
        publications.push((last, publication));
    }
    if !topics.is_empty() {
        let wanted: HashSet<&str> = topics.iter().map(String::as_str).collect();
        publications.retain(|(_, publication)| wanted.contains(publication.topic.as_str()));
    }
    only_latest(&mut publications);
    // Asked last: what was removed meanwhile is noticed.
    let removed = database.run("SELECT position FROM {}removed WHERE mount = ?", &[mount.into()])?.rows;
    let next = if count >= READ_MAX || size >= bytes_max { last } else { newest };
    Ok(Found { publications, next, missed: first_position(&removed)? > after })
}

/// Leaves out those that a later one replaces.
fn only_latest(publications: &mut Vec<(u64, Publication)>) {
    let mut seen: HashSet<(String, String, Option<ConnectionId>)> = HashSet::new();
    let mut keep: Vec<bool> = publications
        .iter()
        .rev()
        .map(|(_, publication)| match &publication.class {
            Class::Latest(key) => seen.insert((publication.topic.clone(), key.clone(), publication.except)),
            _ => true,
        })
        .collect();
    // The last is the first that was looked at.
    publications.retain(|_| keep.pop().unwrap_or(true));
}

/// Removes what is old of a mount.
pub fn remove_old(database: &Database, mount: &str, now_ms: u64) -> Result<(), Error> {
    let old_ms = now_ms.saturating_sub(KEPT_MS);
    let sql = "SELECT position FROM {}topics WHERE mount = ? AND at >= ? ORDER BY position LIMIT 1";
    let young = first_position(&database.run(sql, &[mount.into(), number(old_ms)])?.rows)?;
    let newest = first_position(&database.run("SELECT max(position) FROM {}topics WHERE mount = ?", &[mount.into()])?.rows)?;
    let end = if young == 0 { newest } else { young };
    database.write(|link| {
        let delete = database.own("DELETE FROM {}topics WHERE mount = ? AND position < ? RETURNING position");
        let gone = link.run(&delete, &[mount.into(), number(end)])?.rows;
        let Some(last) = gone.iter().flatten().map(unsigned).collect::<Result<Vec<u64>, Error>>()?.into_iter().max() else { return Ok(()) };
        let note = database
            .own("INSERT INTO {}removed (mount, position) VALUES (?, ?) ON CONFLICT (mount) DO UPDATE SET position = excluded.position");
        link.run(&note, &[mount.into(), number(last)]).map(drop)
    })
}

fn first_position(rows: &[Vec<Value>]) -> Result<u64, Error> {
    rows.first().and_then(|row| row.first()).map_or(Ok(0), position)
}

fn position(cell: &Value) -> Result<u64, Error> {
    if *cell == Value::Null { Ok(0) } else { unsigned(cell) }
}

/// By which rows of a topic are found.
fn hash(topic: &str) -> i64 {
    first_eight(Sha256::digest(topic).as_slice())
}

fn lock_key(mount: &str) -> i64 {
    first_eight(Sha256::new().chain_update("syncline publications\0").chain_update(mount).finalize().as_slice())
}

fn first_eight(digest: &[u8]) -> i64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}
