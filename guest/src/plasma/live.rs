//! Live select: the result of a query, and what changed in it since a version.
//!
//! Nothing is kept of former results. What the log says about the rows that changed since tells in memory whether the result can
//! have changed at all, where every row of it stands for itself; else the query is run over the tables as they were, too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::engine::{DATABASE, Engine};
use super::failure::Failure;
use super::language::{
    BindError, Bindings, CompiledQuery, Exists, Lookup, OrderKey, Predicate, Query, Sources, compile_query, dependencies, evaluate,
    parse_query,
};
use super::past::{self, PastTables, keys_json};
use super::pull::{compile_rows_where, list_of};
use super::query::{QueryRefused, too_much};
use super::schema::{Schema, Table, pk_json};
use super::store;
use super::store::changes::{self, Head, Past};
use super::write::{Row, row_of};
use crate::imports::{Imports, Snapshot, Statement, Value};
use crate::sql::Sql;

/// Queries that an instance keeps compiled.
const COMPILED_MAX: usize = 1_000;

/// A query that can be watched. It follows from the schema and its own text.
pub struct LiveQuery {
    query: Query,
    compiled: CompiledQuery,
    /// The columns of the primary key, where each row of the result is one row of the table and shows its key.
    key: Option<Vec<String>>,
    /// What decides whether a row belongs to the result, where nothing but the row itself does.
    own: Option<Predicate>,
    /// What of a row the result depends on.
    columns: BTreeSet<String>,
}

impl LiveQuery {
    fn new(schema: &Schema, query: Query, sql: &Sql) -> Self {
        let compiled = compile_query(schema, &query, sql.dialect(), &Sources::of_prefix(sql.prefix()), true);
        let table = schema.table(&query.from);
        let plain = query.joins.is_empty() && !query.distinct && !query.grouped;
        let key: Option<Vec<String>> = table.filter(|_| plain).map(|table| table.key_columns().map(|column| column.name.clone()).collect());
        let shows = |name: &String| query.select.iter().any(|field| field.name == *name);
        let key = key.filter(|key| key.iter().all(shows));
        let own = table.filter(|_| query.joins.is_empty() && query.related.is_empty()).and_then(|table| {
            let both = Predicate::And(vec![query.condition.clone(), table.auth.read.clone()]);
            dependencies(&both).is_empty().then_some(both)
        });
        let selected = query.select.iter().map(|field| &field.name);
        let sorted = query.order.iter().filter_map(|term| match &term.key {
            OrderKey::Field(field) => Some(&field.name),
            OrderKey::Aggregate(_) => None,
        });
        let counted = query.aggregates.iter().filter_map(|aggregate| aggregate.field.as_ref()).map(|field| &field.name);
        let grouped = query.group.iter().map(|field| &field.name);
        let columns = selected.chain(sorted).chain(counted).chain(grouped).cloned().collect();
        Self { query, compiled, key, own, columns }
    }

    /// The tables that its result depends on.
    pub fn tables(&self) -> &BTreeSet<String> {
        self.compiled.tables()
    }

    /// Whether its rows are all that meet the condition.
    fn is_whole(&self) -> bool {
        self.query.limit.is_none() && self.query.offset.is_none() && self.query.after.is_none()
    }
}

/// What an instance keeps for live select.
#[derive(Default)]
pub struct LiveQueries(RefCell<HashMap<String, Rc<LiveQuery>>>);

/// What became of a result since a version.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveChange {
    /// It is the same.
    Same,
    /// It is this.
    Rows(Vec<Row>),
    /// It differs in this.
    Diff(LiveDiff),
}

/// How a result differs from the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveDiff {
    /// Rows that are new or other than they were.
    pub put: Vec<Row>,
    /// The keys of those that are gone, as JSON.
    pub del: Vec<String>,
    /// All keys in the order of the result, as JSON.
    pub order: Vec<String>,
}

impl LiveDiff {
    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.del.is_empty()
    }

    /// As members of a JSON object.
    pub fn to_members(&self) -> String {
        let list = |keys: &[String]| list_of(keys.iter().map(String::as_str));
        format!("\"put\":{},\"del\":{},\"order\":{}", rows_json(&self.put), list(&self.del), list(&self.order))
    }
}

/// Rows as JSON.
pub fn rows_json(rows: &[Row]) -> String {
    // Rows hold what JSON can say.
    serde_json::to_string(rows).unwrap_or_default()
}

impl Engine {
    /// A query that can be watched, if there is nothing wrong with it.
    pub fn live_query(&self, imports: Imports<'_>, source: &Json) -> Result<Rc<LiveQuery>, QueryRefused> {
        let text = source.to_string();
        if let Some(known) = self.live.0.borrow().get(&text) {
            return Ok(known.clone());
        }
        let query = parse_query(&self.schema, source)?;
        let made = Rc::new(LiveQuery::new(&self.schema, query, self.sql(imports)?));
        let mut kept = self.live.0.borrow_mut();
        if kept.len() >= COMPILED_MAX {
            kept.clear();
        }
        kept.insert(text, made.clone());
        Ok(made)
    }
}

