//! Random schemas, rows and queries, and what the queries must give by the plainest of means. Tests run the same cases
//! on every database.

mod generate;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::evaluate::value_order;
use super::query::{Aggregate, AggregateFunction, Field, OrderKey, OrderTerm, Query, Related};
use super::query_sql::with_read_auth;
use super::{BindError, Bindings, Exists, Lookup, Predicate, evaluate, parse_query};
use crate::imports::{Dialect, Statement, Value};
use crate::plasma::schema::{
    Column, ColumnType, RelationKind, Schema, Table, bulk_cell, bulk_value, cast, quoted, real_json, table_name, to_sql,
};

pub use generate::Random;
use generate::{COMPARABLE, distinct_query, grouped_query, plain_query, predicate, relation_json, rows, table_json, value};

type Row = Map<String, Json>;

/// A schema with rows, and a caller.
pub struct Case {
    /// Tables, some with read predicates.
    pub schema: Schema,
    /// Rows by table, complete and in normal form.
    pub rows: BTreeMap<String, Vec<Row>>,
    /// The caller's context.
    pub context: Row,
    /// Parameters of queries.
    pub parameters: Row,
}

impl Case {
    /// A case by its seed.
    pub fn generate(random: &mut Random) -> Self {
        let tables: Map<String, Json> = ["a", "b", "c"].map(|name| (name.to_owned(), table_json(random, name))).into_iter().collect();
        let open = parse(&json!({ "tables": tables }));
        let mut tables = tables;
        for table in open.tables() {
            if random.chance(60) {
                let read = predicate(random, &open, table, 2, false);
                tables[&table.name]["auth"] = json!({ "read": read });
            }
            if let Some(relation) = relation_json(random, &open, table) {
                tables[&table.name]["relations"] = json!({ "others": relation });
            }
        }
        let schema = parse(&json!({ "tables": tables }));
        let rows = schema.tables().iter().map(|table| (table.name.clone(), rows(random, table))).collect();
        let context =
            json!({ "user": "a", "number": 2, "list": ["a", "ab", null], "mixed": [1, "a", true, 2], "deep": { "x": "a*b" }, "on": true });
        let mut parameters = Row::new();
        for column_type in COMPARABLE {
            parameters.insert(column_type.name().into(), value(random, column_type));
            parameters.insert(format!("{}s", column_type.name()), (0..random.below(4)).map(|_| value(random, column_type)).collect());
        }
        let Json::Object(context) = context else { unreachable!("an object was written") };
        Self { schema, rows, context, parameters }
    }

