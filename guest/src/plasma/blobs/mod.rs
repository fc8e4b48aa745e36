//! Blobs: bytes by their hash, kept as objects beside the tables (docs/protocols/plasma.md, section 10).
//!
//! Every upload is an object under a key of its own, and a row of `_plasma_blobs` says which of them is the blob. So what removes
//! an object never meets one that was uploaded meanwhile under the same hash. Which rows refer to a blob is kept by the layer that
//! every write passes; `reading` asks it who may read, `gc` what nobody refers to, `reconcile` rebuilds it.

mod gc;
mod reading;
mod reconcile;
mod verify;

pub use gc::{GcOptions, GcResult, SWEEP_GRACE_MS};
pub use reading::{BlobReads, ReadRefused};
pub use reconcile::{ReconcileCursor, ReconcileOptions, ReconcileRefused, ReconcileResult};

use serde_json::json;

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::store::{self, meta, number};
use crate::imports::{ConnectionId, Imports, Level, Query, StorageError, Value};
use crate::sql::Sql;

/// The content type of bytes of which nothing else is known.
pub const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";
/// The key of the secret that signs URLs, where the settings have none.
const SIGNING_SECRET: &str = "signingSecret";

/// A blob that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Blob {
    /// SHA-256 in lower-case hex.
    pub hash: String,
    /// In bytes.
    pub size: u64,
    /// As it was first uploaded.
    pub content_type: String,
    /// The key of its object.
    pub object: String,
}

/// What there is under a hash.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A blob, as far as can be told without reading it.
    Whole(Blob),
    /// A blob whose object cannot be read, or is not what it was: it waits to be uploaded again.
    Damaged,
    /// Nothing.
    Missing,
}

/// The object of a blob, as far as can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectState {
    Whole,
    Damaged,
    Missing,
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is the blob now, in place of a damaged one if there was any.
    New,
    /// The blob was there already.
    Present,
}

/// The blob of a hash, as the table has it.
fn row_of(sql: &Sql, view: &dyn Query, hash: &str) -> Result<Option<Blob>, Failure> {
    let template = "SELECT size, content_type, object FROM {}_plasma_blobs WHERE hash = ?";
    let found = store::rows(sql, view, template, [hash.into()])?;
    let blob = |row: Vec<Value>| {
        let [size, content_type, object] = <[Value; 3]>::try_from(row).map_err(|_| Failure::Unexpected("three columns".into()))?;
        let (content_type, object) = (store::text(content_type)?, store::text(object)?);
        Ok(Blob { hash: hash.to_owned(), size: store::unsigned(&size)?, content_type, object })
    };
    found.into_iter().next().map(blob).transpose()
}

/// How the object of a blob is.
fn object_state(imports: Imports<'_>, blob: &Blob) -> Result<ObjectState, Failure> {
    match imports.storage.head_object(&blob.object) {
        Ok(info) if info.size == blob.size && info.sha256.as_ref().is_none_or(|sha256| *sha256 == blob.hash) => Ok(ObjectState::Whole),
        Ok(_) => Ok(ObjectState::Damaged),
        Err(StorageError::NotFound) => Ok(ObjectState::Missing),
        // One object that cannot be read is damaged; a store that says nothing of any is away.
        Err(error) => match imports.storage.head_object(&format!("{}/none", blob.object)) {
            Ok(_) | Err(StorageError::NotFound) => Ok(ObjectState::Damaged),
            Err(_) => Err(error.into()),
        },
    }
}