/// What was found out of a table since a version.
type Found<T> = RefCell<HashMap<(String, u64), T>>;

/// One state of the database, in which results are compared with former ones.
pub struct LiveView<'a> {
    engine: &'a Engine,
    imports: Imports<'a>,
    sql: &'a Sql,
    view: Box<dyn Snapshot>,
    head: Head,
    images_since: Option<u64>,
    rows_max: u64,
    changed: Found<Option<Rc<Vec<Past>>>>,
    touched: Found<Rc<Vec<Touched>>>,
}

/// A row that changed.
struct Touched {
    /// Its primary key, as JSON.
    key: String,
    before: Option<Row>,
    now: Option<Row>,
}

/// Predicates without tables need nobody to look.
struct Nowhere;

impl Lookup for Nowhere {
    type Error = BindError;

    fn exists(&self, _: &Exists, _: &Row, _: &Bindings<'_>) -> Result<bool, BindError> {
        Ok(false)
    }
}

impl<'a> LiveView<'a> {
    /// Opens a view of now. `rows_max`: rows of a result.
    pub fn open(engine: &'a Engine, imports: Imports<'a>, rows_max: u64) -> Result<Self, Failure> {
        let sql = engine.sql(imports)?;
        let view = imports.executor.snapshot(DATABASE)?;
        let head = changes::head(sql, view.as_ref())?;
        let images_since = past::images_since(sql, view.as_ref())?;
        let (changed, touched) = Default::default();
        Ok(Self { engine, imports, sql, view, head, images_since, rows_max, changed, touched })
    }

    /// The version that is seen.
    pub fn version(&self) -> u64 {
        self.head.version
    }

    /// Whether an open range hides versions that are there. Results then come whole, and nothing can be built on them.
    pub fn is_held(&self) -> bool {
        self.head.version < self.head.last
    }

    /// What became of a result since a version; none: nothing was known of it.
    pub fn since(&self, live: &LiveQuery, bindings: &Bindings<'_>, base: Option<u64>) -> Result<LiveChange, QueryRefused> {
        if self.is_held() {
            return Ok(LiveChange::Rows(self.rows_before_range(live, bindings)?));
        }
        let Some(base) = base.filter(|base| self.knows(*base)) else { return Ok(LiveChange::Rows(self.rows(live, bindings)?)) };
        let mut changed = Vec::new();
        for table in live.tables().iter().filter_map(|name| self.engine.schema.table(name)) {
            match self.changed(table, base)? {
                Some(rows) if rows.is_empty() => {}
                Some(rows) => changed.push((table, rows)),
                None => return Ok(LiveChange::Rows(self.rows(live, bindings)?)),
            }
        }
        if changed.is_empty() {
            return Ok(LiveChange::Same);
        }
        if let (Some(own), [(table, rows)]) = (&live.own, changed.as_slice()) {
            let touched = self.touched(table, base, rows)?;
            let found = self.concerned(live, own, &touched, bindings)?;
            if found.is_empty() {
                return Ok(LiveChange::Same);
            }
            if let Some(key) = live.key.as_ref().filter(|_| live.is_whole()) {
                return self.diff_of_rows(live, key, &found, bindings);
            }
        }
        self.compared(live, bindings, &changed)
    }

    /// Whether the log tells what changed since a version.
    fn knows(&self, base: u64) -> bool {
        base >= self.head.min_version && base <= self.head.version && self.images_since.is_some_and(|since| since <= base)
    }

    /// The rows of a table that changed since a version; none: too many, or it cannot be told.
    fn changed(&self, table: &Table, base: u64) -> Result<Option<Rc<Vec<Past>>>, Failure> {
        let place = (table.name.clone(), base);
        if let Some(known) = self.changed.borrow().get(&place) {
            return Ok(known.clone());
        }
        let found = changes::changed_since(self.sql, self.view.as_ref(), &table.name, base)?.map(Rc::new);
        self.changed.borrow_mut().insert(place, found.clone());
        Ok(found)
    }

    /// The same rows as they were and as they are.
    fn touched(&self, table: &Table, base: u64, changed: &[Past]) -> Result<Rc<Vec<Touched>>, Failure> {
        let place = (table.name.clone(), base);
        if let Some(known) = self.touched.borrow().get(&place) {
            return Ok(known.clone());
        }
        let mut touched = Vec::with_capacity(changed.len());
        for row in changed {
            touched.push(Touched { key: row.key.clone(), before: row.row.as_deref().map(past::image).transpose()?, now: None });
        }
        let empty = Map::new();
        let statement = compile_rows_where(self.sql, table, &Predicate::Const(true));
        let statement = statement.statement(&Bindings::of_context(&empty), &[Value::Text(keys_json(changed))]);
        let statement = statement.map_err(|error| Failure::Unexpected(error.to_string()))?;
        for cells in store::checked(self.view.query(statement, None)?)? {
            let position = changes::position(self.sql, &cells[0])?;
            let row = touched.get_mut(position).ok_or_else(|| Failure::Unexpected("a row beside the list".into()))?;
            row.now = Some(row_of(table, &cells[1..]));
        }
        let touched = Rc::new(touched);
        self.touched.borrow_mut().insert(place, touched.clone());
        Ok(touched)
    }

