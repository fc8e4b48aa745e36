//! What a client lacks of a document, read from one view of the database (docs/protocols/secsync.md, sections 2.3 and 5.1).

use std::collections::BTreeMap;

use super::failure::Failure;
use super::server_messages::{ChainEntry, DocumentState};
use super::store::{Call, Content, Row};
use crate::imports::{Query, SqlError, Value};

/// The last clock of each author on a snapshot.
pub type Clocks = BTreeMap<String, i64>;

/// The first page is small: most documents have few updates since their snapshot, and some of those are large.
const FIRST_PAGE_ROWS: u32 = 64;
const PAGE_ROWS_MAX: u32 = 4096;
/// A page of more bytes than this makes the next one smaller.
const PAGE_BYTES: usize = 1 << 20;
/// Above this many authors it is cheaper to read everything and to choose then.
const AUTHORS_IN_STATEMENT_MAX: usize = 32;

/// A document as it stands.
#[derive(Debug)]
pub struct Head {
    /// The number of commits so far.
    pub seq: i64,
    /// Its active snapshot.
    pub active: Option<ActiveSnapshot>,
    /// The place in the chain of the snapshot that was asked for, if it is one of this document.
    pub known_ordinal: Option<i64>,
}

/// An active snapshot.
#[derive(Debug)]
pub struct ActiveSnapshot {
    /// `snapshotId`.
    pub id: String,
    /// Its place in the chain, from 1.
    pub ordinal: i64,
    /// Its text; not read where the caller did not want it.
    pub content: Content,
}

/// Which updates on a snapshot are wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// Those of these authors above these clocks (-1: all of the author).
    Above(Clocks),
}

/// Decides per author which stored updates a client lacks. `known` holds any numbers.
pub fn lacking(stored: &Clocks, known: &BTreeMap<String, f64>) -> Wanted {
    let lacks = |(author, last): (&String, &i64)| {
        let above = known.get(author).map_or(-1, |clock| (clock.floor() as i64).max(-1));
        (*last > above).then(|| (author.clone(), above))
    };
    Wanted::Above(stored.iter().filter_map(lacks).collect())
}

/// What was found, with contents that may still lie in objects; to be loaded when the view is no longer needed.
#[derive(Debug, Default)]
pub struct Found {
    /// The active snapshot, where it belongs into the answer.
    pub snapshot: Option<Content>,
    /// Updates in the order of their commits.
    pub updates: Vec<Content>,
    /// The chain, where it belongs into the answer.
    pub snapshot_proof_chain: Option<Vec<ChainEntry>>,
}

impl Found {
    /// Of a document without a snapshot.
    pub fn empty() -> Self {
        Self { snapshot_proof_chain: Some(Vec::new()), ..Self::default() }
    }

    /// Reads the objects.
    pub fn load(self, call: &Call<'_>) -> Result<DocumentState, Failure> {
        Ok(DocumentState {
            snapshot: self.snapshot.map(|content| call.load(content)).transpose()?,
            updates: self.updates.into_iter().map(|content| call.load(content)).collect::<Result<_, _>>()?,
            snapshot_proof_chain: self.snapshot_proof_chain,
        })
    }
}

