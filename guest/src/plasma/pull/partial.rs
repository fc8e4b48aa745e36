//! Partial sync: a pull of the rows of some named queries, and of nothing else.
//!
//! Each query adds a condition to the read rules of its table; a table without one shows nothing. So all that pulls know of rules
//! (rows that leave or enter, also because of other tables) holds for queries.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::statements::PullStatements;
use crate::encoding::base64url;
use crate::imports::Imports;
use crate::plasma::engine::{Caller, Engine};
use crate::plasma::language::{Bindings, Predicate, Query, parse_query, with_parameters_renamed, with_read_auth};
use crate::plasma::query::QueryRefused;
use crate::plasma::schema::Schema;

/// Queries of one pull.
pub const QUERIES_MAX: usize = 20;
/// Sets of queries whose statements an instance keeps.
const KEPT_MAX: usize = 50;

/// A query whose rows are to be synced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncedQuery {
    /// As the client calls it.
    pub name: String,
    /// What stands behind the name.
    pub source: Json,
    /// What it leaves open.
    pub parameters: Map<String, Json>,
}

/// Which rows are shown, and the statements that read them.
pub struct Shown {
    /// With the rules that decide.
    pub schema: Rc<Schema>,
    /// Over that schema.
    pub pulls: PullStatements,
}

impl Shown {
    /// All that the rules of a schema allow.
    pub fn all(schema: &Rc<Schema>) -> Rc<Self> {
        Rc::new(Self { schema: schema.clone(), pulls: PullStatements::new(schema) })
    }
}

/// What an instance keeps: by the texts of their queries.
#[derive(Default)]
pub struct PartialShown(RefCell<HashMap<String, Rc<Shown>>>);

impl Engine {
    /// What a pull of some queries shows, and the values of their parameters. Without queries: all.
    pub(super) fn shown_by(
        &self,
        imports: Imports<'_>,
        caller: &Caller,
        queries: &[SyncedQuery],
    ) -> Result<(Rc<Shown>, Map<String, Json>), QueryRefused> {
        if queries.is_empty() {
            return Ok((self.shown.clone(), Map::new()));
        }
        let mut parameters = Map::new();
        for (place, query) in queries.iter().enumerate() {
            parameters.extend(query.parameters.iter().map(|(name, value)| (renamed(place, name), value.clone())));
        }
        let shown = self.partial(queries)?;
        let sql = self.sql(imports)?;
        let bindings = Bindings { parameters: Some(&parameters), ..Bindings::of_context(&caller.context) };
        for table in shown.schema.tables() {
            // What does not fit is the client's fault, and said before anything is read.
            shown.pulls.table(sql, table).rows.statement(&bindings, &[])?;
        }
        Ok((shown, parameters))
    }

    fn partial(&self, queries: &[SyncedQuery]) -> Result<Rc<Shown>, QueryRefused> {
        let texts: Json = queries.iter().map(|query| query.source.clone()).collect();
        let text = texts.to_string();
        if let Some(known) = self.partial_shown.0.borrow().get(&text) {
            return Ok(known.clone());
        }
        let mut conditions: BTreeMap<String, Vec<Predicate>> = BTreeMap::new();
        for (place, synced) in queries.iter().enumerate() {
            let query = parse_query(&self.schema, &synced.source)?;
            if !is_plain(&query) {
                return Err(QueryRefused::NotSynced(synced.name.clone()));
            }
            let condition = with_parameters_renamed(&with_read_auth(&self.schema, &query.condition), &|name| renamed(place, name));
            conditions.entry(query.from).or_default().push(condition);
        }
        let schema = self.schema.with_read_rules(|table| {
            let of_queries = Predicate::Or(conditions.remove(&table.name).unwrap_or_default());
            Predicate::And(vec![table.auth.read.clone(), of_queries])
        });
        let shown = Shown::all(&Rc::new(schema));
        let mut kept = self.partial_shown.0.borrow_mut();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(text, shown.clone());
        Ok(shown)
    }
}

/// Parameters of several queries may have the same name.
fn renamed(place: usize, name: &str) -> String {
    format!("{place}.{name}")
}

/// Whether a query says nothing but which rows: those are synced as they are.
fn is_plain(query: &Query) -> bool {
    let whole = query.limit.is_none() && query.offset.is_none() && query.after.is_none();
    whole && !query.distinct && !query.grouped && query.related.is_empty() && query.joins.is_empty()
}

/// The caller of a pull of some queries: other queries are another view, as another `ctx` is.
pub(super) fn caller_with<'a>(caller: &'a Caller, queries: &[SyncedQuery]) -> Cow<'a, Caller> {
    if queries.is_empty() {
        return Cow::Borrowed(caller);
    }
    let digest = Sha256::digest(json!([caller.context_digest, queries]).to_string());
    Cow::Owned(Caller { context_digest: base64url(&digest[..16]), ..caller.clone() })
}
