//! One page: entries of the log and the rows that they stand for.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::held::Held;
use super::partial::Shown;
use super::patch::{Change, Patch, push_row};
use super::statements::TableReads;
use crate::imports::{Query, Statement, Value};
use crate::plasma::cookie::Loading;
use crate::plasma::failure::Failure;
use crate::plasma::language::{Bindings, Compiled};
use crate::plasma::schema::Table;
use crate::plasma::store;
use crate::plasma::store::changes::{self, Entry};
use crate::sql::Sql;

/// Entries that one page looks at, in pages' worths: where most rows are invisible, a page ends after so many all the same.
const PAGES_LOOKED_AT: usize = 16;
/// Where a page is too large, the next try is so many times smaller: few tries, since a call has no time for many.
const ROWS_FEWER: usize = 8;

/// Reads for one caller from one view.
pub struct Reader<'a> {
    /// How statements are written.
    pub sql: &'a Sql,
    /// The view.
    pub view: &'a dyn Query,
    /// For whom.
    pub who: Who<'a>,
    /// Where a range of versions is open: what changed above it.
    pub held: Option<Held>,
}

/// For whom is read.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// What read predicates see as `ctx`.
    pub context: &'a Map<String, Json>,
    /// Parameters of the queries that are synced.
    pub parameters: &'a Map<String, Json>,
    /// What is shown.
    pub shown: &'a Shown,
}

impl<'a> Who<'a> {
    /// Where predicates take their values from.
    pub fn bindings(&self) -> Bindings<'a> {
        Bindings { parameters: Some(self.parameters), ..Bindings::of_context(self.context) }
    }
}

/// How far a page got.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// All versions up to this one are in it.
    pub reached: u64,
    /// Whether there may be more.
    pub has_more: bool,
}

/// What has been read for a page.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// By entry: what becomes of it.
    fates: Vec<Fate>,
    /// The JSON of all rows, one after the other.
    rows: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The client never had it.
    Nothing,
    /// The client must forget it.
    Delete,
    /// The client gets the row that lies here in `rows`.
    Put(usize, usize),
}

