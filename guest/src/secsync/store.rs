//! Tables, rows and contents (docs/protocols/secsync.md, section 8).
//!
//! A *content* is the JSON text of a snapshot or an update as it goes over the wire. It lies in its row, or, where it is
//! large, in an object that is written before the transaction that names it.
//! Invariant: the row of a snapshot (its place in the chain, proof and hash) is never removed; its content may be.

use std::cell::Cell;

use super::failure::Failure;
use super::settings::Settings;
use super::verify;
use crate::app::Description;
use crate::imports::{ConnectionId, Imports, Query, Statement, Transaction, Value};
use crate::sql::Sql;

/// The database of a mount.
pub const DATABASE: &str = "secsync";
/// The beginning of the key of every object.
pub const OBJECT_PREFIX: &str = "ss/";
/// Where rows name objects: the column, its table, and the column with the snapshot's id.
pub const OBJECT_COLUMNS: [(&str, &str, &str); 3] =
    [("object_key", "ss_updates", "snapshot_id"), ("object_key", "ss_snapshots", "id"), ("server_data_object_key", "ss_snapshots", "id")];
/// The format of the tables; a newer one is refused.
const FORMAT: i64 = 1;
/// Contents above this lie in objects: rows stay small enough for pages, caches and replication.
const INLINE_BYTES_MAX: usize = 256 << 10;

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS {}ss_documents (id TEXT PRIMARY KEY, active_snapshot_id TEXT, ordinal BIGINT NOT NULL, seq BIGINT NOT NULL, \
     update_count BIGINT NOT NULL, grace_author TEXT, grace_until BIGINT, created_at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS {}ss_snapshots (id TEXT PRIMARY KEY, doc_id TEXT NOT NULL, ordinal BIGINT NOT NULL, seq BIGINT NOT NULL, \
     parent_id TEXT NOT NULL, parent_proof TEXT NOT NULL, ciphertext_hash TEXT NOT NULL, body TEXT, object_key TEXT, \
     server_data TEXT, server_data_object_key TEXT, created_at BIGINT NOT NULL, superseded_at BIGINT)",
    "CREATE UNIQUE INDEX IF NOT EXISTS {}ss_snapshots_chain ON {}ss_snapshots (doc_id, ordinal)",
    "CREATE INDEX IF NOT EXISTS {}ss_snapshots_superseded ON {}ss_snapshots (superseded_at)",
    "CREATE TABLE IF NOT EXISTS {}ss_updates (snapshot_id TEXT NOT NULL, seq BIGINT NOT NULL, pub_key TEXT NOT NULL, clock BIGINT NOT NULL, \
     signature TEXT NOT NULL, body TEXT, object_key TEXT, PRIMARY KEY (snapshot_id, seq))",
    "CREATE UNIQUE INDEX IF NOT EXISTS {}ss_updates_clocks ON {}ss_updates (snapshot_id, pub_key, clock)",
    // For the sweep of objects that nothing names.
    "CREATE INDEX IF NOT EXISTS {}ss_updates_objects ON {}ss_updates (object_key) WHERE object_key IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS {}ss_snapshots_objects ON {}ss_snapshots (object_key) WHERE object_key IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS {}ss_snapshots_server_data ON {}ss_snapshots (server_data_object_key) \
     WHERE server_data_object_key IS NOT NULL",
];

/// What one call of the host works with.
pub struct Call<'a> {
    /// The name of the mount.
    pub mount: &'a str,
    /// The settings of the mount.
    pub settings: &'a Settings,
    /// What the app of the mount has.
    pub app: &'a Description,
    /// What the host gives.
    pub imports: Imports<'a>,
    /// How statements are written.
    pub sql: &'a Sql,
    /// The connection that the call is about; 0 for jobs.
    pub connection: ConnectionId,
    /// Counts the objects that this instance wrote, for their names.
    pub objects_written: &'a Cell<u64>,
}