    /// Which of the rows that changed have to do with a result: they belong to it, or did, and differ in what it shows. With each
    /// stands whether it belongs to it now.
    fn concerned<'t>(
        &self,
        live: &LiveQuery,
        own: &Predicate,
        touched: &'t [Touched],
        bindings: &Bindings<'_>,
    ) -> Result<BTreeMap<&'t str, bool>, QueryRefused> {
        let belongs = |row: &Option<Row>| row.as_ref().map_or(Ok(false), |row| evaluate(own, row, bindings, &Nowhere));
        let mut found = BTreeMap::new();
        for row in touched {
            let (before, now) = (belongs(&row.before)?, belongs(&row.now)?);
            let differs = || match (&row.before, &row.now) {
                (Some(before), Some(now)) => live.columns.iter().any(|name| before.get(name) != now.get(name)),
                _ => true,
            };
            if before != now || now && differs() {
                found.insert(row.key.as_str(), now);
            }
        }
        Ok(found)
    }

    /// How a result differs, of which every row stands for itself, from the rows that changed.
    fn diff_of_rows(
        &self,
        live: &LiveQuery,
        key: &[String],
        concerned: &BTreeMap<&str, bool>,
        bindings: &Bindings<'_>,
    ) -> Result<LiveChange, QueryRefused> {
        let mut diff = LiveDiff::default();
        for row in self.rows(live, bindings)? {
            let key = key_of(&row, key);
            if concerned.contains_key(key.as_str()) {
                diff.put.push(row);
            }
            diff.order.push(key);
        }
        diff.del = concerned.iter().filter(|(_, belongs)| !**belongs).map(|(key, _)| (*key).to_owned()).collect();
        Ok(LiveChange::Diff(diff))
    }

    /// Runs a query over the tables as they were, and compares.
    fn compared(
        &self,
        live: &LiveQuery,
        bindings: &Bindings<'_>,
        changed: &[(&'a Table, Rc<Vec<Past>>)],
    ) -> Result<LiveChange, QueryRefused> {
        let now = self.rows(live, bindings)?;
        let mut tables = PastTables::new(self.engine, self.sql);
        for (table, rows) in changed {
            tables.add(table, rows)?;
        }
        let compiled = tables.compile(&live.query);
        let statement = compiled.statement_given(bindings, &tables.given())?;
        let before = match self.run(&compiled, statement) {
            // The former result was too large to be compared.
            Err(QueryRefused::TooMuch(_)) => return Ok(LiveChange::Rows(now)),
            before => before?,
        };
        let Some(key) = &live.key else {
            return Ok(if before == now { LiveChange::Same } else { LiveChange::Rows(now) });
        };
        let order_before: Vec<String> = before.iter().map(|row| key_of(row, key)).collect();
        let mut left: HashMap<String, Row> = order_before.iter().cloned().zip(before).collect();
        let mut diff = LiveDiff::default();
        for row in now {
            let key = key_of(&row, key);
            if left.remove(&key).as_ref() != Some(&row) {
                diff.put.push(row);
            }
            diff.order.push(key);
        }
        diff.del = left.into_keys().collect();
        diff.del.sort_unstable();
        Ok(if diff.is_empty() && diff.order == order_before { LiveChange::Same } else { LiveChange::Diff(diff) })
    }

    /// The result without the versions above an open range.
    fn rows_before_range(&self, live: &LiveQuery, bindings: &Bindings<'_>) -> Result<Vec<Row>, QueryRefused> {
        match self.engine.past(self.imports, self.sql, self.view.as_ref(), live.tables().iter(), self.head.version) {
            Ok(past) => {
                let compiled = past.compile(&live.query);
                self.run(&compiled, compiled.statement_given(bindings, &past.given())?)
            }
            // Without images the present is what can be said.
            Err(QueryRefused::Compacted(_)) => self.rows(live, bindings),
            Err(refused) => Err(refused),
        }
    }

    /// The result as it is.
    fn rows(&self, live: &LiveQuery, bindings: &Bindings<'_>) -> Result<Vec<Row>, QueryRefused> {
        self.run(&live.compiled, live.compiled.statement(bindings)?)
    }

    fn run(&self, compiled: &CompiledQuery, statement: Statement) -> Result<Vec<Row>, QueryRefused> {
        let limit = u32::try_from(self.rows_max).unwrap_or(u32::MAX);
        let found = self.view.query(statement, Some(limit)).map_err(|error| too_much(self.imports, error))?;
        if found.truncated {
            return Err(QueryRefused::TooMuch("the result has more rows than live.maxRows"));
        }
        Ok(compiled.rows(&found))
    }
}

/// The primary key of a row of a result, as JSON.
fn key_of(row: &Row, key: &[String]) -> String {
    let values: Vec<Json> = key.iter().map(|name| row.get(name).cloned().unwrap_or(Json::Null)).collect();
    pk_json(&values)
}