impl Reader<'_> {
    /// The same as [`Reader::page`], with fewer rows where so many are more than the database gives at once.
    pub fn page_within_limits(&self, from: &Loading, current: u64, rows_max: usize, patch: &mut Patch) -> Result<Page, Failure> {
        match self.page(from, current, rows_max, patch) {
            Err(Failure::Limit(_)) if rows_max > 1 => self.page_within_limits(from, current, (rows_max / ROWS_FEWER).max(1), patch),
            page => page,
        }
    }

    /// Reads what follows `from`, at most `rows_max` operations, but at least one version whole.
    fn page(&self, from: &Loading, current: u64, rows_max: usize, patch: &mut Patch) -> Result<Page, Failure> {
        let chunk = rows_max.saturating_add(1);
        let mut found = Found::default();
        let mut place = (from.v, u64::MAX);
        let page = loop {
            let mut entries = changes::live_after(self.sql, self.view, place, current, chunk)?;
            let exhausted = entries.len() < chunk;
            let begin = place;
            if let Some(last) = entries.last() {
                place = last.place();
            }
            if let Some(held) = &self.held {
                held.add_outdated(&mut entries, begin, if exhausted { (u64::MAX, u64::MAX) } else { place });
            }
            self.resolve(entries, from.s, &mut found)?;
            let wanted = found.fates.iter().filter(|fate| **fate != Fate::Nothing).count();
            if exhausted && wanted <= rows_max {
                break Page { reached: current, has_more: false };
            }
            // The last version that was read may go on behind the chunk.
            let whole_below = if exhausted { u64::MAX } else { place.0 };
            let enough = wanted > rows_max || found.entries.len() >= rows_max.saturating_mul(PAGES_LOOKED_AT);
            if let Some(reached) = found.cut(whole_below, rows_max).filter(|_| enough || exhausted) {
                let has_more = found.entries.last().is_some_and(|last| last.version > reached) || !exhausted;
                break Page { reached: if has_more { reached } else { current }, has_more };
            }
        };
        let table_of = found.entries.iter().zip(&found.fates).take_while(|(entry, _)| entry.version <= page.reached);
        for (entry, fate) in table_of {
            let row = match *fate {
                Fate::Nothing => continue,
                Fate::Delete => None,
                Fate::Put(begin, end) => Some(&found.rows[begin..end]),
            };
            patch.push(Change { table: &entry.table, key: &entry.key, version: entry.version, row })?;
        }
        Ok(page)
    }

    /// Finds out what becomes of entries. Those at or below `none_until` that show nothing the client never had.
    fn resolve(&self, entries: Vec<Entry>, none_until: u64, found: &mut Found) -> Result<(), Failure> {
        let first = found.entries.len();
        let gone = |entry: &Entry| if entry.version > none_until { Fate::Delete } else { Fate::Nothing };
        found.fates.extend(entries.iter().map(gone));
        let mut by_table: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.put) {
            by_table.entry(&entry.table).or_default().push(index);
        }
        for (table, indexes) in by_table {
            // A table that a migration dropped has nothing left to show.
            let Some(table) = self.who.shown.schema.table(table) else { continue };
            let reads = self.who.shown.pulls.table(self.sql, table);
            for (indexes, statement) in self.reads_of(table, &reads, &entries, indexes)? {
                for cells in store::checked(self.view.query(statement, None)?)? {
                    let position = changes::position(self.sql, cells.first().unwrap_or(&Value::Null))?;
                    let index = *indexes.get(position).ok_or_else(|| Failure::Unexpected("a row beside the list".into()))?;
                    let begin = found.rows.len();
                    push_row(&mut found.rows, &reads, &cells[1..]);
                    found.fates[first + index] = Fate::Put(begin, found.rows.len());
                }
            }
        }
        found.entries.extend(entries);
        Ok(())
    }

    /// The statements that read the rows of some entries of a table, and which entries each is for.
    fn reads_of(
        &self,
        table: &Table,
        reads: &TableReads,
        entries: &[Entry],
        indexes: Vec<usize>,
    ) -> Result<Vec<(Vec<usize>, Statement)>, Failure> {
        let keys = |indexes: &[usize]| Value::Text(list_of(indexes.iter().map(|index| entries[*index].key.as_str())));
        let bind = |compiled: &Compiled, given: &[Value]| {
            compiled.statement(&self.who.bindings(), given).map_err(|error| Failure::Unexpected(error.to_string()))
        };
        let Some(held) = &self.held else {
            let statement = bind(&reads.rows, &[keys(&indexes)])?;
            return Ok(vec![(indexes, statement)]);
        };
        let (outdated, current): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|index| held.is_outdated(&entries[*index]));
        let mut statements = Vec::new();
        for (indexes, as_images) in [(current, false), (outdated, true)] {
            if !indexes.is_empty() {
                let (compiled, given) = held.compile(self.sql, &self.who.shown.schema, table, as_images, keys(&indexes))?;
                statements.push((indexes, bind(&compiled, &given)?));
            }
        }
        Ok(statements)
    }
}

impl Found {
    /// The last version below `whole_below` up to which there are at most `rows_max` operations; where already the first has
    /// more, that one. None: not even one version is whole.
    fn cut(&self, whole_below: u64, rows_max: usize) -> Option<u64> {
        let mut cut = None;
        let mut count = 0;
        for (index, (entry, fate)) in self.entries.iter().zip(&self.fates).enumerate() {
            count += usize::from(*fate != Fate::Nothing);
            let ends = self.entries.get(index + 1).is_none_or(|next| next.version > entry.version);
            if ends && entry.version < whole_below {
                if count > rows_max && cut.is_some() {
                    break;
                }
                cut = Some(entry.version);
            }
        }
        cut
    }
}

/// A JSON array of members that are JSON already.
pub fn list_of<'a>(members: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::from("[");
    for (index, member) in members.enumerate() {
        if index > 0 {
            list.push(',');
        }
        list.push_str(member);
    }
    list.push(']');
    list
}