impl Call<'_> {
    /// A document and its active snapshot, whose content is left out if its id is `unwanted`; `known` is a snapshot id of the client's.
    pub fn head(&self, view: &dyn Query, doc_id: &str, known: Option<&str>, unwanted: &str) -> Result<Option<Head>, Failure> {
        let template = "SELECT d.seq, k.ordinal, s.id, s.ordinal, \
             CASE WHEN s.id = ? THEN NULL ELSE s.body END, CASE WHEN s.id = ? THEN NULL ELSE s.object_key END \
             FROM {}ss_documents d LEFT JOIN {}ss_snapshots s ON s.id = d.active_snapshot_id \
             LEFT JOIN {}ss_snapshots k ON k.id = ? AND k.doc_id = d.id WHERE d.id = ?";
        let parameters = [unwanted.into(), unwanted.into(), known.unwrap_or("").into(), doc_id.into()];
        let Some(mut row) = self.rows(view, template, parameters)?.into_iter().next() else { return Ok(None) };
        let seq = row.integer()?;
        let known_ordinal = row.optional_integer()?;
        let active = match (row.optional_text()?, row.optional_integer()?) {
            (Some(id), Some(ordinal)) => Some(ActiveSnapshot { id, ordinal, content: row.content()? }),
            _ => None,
        };
        Ok(Some(Head { seq, active, known_ordinal }))
    }

    /// The clock table of a snapshot.
    pub fn clocks(&self, view: &dyn Query, snapshot_id: &str) -> Result<Clocks, Failure> {
        let template = "SELECT pub_key, MAX(clock) FROM {}ss_updates WHERE snapshot_id = ? GROUP BY pub_key";
        self.rows(view, template, [snapshot_id.into()])?.into_iter().map(|mut row| Ok((row.text()?, row.integer()?))).collect()
    }

    /// Updates on a snapshot in the order of their commits.
    pub fn updates(&self, view: &dyn Query, snapshot_id: &str, wanted: &Wanted) -> Result<Vec<Content>, Failure> {
        let mut condition = String::new();
        let mut parameters: Vec<Value> = vec![snapshot_id.into()];
        match wanted {
            Wanted::All => {}
            Wanted::Above(authors) if authors.is_empty() => return Ok(Vec::new()),
            Wanted::Above(authors) if authors.len() > AUTHORS_IN_STATEMENT_MAX => {}
            Wanted::Above(authors) => {
                let choices = vec!["(pub_key = ? AND clock > ?)"; authors.len()].join(" OR ");
                condition = format!("AND ({choices})");
                parameters.extend(authors.iter().flat_map(|(author, above)| [author.as_str().into(), (*above).into()]));
            }
        }
        let columns = format!("pub_key, clock, body, object_key FROM {{}}ss_updates WHERE snapshot_id = ? {condition}");
        let mut found = Vec::new();
        self.pages(view, &columns, parameters, |row| {
            let (author, clock, content) = (row.text()?, row.integer()?, row.content()?);
            let length = if let Content::Inline(text) = &content { text.len() } else { 0 };
            if wanted.includes(&author, clock) {
                found.push(content);
            }
            Ok(length)
        })?;
        Ok(found)
    }

    /// The chain of a document after one place up to another, oldest first.
    pub fn snapshot_proof_chain(&self, view: &dyn Query, doc_id: &str, after: i64, up_to: i64) -> Result<Vec<ChainEntry>, Failure> {
        let columns = "id, ciphertext_hash, parent_proof FROM {}ss_snapshots WHERE doc_id = ? AND ordinal > ? AND ordinal <= ?";
        let mut chain = Vec::new();
        self.pages(view, columns, vec![doc_id.into(), after.into(), up_to.into()], |row| {
            chain.push(ChainEntry { snapshot_id: row.text()?, snapshot_ciphertext_hash: row.text()?, parent_snapshot_proof: row.text()? });
            Ok(0)
        })?;
        Ok(chain)
    }

    /// Reads rows by `seq` in pages whose size follows what they hold. `columns` is a statement without `SELECT seq,` in front
    /// and the order behind; `each` gives the bytes of a row.
    fn pages(
        &self,
        view: &dyn Query,
        columns: &str,
        parameters: Vec<Value>,
        mut each: impl FnMut(&mut Row) -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        let mut page_rows = FIRST_PAGE_ROWS;
        let mut after = -1;
        loop {
            let template = format!("SELECT seq, {columns} AND seq > ? ORDER BY seq LIMIT {page_rows}");
            let statement = self.statement(&template, parameters.iter().cloned().chain([after.into()]));
            let page = match view.query(statement, None) {
                // Too many bytes for one answer.
                Err(SqlError::Limit(_)) if page_rows > 1 => {
                    page_rows = (page_rows / 4).max(1);
                    continue;
                }
                page => page?,
            };
            let full = page.truncated || page.rows.len() >= page_rows as usize;
            let before = after;
            let mut bytes = 0;
            for values in page.rows {
                let mut row = Row::new(values);
                after = row.integer()?;
                bytes += each(&mut row)?;
            }
            if !full || after == before {
                return Ok(());
            }
            page_rows = if bytes < PAGE_BYTES { (page_rows * 2).min(PAGE_ROWS_MAX) } else { (page_rows / 2).max(1) };
        }
    }
}

impl Wanted {
    fn includes(&self, author: &str, clock: i64) -> bool {
        match self {
            Self::All => true,
            Self::Above(authors) => authors.get(author).is_some_and(|above| clock > *above),
        }
    }
}