    /// Where values of queries come from.
    pub fn bindings(&self) -> Bindings<'_> {
        Bindings { parameters: Some(&self.parameters), ..Bindings::of_context(&self.context) }
    }

    /// Statements that insert all rows: value by value, or in bulk.
    pub fn inserts(&self, dialect: Dialect, prefix: &str) -> Vec<Statement> {
        let tables = self.schema.tables().iter().enumerate();
        tables.flat_map(|(position, table)| inserts(table, &self.rows[&table.name], dialect, prefix, position == 0)).collect()
    }

    /// A query as a client would send it.
    pub fn query(&self, random: &mut Random) -> Json {
        let table = random.pick(self.schema.tables());
        let mut query = match random.below(4) {
            0 => distinct_query(random, table),
            1 => grouped_query(random, table),
            _ => plain_query(random, &self.schema, table),
        };
        query["from"] = json!(table.name);
        if random.chance(70) {
            query["where"] = predicate(random, &self.schema, table, 3, true);
        }
        if random.chance(40) {
            query["limit"] = json!(random.below(6));
        }
        if random.chance(20) {
            query["offset"] = json!(random.below(4));
        }
        let parsed = parse_query(&self.schema, &query).unwrap_or_else(|error| panic!("{error} in {query}"));
        if !parsed.distinct && !parsed.grouped && random.chance(40) {
            let unlimited = Query { limit: None, offset: None, ..parsed.clone() };
            let rows = self.joined(&unlimited, true);
            if !rows.is_empty() {
                let row = random.pick(&rows);
                query["after"] = parsed.order.iter().map(|term| order_value(term, row)).collect();
            }
        }
        query
    }

    /// What a query must give.
    pub fn expected(&self, query: &Query, read_auth: bool) -> Vec<Row> {
        let rows = self.joined(query, read_auth);
        let mut rows: Vec<Row> = if query.grouped {
            self.groups(query, rows)
        } else if query.distinct {
            let mut given: Vec<Row> = rows.iter().map(|row| selected(&query.select, row)).collect();
            given.sort_by(|left, right| by_order(&query.order, left, right, query));
            given.dedup();
            given
        } else {
            rows.iter().map(|row| self.with_related(query, row, read_auth)).collect()
        };
        let offset = query.offset.unwrap_or(0).min(rows.len() as i64) as usize;
        rows.drain(..offset);
        rows.truncate(query.limit.map_or(usize::MAX, |limit| limit as usize));
        rows
    }

    /// The rows that a query reads, with the columns of joined ones, sorted.
    fn joined(&self, query: &Query, read_auth: bool) -> Vec<Row> {
        let mut rows = self.visible(&query.from, read_auth);
        for join in &query.joins {
            let others = self.visible(&join.table, read_auth);
            let names: Vec<&String> = self.schema.table(&join.table).unwrap().columns.iter().map(|column| &column.name).collect();
            let with = |row: &Row, other: Option<&Row>| {
                let cells =
                    names.iter().map(|name| (format!("{}.{name}", join.alias), other.map_or(Json::Null, |other| other[*name].clone())));
                row.clone().into_iter().chain(cells).collect::<Row>()
            };
            let joined = rows.iter().flat_map(|row| {
                let fits = |other: &&Row| {
                    join.on.iter().all(|(left, right)| {
                        value_order(left.column.column_type, &row[&left.name], &other[&right.column.name]) == Some(Ordering::Equal)
                    })
                };
                let mut found: Vec<Row> = others.iter().filter(fits).map(|other| with(row, Some(other))).collect();
                if found.is_empty() && join.left {
                    found.push(with(row, None));
                }
                found
            });
            rows = joined.collect();
        }
        let condition = if read_auth { with_read_auth(&self.schema, &query.condition) } else { query.condition.clone() };
        rows.retain(|row| self.holds(&condition, row));
        if let Some(after) = &query.after {
            let last: Row = query.order.iter().zip(after).map(|(term, value)| (term_name(term, query), value.clone())).collect();
            rows.retain(|row| by_order(&query.order, row, &last, query).is_gt());
        }
        if !query.grouped && !query.distinct {
            rows.sort_by(|left, right| by_order(&query.order, left, right, query));
        }
        rows
    }

    fn visible(&self, table: &str, read_auth: bool) -> Vec<Row> {
        let read = &self.schema.table(table).unwrap().auth.read;
        self.rows[table].iter().filter(|row| !read_auth || self.holds(read, row)).cloned().collect()
    }

    fn holds(&self, predicate: &Predicate, row: &Row) -> bool {
        evaluate(predicate, row, &self.bindings(), self).unwrap()
    }

    fn with_related(&self, query: &Query, row: &Row, read_auth: bool) -> Row {
        let mut given = selected(&query.select, row);
        for related in &query.related {
            given.insert(related.name.clone(), self.related(related, row, read_auth));
        }
        given
    }

    fn related(&self, related: &Related, row: &Row, read_auth: bool) -> Json {
        let condition = if read_auth { with_read_auth(&self.schema, &related.condition) } else { related.condition.clone() };
        let table = self.schema.table(&related.table).unwrap();
        let mut rows = self.visible(&related.table, read_auth);
        rows.retain(|other| {
            let pairs = related.from.iter().zip(&related.to);
            let equal = |(from, to): (&String, &String)| value_order(table.column(to).unwrap().column_type, &row[from], &other[to]);
            pairs.into_iter().all(|pair| equal(pair) == Some(Ordering::Equal)) && self.holds(&condition, other)
        });
        rows.sort_by(|left, right| {
            let terms = related.order.iter();
            terms.fold(Ordering::Equal, |order, (column, descending)| {
                order.then_with(|| in_order(column.column_type, *descending, &left[&column.name], &right[&column.name]))
            })
        });
        let limit = if related.kind == RelationKind::One { Some(related.limit.unwrap_or(1).min(1)) } else { related.limit };
        rows.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
        let select =
            |row: Row| Json::Object(related.select.iter().map(|column| (column.name.clone(), row[&column.name].clone())).collect());
        let mut rows: Vec<Json> = rows.into_iter().map(select).collect();
        if related.kind == RelationKind::One { rows.pop().unwrap_or(Json::Null) } else { Json::Array(rows) }
    }

    fn groups(&self, query: &Query, rows: Vec<Row>) -> Vec<Row> {
        let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        if query.group.is_empty() {
            groups.insert(String::new(), Vec::new());
        }
        for row in rows {
            let key: Json = query.group.iter().map(|field| row[&field.name].clone()).collect();
            groups.entry(if query.group.is_empty() { String::new() } else { key.to_string() }).or_default().push(row);
        }
        let group = |rows: Vec<Row>| {
            let mut given = rows.first().map_or_else(Row::new, |row| selected(&query.group, row));
            given.extend(query.aggregates.iter().map(|aggregate| (aggregate.name.clone(), aggregated(aggregate, &rows))));
            given
        };
        let mut groups: Vec<Row> = groups.into_values().map(group).filter(|group| self.holds(&query.having, group)).collect();
        groups.sort_by(|left, right| by_order(&query.order, left, right, query));
        let shown = |name: &String| {
            query.select.iter().any(|field| field.name == *name) || query.aggregates.iter().any(|aggregate| aggregate.name == *name)
        };
        groups.into_iter().map(|group| group.into_iter().filter(|(name, _)| shown(name)).collect()).collect()
    }
}