/// Whether an object is there.
fn has_object(imports: Imports<'_>, key: &str) -> Result<bool, Failure> {
    match imports.storage.head_object(key) {
        Ok(_) => Ok(true),
        Err(StorageError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Engine {
    /// The key under which the body of a request is to become an object.
    pub fn upload_key(&self, hash: &str, request: ConnectionId) -> String {
        format!("{}{hash}/{request:016x}", self.options.blob_prefix)
    }

    /// The key under which clients put an object straight into the store.
    pub fn direct_key(&self, hash: &str) -> String {
        format!("{}{hash}", self.options.blob_prefix)
    }

    /// The blob of a hash, if its object is there. One that a client put straight into the store is verified first. A damaged one is a
    /// failure: nobody is told that there is none.
    pub fn blob(&self, imports: Imports<'_>, hash: &str) -> Result<Option<Blob>, Failure> {
        match self.find_blob(imports, hash)? {
            Found::Whole(blob) => Ok(Some(blob)),
            Found::Missing => Ok(None),
            Found::Damaged => Err(Failure::Unavailable(format!("the object of blob {hash} is damaged: upload the blob again"))),
        }
    }

    /// The same, telling what is damaged from what is missing.
    pub fn find_blob(&self, imports: Imports<'_>, hash: &str) -> Result<Found, Failure> {
        let sql = self.sql(imports)?;
        let row = row_of(sql, imports.executor.snapshot(DATABASE)?.as_ref(), hash)?;
        let state = row.as_ref().map_or(Ok(ObjectState::Missing), |blob| object_state(imports, blob))?;
        if let (ObjectState::Whole, Some(blob)) = (state, row) {
            return Ok(Found::Whole(blob));
        }
        let lost = if state == ObjectState::Damaged { Found::Damaged } else { Found::Missing };
        Ok(self.adopt(imports, hash)?.map_or(lost, Found::Whole))
    }

    /// Whether rows may refer to a blob that must be there.
    pub(super) fn is_uploaded(&self, imports: Imports<'_>, sql: &Sql, view: &dyn Query, hash: &str) -> Result<bool, Failure> {
        // One that came straight into the store is verified when it is read first.
        Ok(row_of(sql, view, hash)?.is_some() || has_object(imports, &self.direct_key(hash))?)
    }

    /// Makes an object, which is durable already, the blob of its hash, unless there is one: then the object goes. One that is there is
    /// read and compared with the hash, so that whoever has the bytes can mend a damaged blob.
    pub fn keep_blob(&self, imports: Imports<'_>, blob: &Blob) -> Result<Kept, Failure> {
        let sql = self.sql(imports)?;
        let damaged = row_of(sql, imports.executor.snapshot(DATABASE)?.as_ref(), &blob.hash)?;
        // A call that is made again finds its own row.
        let damaged = damaged.filter(|before| before.object != blob.object && !verify::is_whole(imports, before));
        let transaction = self.begin(imports)?;
        let before = row_of(sql, transaction.as_ref(), &blob.hash)?.map(|before| before.object).filter(|before| *before != blob.object);
        let is_damaged = before.is_some() && before == damaged.map(|damaged| damaged.object);
        let present = match &before {
            Some(before) => !is_damaged && has_object(imports, before)?,
            None => false,
        };
        let statement = if present {
            // Whoever uploads is about to refer to it.
            let template = "UPDATE {}_plasma_blobs SET created_at = ? WHERE hash = ?";
            sql.statement(template, [number(imports.now_ms), blob.hash.as_str().into()])
        } else {
            let template = "INSERT INTO {}_plasma_blobs (hash, size, content_type, created_at, object) VALUES (?, ?, ?, ?, ?) \
                            ON CONFLICT (hash) DO UPDATE SET size = excluded.size, content_type = excluded.content_type, \
                            created_at = excluded.created_at, object = excluded.object";
            let Blob { hash, size, content_type, object } = blob;
            let texts = [hash, content_type, object].map(|text| Value::Text(text.clone()));
            let [hash, content_type, object] = texts;
            sql.statement(template, [hash, number(*size), content_type, number(imports.now_ms), object])
        };
        transaction.execute(statement)?;
        transaction.commit()?;
        if present {
            imports.storage.delete_object(&blob.object)?;
            return Ok(Kept::Present);
        }
        if let Some(damaged) = before.filter(|_| is_damaged) {
            let fields = json!({"hash": blob.hash, "object": damaged}).to_string();
            imports.effects.log(Level::Warn, "plasma: a damaged blob was mended by an upload of its bytes", &fields);
            imports.storage.delete_object(&damaged)?;
        }
        Ok(Kept::New)
    }

    /// The secret that signs the server's own URLs, where the settings have none. `make`: it is made where it is missing.
    pub fn signing_secret(&self, imports: Imports<'_>, make: bool) -> Result<Option<String>, Failure> {
        let sql = self.sql(imports)?;
        let known = meta::get(sql, imports.executor.snapshot(DATABASE)?.as_ref(), SIGNING_SECRET)?;
        if known.is_some() || !make {
            return Ok(known);
        }
        let transaction = self.begin(imports)?;
        let template = "INSERT INTO {}_plasma_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING";
        transaction.execute(sql.statement(template, [SIGNING_SECRET.into(), verify::random_secret().into()]))?;
        let made = meta::get(sql, transaction.as_ref(), SIGNING_SECRET)?;
        transaction.commit()?;
        Ok(made)
    }
}
