//! Documents of mounts (JWKS …) as they were fetched last.

use crate::sql::{Database, Error, Value, bytes, cells, number, text, unsigned};

/// A document that was asked for at least once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Where it is fetched: under another URL it is another document.
    pub url: String,
    /// What was fetched; none where it never could be.
    pub body: Option<Vec<u8>>,
    /// By which the server knows what was fetched.
    pub etag: Option<String>,
    /// The same by time.
    pub modified: Option<String>,
    /// When it was asked for last.
    pub tried_ms: u64,
    /// Whether that failed.
    pub failed: bool,
    /// Grows with each change of a document of the mount.
    pub revision: u64,
}

/// What is kept of a mount's documents, by name.
pub fn all(database: &Database, mount: &str) -> Result<Vec<(String, Kept)>, Error> {
    let sql = "SELECT name, url, body, etag, modified, tried, failed, revision FROM {}documents WHERE mount = ?";
    database.run(sql, &[mount.into()])?.rows.into_iter().map(read).collect()
}

fn read(row: Vec<Value>) -> Result<(String, Kept), Error> {
    let [name, url, body, etag, modified, tried, failed, revision] = cells(row)?;
    let optional = |cell| if cell == Value::Null { Ok(None) } else { text(cell).map(Some) };
    let kept = Kept {
        url: text(url)?,
        body: if body == Value::Null { None } else { Some(bytes(body)?) },
        etag: optional(etag)?,
        modified: optional(modified)?,
        tried_ms: unsigned(&tried)?,
        failed: failed == Value::Integer(1),
        revision: unsigned(&revision)?,
    };
    Ok((text(name)?, kept))
}

/// Takes the turn to fetch a document that was asked for last at a time (none: never); whether nobody else has.
pub fn take_turn(database: &Database, mount: &str, name: &str, url: &str, before: Option<u64>, now_ms: u64) -> Result<bool, Error> {
    let key = [mount.into(), name.into()];
    let rows = match before {
        Some(before) => {
            let sql = "UPDATE {}documents SET tried = ? WHERE mount = ? AND name = ? AND url = ? AND tried = ? RETURNING 1";
            let [mount, name] = key;
            database.run(sql, &[number(now_ms), mount, name, url.into(), number(before)])?.rows
        }
        None => {
            let sql = "INSERT INTO {}documents AS kept (mount, name, url, tried, failed, revision) VALUES (?, ?, ?, ?, 0, 0) \
                       ON CONFLICT (mount, name) DO UPDATE SET url = excluded.url, tried = excluded.tried, failed = 0, body = NULL, \
                       etag = NULL, modified = NULL, revision = kept.revision + 1 WHERE kept.url <> excluded.url RETURNING 1";
            let [mount, name] = key;
            database.run(sql, &[mount, name, url.into(), number(now_ms)])?.rows
        }
    };
    Ok(!rows.is_empty())
}

/// Keeps what was fetched.
pub fn keep(database: &Database, mount: &str, name: &str, kept: &Kept) -> Result<(), Error> {
    let parameters = [
        kept.body.as_deref().into(),
        kept.etag.as_deref().into(),
        kept.modified.as_deref().into(),
        mount.into(),
        mount.into(),
        name.into(),
        kept.url.as_str().into(),
    ];
    let sql = "UPDATE {}documents SET body = ?, etag = ?, modified = ?, failed = 0, \
               revision = (SELECT max(revision) + 1 FROM {}documents WHERE mount = ?) WHERE mount = ? AND name = ? AND url = ?";
    database.run(sql, &parameters).map(drop)
}

/// A fetch ended without anything new.
pub fn tried(database: &Database, mount: &str, name: &str, failed: bool) -> Result<(), Error> {
    let parameters = [i64::from(failed).into(), mount.into(), name.into()];
    database.run("UPDATE {}documents SET failed = ? WHERE mount = ? AND name = ?", &parameters).map(drop)
}