impl Lookup for Case {
    type Error = BindError;

    fn exists(&self, exists: &Exists, outer: &Row, bindings: &Bindings<'_>) -> Result<bool, BindError> {
        let bindings = Bindings { outer: Some(outer), ..*bindings };
        self.rows[&exists.table].iter().try_fold(false, |found, row| Ok(found || evaluate(&exists.condition, row, &bindings, self)?))
    }
}

fn parse(source: &Json) -> Schema {
    Schema::parse(source, "schema").unwrap_or_else(|problems| panic!("{problems:?} in {source}"))
}

fn selected(fields: &[Field], row: &Row) -> Row {
    fields.iter().map(|field| (field.name.clone(), row[&field.name].clone())).collect()
}

fn term_name(term: &OrderTerm, query: &Query) -> String {
    match &term.key {
        OrderKey::Field(field) => field.name.clone(),
        OrderKey::Aggregate(position) => query.aggregates[*position].name.clone(),
    }
}

fn order_value(term: &OrderTerm, row: &Row) -> Json {
    match &term.key {
        OrderKey::Field(field) => row[&field.name].clone(),
        OrderKey::Aggregate(_) => Json::Null,
    }
}

fn by_order(order: &[OrderTerm], left: &Row, right: &Row, query: &Query) -> Ordering {
    order.iter().fold(Ordering::Equal, |found, term| {
        let column_type = match &term.key {
            OrderKey::Field(field) => field.column.column_type,
            OrderKey::Aggregate(position) => query.aggregates[*position].column_type(),
        };
        let name = term_name(term, query);
        found.then_with(|| in_order(column_type, term.descending, &left[&name], &right[&name]))
    })
}

fn in_order(column_type: ColumnType, descending: bool, left: &Json, right: &Json) -> Ordering {
    let order = match (left.is_null(), right.is_null()) {
        (false, false) => value_order(column_type, left, right).unwrap_or(Ordering::Equal),
        (left, right) => right.cmp(&left),
    };
    if descending { order.reverse() } else { order }
}

fn aggregated(aggregate: &Aggregate, rows: &[Row]) -> Json {
    let Some(field) = &aggregate.field else { return rows.len().into() };
    let mut values: Vec<&Json> = rows.iter().map(|row| &row[&field.name]).filter(|value| !value.is_null()).collect();
    let column_type = field.column.column_type;
    values.sort_by(|left, right| value_order(column_type, left, right).unwrap_or_else(|| left.to_string().cmp(&right.to_string())));
    if aggregate.distinct {
        values.dedup();
    }
    let is_whole = column_type != ColumnType::Real;
    let whole = values.iter().filter_map(|value| value.as_i64()).sum::<i64>();
    let sum = if is_whole { whole as f64 } else { values.iter().filter_map(|value| value.as_f64()).sum() };
    match aggregate.function {
        AggregateFunction::Count => values.len().into(),
        _ if values.is_empty() => Json::Null,
        AggregateFunction::Sum if is_whole => whole.into(),
        AggregateFunction::Sum => real_json(sum),
        AggregateFunction::Average => real_json(sum / values.len() as f64),
        AggregateFunction::Minimum => values[0].clone(),
        AggregateFunction::Maximum => values[values.len() - 1].clone(),
    }
}

fn inserts(table: &Table, rows: &[Row], dialect: Dialect, prefix: &str, in_bulk: bool) -> Vec<Statement> {
    let names: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let into = format!("INSERT INTO {} ({})", table_name(prefix, &table.name), names.join(", "));
    if in_bulk {
        let cells = |row: &Row| table.columns.iter().map(|column| bulk_value(column, &row[&column.name])).collect::<Json>();
        let all: Json = rows.iter().map(cells).collect();
        let (array, source) = match dialect {
            Dialect::Sqlite => ("\"each\".\"value\"", "json_each(?) AS \"each\""),
            Dialect::Postgres => ("\"each\".\"value\"", "json_array_elements($1::text::json) AS \"each\"(\"value\")"),
        };
        let values: Vec<String> =
            table.columns.iter().enumerate().map(|(position, column)| bulk_cell(column, array, position, dialect)).collect();
        let sql = format!("{into} SELECT {} FROM {source}", values.join(", "));
        return vec![Statement { sql, parameters: vec![Value::Text(all.to_string())] }];
    }
    let placeholder = |(position, column): (usize, &Column)| match dialect {
        Dialect::Sqlite => "?".to_owned(),
        Dialect::Postgres => format!("${}{}", position + 1, cast(column, dialect)),
    };
    let placeholders: Vec<String> = table.columns.iter().enumerate().map(placeholder).collect();
    let sql = format!("{into} VALUES ({})", placeholders.join(", "));
    let statement = |row: &Row| Statement {
        sql: sql.clone(),
        parameters: table.columns.iter().map(|column| to_sql(column, &row[&column.name])).collect(),
    };
    rows.iter().map(statement).collect()
}