impl Call<'_> {
    /// A statement from a template (see [`Sql::statement`]).
    pub fn statement(&self, template: &str, parameters: impl IntoIterator<Item = Value>) -> Statement {
        self.sql.statement(template, parameters)
    }

    /// The rows of a question.
    pub fn rows(&self, view: &dyn Query, template: &str, parameters: impl IntoIterator<Item = Value>) -> Result<Vec<Row>, Failure> {
        let found = view.query(self.statement(template, parameters), None)?;
        if found.truncated {
            return Err(Failure::Transient("database limit: too many rows in one answer".into()));
        }
        Ok(found.rows.into_iter().map(Row::new).collect())
    }

    /// Becomes the writer of the database.
    pub fn begin(&self) -> Result<Box<dyn Transaction>, Failure> {
        Ok(self.imports.executor.begin(DATABASE)?)
    }

    /// The time, for rows.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.imports.now_ms).unwrap_or(i64::MAX)
    }

    /// Puts a text where a row can name it. An object is durable when this returns, under a name that no other attempt has.
    pub fn put_away(&self, text: String) -> Result<Content, Failure> {
        if text.len() <= INLINE_BYTES_MAX {
            return Ok(Content::Inline(text));
        }
        let attempt = self.objects_written.get();
        self.objects_written.set(attempt.wrapping_add(1));
        let key = format!("{OBJECT_PREFIX}{}-{}-{}-{attempt}", verify::hash(&text), self.connection, self.imports.now_ms);
        self.imports.storage.write_object(&key, "application/json", text.into_bytes())?;
        Ok(Content::Object(key))
    }

    /// Takes back what no row names after all: nothing was committed. What cannot be removed costs space and nothing else.
    pub fn take_back(&self, content: &Content) {
        if let Content::Object(key) = content {
            let _ = self.imports.storage.delete_object(key);
        }
    }

    /// The text of a content.
    pub fn load(&self, content: Content) -> Result<String, Failure> {
        match content {
            Content::Inline(text) => Ok(text),
            Content::Object(key) => {
                let bytes = self.imports.storage.read_object(&key, None)?;
                String::from_utf8(bytes).map_err(|_| Failure::Unexpected(format!("object {key} is not UTF-8")))
            }
            Content::Dropped => Err(Failure::Transient("the content was dropped meanwhile".into())),
        }
    }
}

/// Where the text of a snapshot or an update is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In its row.
    Inline(String),
    /// In the object of this key.
    Object(String),
    /// Nowhere any more (retention).
    Dropped,
}

impl Content {
    /// From the columns `body` and `object_key`.
    pub fn of(body: Option<String>, object_key: Option<String>) -> Self {
        match (body, object_key) {
            (Some(text), _) => Self::Inline(text),
            (None, Some(key)) => Self::Object(key),
            (None, None) => Self::Dropped,
        }
    }

    /// The columns `body` and `object_key`.
    pub fn columns(&self) -> [Value; 2] {
        match self {
            Self::Inline(text) => [text.as_str().into(), Value::Null],
            Self::Object(key) => [Value::Null, key.as_str().into()],
            Self::Dropped => [Value::Null, Value::Null],
        }
    }
}

/// A row, read column by column.
pub struct Row(std::vec::IntoIter<Value>);

impl Row {
    /// Over the values of a row.
    pub fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The next column, a text.
    pub fn text(&mut self) -> Result<String, Failure> {
        self.optional_text()?.ok_or_else(|| Failure::Unexpected("a column is null".into()))
    }

    /// The next column, a text or null.
    pub fn optional_text(&mut self) -> Result<Option<String>, Failure> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(Failure::Unexpected("a column is no text".into())),
        }
    }

    /// The next column, an integer.
    pub fn integer(&mut self) -> Result<i64, Failure> {
        self.optional_integer()?.ok_or_else(|| Failure::Unexpected("a column is null".into()))
    }

    /// The next column, an integer or null.
    pub fn optional_integer(&mut self) -> Result<Option<i64>, Failure> {
        match self.0.next() {
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(Value::Null) => Ok(None),
            _ => Err(Failure::Unexpected("a column is no integer".into())),
        }
    }

    /// The next two columns, `body` and `object_key`.
    pub fn content(&mut self) -> Result<Content, Failure> {
        Ok(Content::of(self.optional_text()?, self.optional_text()?))
    }
}

/// Creates the tables, or checks that they are of a format that this version reads.
pub fn create_tables(call: &Call<'_>) -> Result<(), Failure> {
    let transaction = call.begin()?;
    transaction.execute(call.statement("CREATE TABLE IF NOT EXISTS {}ss_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)", []))?;
    let found = call.rows(transaction.as_ref(), "SELECT value FROM {}ss_meta WHERE name = 'format'", [])?.into_iter().next();
    if let Some(mut row) = found {
        let format = row.integer()?;
        if format > FORMAT {
            return Err(Failure::Unexpected(format!(
                "the tables of database {DATABASE:?} have format {format}, this version reads up to {FORMAT}"
            )));
        }
    }
    let mut statements: Vec<_> = TABLES.iter().map(|table| call.statement(table, [])).collect();
    let format = "INSERT INTO {}ss_meta (name, value) VALUES ('format', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    statements.push(call.statement(format, [FORMAT.into()]));
    transaction.execute_batch(statements)?;
    Ok(transaction.commit()?)
}
