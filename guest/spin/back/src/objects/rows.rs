//! Objects as rows: one for what is known of it, and its content in pieces under a number of its own, so that an object is
//! replaced by one change.

use super::{PIECE_BYTES, hex};
use crate::bindings::exports::syncline::host::storage::ObjectInfo;
use crate::sql::{Database, Error, Run, Value, Write, bytes, cells, number, text, unsigned};
use crate::store::keyvalue::{key_text, range};
use sha2::{Digest as _, Sha256};

/// An upload that took longer than this is over, in milliseconds.
const UPLOAD_MS_MAX: u64 = 60 * 60 * 1000;
/// Uploads cleared away at once.
const CLEARED_MAX: usize = 20;

const COLUMNS: &str = "id, size, type, sha256, created";

/// An object that is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Of its content.
    pub(crate) id: i64,
    pub(crate) info: ObjectInfo,
}

fn read_row(row: [Value; 5]) -> Result<Row, Error> {
    let [id, size, content_type, sha256, created] = row;
    let Value::Integer(id) = id else { return Err(Error::Unavailable("an object has no number".into())) };
    let sha256 = text(sha256)?;
    let info = ObjectInfo {
        size: unsigned(&size)?,
        content_type: text(content_type)?,
        etag: sha256.clone(),
        sha256: Some(sha256),
        created: unsigned(&created)?,
    };
    Ok(Row { id, info })
}

/// What is known of an object.
pub(crate) fn head(run: Run<'_>, mount: &str, key: &str) -> Result<Option<Row>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM {{}}objects WHERE mount = ? AND key = ?");
    let rows = run(&sql, &[mount.into(), key.as_bytes().into()])?.rows;
    rows.into_iter().next().map(|row| read_row(cells(row)?)).transpose()
}

/// A part of a piece of a content that is still there.
pub(crate) fn piece(run: Run<'_>, id: i64, start: u64, length_max: u64) -> Result<Vec<u8>, Error> {
    let piece_bytes = PIECE_BYTES as u64;
    let (piece, offset) = (start / piece_bytes, start % piece_bytes);
    let length = length_max.min(piece_bytes - offset);
    let sql = "SELECT substr(content, ?, ?) FROM {}pieces WHERE id = ? AND number = ?";
    let whole = "SELECT content FROM {}pieces WHERE id = ? AND number = ?";
    let rows = if offset == 0 && length == piece_bytes {
        run(whole, &[id.into(), number(piece)])?.rows
    } else {
        // In PostgreSQL these are of the smaller kind, which is found out by the cast.
        run(sql, &[number(offset + 1), number(length), id.into(), number(piece)])?.rows
    };
    let content = rows.into_iter().next().map(|row| cells(row).and_then(|[content]| bytes(content))).transpose()?;
    content.filter(|content| !content.is_empty()).ok_or_else(|| Error::Unavailable("the object was replaced while it was read".into()))
}

/// Makes or replaces an object whose content is in memory; to be run in order, in one transaction.
pub(crate) fn write(mount: &str, key: &str, content_type: &str, content: &[u8], id: i64, now_ms: u64) -> (Vec<Write>, ObjectInfo) {
    let sha256 = hex(&Sha256::digest(content));
    let mut writes: Vec<Write> =
        content.chunks(PIECE_BYTES).enumerate().map(|(number, piece)| insert_piece(id, number as u64, piece)).collect();
    writes.extend(place(mount, key, content_type, id, content.len() as u64, &sha256, now_ms));
    let info = ObjectInfo {
        size: content.len() as u64,
        content_type: content_type.to_owned(),
        etag: sha256.clone(),
        sha256: Some(sha256),
        created: now_ms,
    };
    (writes, info)
}

/// Puts a piece down.
pub(crate) fn insert_piece(id: i64, number_of: u64, piece: &[u8]) -> Write {
    ("INSERT INTO {}pieces (id, number, content) VALUES (?, ?, ?)", vec![id.into(), number(number_of), piece.into()])
}

/// Puts a content whose pieces are there under a key, in the place of another.
pub(crate) fn place(mount: &str, key: &str, content_type: &str, id: i64, size: u64, sha256: &str, now_ms: u64) -> [Write; 2] {
    let [old, _] = delete(mount, key);
    let parameters = vec![mount.into(), key.as_bytes().into(), id.into(), number(size), content_type.into(), sha256.into(), number(now_ms)];
    let insert = "INSERT INTO {}objects (mount, key, id, size, type, sha256, created) VALUES (?, ?, ?, ?, ?, ?, ?) \
                  ON CONFLICT (mount, key) DO UPDATE SET id = excluded.id, size = excluded.size, type = excluded.type, \
                  sha256 = excluded.sha256, created = excluded.created";
    [old, (insert, parameters)]
}

/// Removes an object and its content.
pub(crate) fn delete(mount: &str, key: &str) -> [Write; 2] {
    let parameters: Vec<Value> = vec![mount.into(), key.as_bytes().into()];
    [
        ("DELETE FROM {}pieces WHERE id = (SELECT id FROM {}objects WHERE mount = ? AND key = ?)", parameters.clone()),
        ("DELETE FROM {}objects WHERE mount = ? AND key = ?", parameters),
    ]
}

/// Notes down that pieces come that nothing names yet.
pub(crate) fn begin_upload(id: i64, now_ms: u64) -> Write {
    ("INSERT INTO {}uploads (id, started) VALUES (?, ?)", vec![id.into(), number(now_ms)])
}

/// They are named, or gone.
pub(crate) fn end_upload(id: i64) -> Write {
    ("DELETE FROM {}uploads WHERE id = ?", vec![id.into()])
}

/// Removes the pieces of a content.
pub(crate) fn delete_pieces(id: i64) -> Write {
    ("DELETE FROM {}pieces WHERE id = ?", vec![id.into()])
}

/// Objects with a beginning, in order, after one.
pub(crate) fn list(run: Run<'_>, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, Error> {
    let (range, parameters) = range("key", mount, prefix, after);
    let sql = format!("SELECT key, {COLUMNS} FROM {{}}objects WHERE {range} ORDER BY key LIMIT {limit}");
    let rows = run(&sql, &parameters)?.rows;
    let object = |row| {
        let [key, id, size, content_type, sha256, created] = cells(row)?;
        Ok((key_text(key)?, read_row([id, size, content_type, sha256, created])?.info))
    };
    rows.into_iter().map(object).collect()
}

/// The bytes of all objects of a mount.
pub(crate) fn object_bytes(database: &Database, mount: &str) -> Result<u64, Error> {
    let rows = database.run("SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM {}objects WHERE mount = ?", &[mount.into()])?.rows;
    rows.first().and_then(|row| row.first()).map_or(Ok(0), unsigned)
}

/// Removes pieces of uploads that were never finished.
pub(crate) fn remove_abandoned(database: &Database, now_ms: u64) -> Result<(), Error> {
    let before = number(now_ms.saturating_sub(UPLOAD_MS_MAX));
    let sql = format!("SELECT id FROM {{}}uploads WHERE started < ? LIMIT {CLEARED_MAX}");
    for row in database.run(&sql, &[before])?.rows {
        let [Value::Integer(id)] = cells(row)? else { continue };
        database.write(|link| {
            for (template, parameters) in [delete_pieces(id), end_upload(id)] {
                link.run(&database.own(template), &parameters)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
