//! Random schemas, rows and queries, and what the queries must give by the plainest of means. Tests run the same cases
//! on every database.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::evaluate::value_order;
use super::query::{Aggregate, AggregateFunction, Field, OrderKey, OrderTerm, Query, Related};
use super::query_sql::with_read_auth;
use super::{BindError, Bindings, Exists, Lookup, Predicate, evaluate, is_comparable, parse_query};
use crate::imports::{Dialect, Statement, Value};
use crate::plasma::envelope::EnvelopeLimits;
use crate::plasma::schema::{
    Column, ColumnType, RelationKind, Schema, Table, bulk_cell, bulk_value, cast, complete_row, quoted, real_json, table_name, to_sql,
};

type Row = Map<String, Json>;

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, in_hundred: usize) -> bool {
        self.below(100) < in_hundred
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

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

/// Types of columns that can be compared.
const COMPARABLE: [ColumnType; 7] = [
    ColumnType::Text,
    ColumnType::Integer,
    ColumnType::Bigint,
    ColumnType::Real,
    ColumnType::Boolean,
    ColumnType::Timestamp,
    ColumnType::Bytes,
];
const TEXTS: [&str; 16] = ["", "a", "A", "ab", "a*b", "a%b", "a_b", "a?b", "[a]", "\\", "é", "É", "\u{ffff}", "😀", "\"q\"\n'", "10"];
const PATTERNS: [&str; 14] = ["%", "a%", "A%", "%b", "a_b", "a\\%b", "_", "__", "[a]", "\\\\", "é", "%*%", "%\\_%", "a?b%"];
const BIGINTS: [&str; 9] = ["0", "1", "-1", "9", "10", "-10", "-9", "123456789012345678901234567890", "-123456789012345678901234567890"];

fn value(random: &mut Random, column_type: ColumnType) -> Json {
    match column_type {
        ColumnType::Text => json!(random.pick(&TEXTS)),
        ColumnType::Integer | ColumnType::Timestamp => json!(random.pick(&[-2, -1, 0, 1, 2, 3, 9_007_199_254_740_991_i64])),
        ColumnType::Bigint => json!(random.pick(&BIGINTS)),
        // Sums of these are exact, in whatever order.
        ColumnType::Real => json!(random.pick(&[-2.0, -0.5, 0.0, 0.25, 1.0, 2.0, 1024.75])),
        ColumnType::Boolean => json!(random.chance(50)),
        ColumnType::Bytes => json!(random.pick(&["", "AA==", "AAE=", "/w==", "/w8="])),
        ColumnType::File => json!({ "hash": "ab".repeat(32), "size": random.below(3), "name": random.pick(&TEXTS) }),
        ColumnType::Json => random
            .pick(&[
                json!({ "a": "x", "b": [1, 2.5, { "c": null }] }),
                json!({ "a": true, "n": 1e300, "é": 1 }),
                json!({ "a": 10, "b": [] }),
                json!({ "a": 0.000001, "0": "zero", "": "none" }),
                json!({ "a": { "a": "ab" }, "b": ["a", "ab"] }),
                json!({ "a": null }),
                json!(["a", 1.0, -0.0, 18_446_744_073_709_551_615_u64]),
                json!("a"),
                json!(10),
                json!(false),
            ])
            .clone(),
    }
}

fn rows(random: &mut Random, table: &Table) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for _ in 0..random.below(14) {
        let mut row = Row::new();
        for column in &table.columns {
            let is_null = column.nullable && random.chance(25);
            row.insert(column.name.clone(), if is_null { Json::Null } else { value(random, column.column_type) });
        }
        let row = complete_row(table, &row, &EnvelopeLimits::default()).unwrap();
        rows.insert(Json::from(table.key_of(&row)).to_string(), row);
    }
    rows.into_values().collect()
}

fn table_json(random: &mut Random, name: &str) -> Json {
    let key_types = [ColumnType::Text, ColumnType::Integer, ColumnType::Bigint, ColumnType::Boolean];
    let mut columns = Row::new();
    let mut key = Vec::new();
    for position in 0..1 + random.below(2) {
        columns.insert(format!("k{position}"), json!({ "type": random.pick(&key_types).name() }));
        key.push(format!("k{position}"));
    }
    for (position, column_type) in ColumnType::ALL.into_iter().enumerate() {
        if random.chance(60) {
            columns.insert(format!("v{position}"), json!({ "type": column_type.name(), "nullable": random.chance(60) }));
        }
    }
    columns.insert("Same".into(), json!({ "type": "text", "nullable": name == "b" }));
    json!({ "columns": columns, "primaryKey": key, "indexes": { "same": { "columns": ["Same"] } } })
}

/// Two columns that can be compared, one of each table.
fn pair<'a>(random: &mut Random, left: &'a Table, right: &'a Table) -> (&'a Column, &'a Column) {
    let comparable = |table: &'a Table| table.columns.iter().filter(|column| is_comparable(column.column_type));
    let pairs = comparable(left).flat_map(|one| comparable(right).map(move |other| (one, other)));
    let pairs: Vec<_> = pairs.filter(|(one, other)| super::are_comparable(one.column_type, other.column_type)).collect();
    *random.pick(&pairs)
}

fn relation_json(random: &mut Random, schema: &Schema, table: &Table) -> Option<Json> {
    let other = random.pick(schema.tables());
    let (from, to) = pair(random, table, other);
    let kind = if random.chance(50) { "one" } else { "many" };
    random.chance(80).then(|| json!({ "kind": kind, "table": other.name, "from": [from.name], "to": [to.name] }))
}

fn predicate(random: &mut Random, schema: &Schema, table: &Table, depth: usize, parameters: bool) -> Json {
    scoped_predicate(random, schema, table, None, depth, parameters)
}

fn scoped_predicate(random: &mut Random, schema: &Schema, table: &Table, outer: Option<&Table>, depth: usize, parameters: bool) -> Json {
    let part = |random: &mut Random| scoped_predicate(random, schema, table, outer, depth - 1, parameters);
    match if depth == 0 { 9 } else { random.below(12) } {
        0 => json!({ "const": random.chance(60) }),
        1 => json!({ "and": (0..random.below(3)).map(|_| part(random)).collect::<Json>() }),
        2 => json!({ "or": (0..random.below(3)).map(|_| part(random)).collect::<Json>() }),
        3 => json!({ "not": part(random) }),
        4 | 5 => {
            let other = random.pick(schema.tables());
            let (left, right) = pair(random, other, table);
            let joined = json!({ "op": "=", "left": { "col": left.name }, "right": { "outer": right.name } });
            let more = scoped_predicate(random, schema, other, Some(table), depth - 1, parameters);
            json!({ "exists": { "table": other.name, "where": { "and": [joined, more] } } })
        }
        _ => comparison(random, table, outer, parameters),
    }
}

fn comparison(random: &mut Random, table: &Table, outer: Option<&Table>, parameters: bool) -> Json {
    let (key, row) = match outer {
        Some(outer) if random.chance(20) => ("outer", outer),
        _ => ("col", table),
    };
    let column = random.pick(&row.columns);
    let mut left = json!({ key: column.name });
    if random.chance(8) {
        return json!({ "op": random.pick(&["=", "!=", "<", "in"]), "left": { "ctx": "user" }, "right": { "ctx": random.pick(&["user", "list", "none"]) } });
    }
    if random.chance(15) {
        return json!({ "op": random.pick(&["isNull", "isNotNull"]), "left": left });
    }
    if random.chance(10) {
        return json!({ "op": random.pick(&["=", "!="]), "left": left, "right": { "val": null } });
    }
    let mut column_type = column.column_type;
    if !is_comparable(column_type) {
        column_type = ColumnType::Text;
        let paths = [
            json!(["a"]),
            json!(["b", 0]),
            json!([0]),
            json!(["b", 2, "c"]),
            json!(["n"]),
            json!(["é"]),
            json!(["0"]),
            json!(["name"]),
            json!([""]),
            json!([""]),
            json!([2]),
        ];
        left["path"] = random.pick(&paths).clone();
        if random.chance(20) {
            return json!({ "op": random.pick(&["isNull", "isNotNull"]), "left": left });
        }
    }
    if column_type == ColumnType::Text && random.chance(35) {
        let operator = *random.pick(&["like", "ilike", "startsWith", "contains"]);
        let right = match operator {
            "like" | "ilike" => json!({ "val": random.pick(&PATTERNS) }),
            _ => single(random, column_type, parameters),
        };
        return json!({ "op": operator, "left": left, "right": right });
    }
    if random.chance(20) {
        let others: Vec<&Column> = table.columns.iter().filter(|other| super::are_comparable(column_type, other.column_type)).collect();
        if !others.is_empty() {
            let other = random.pick(&others);
            return json!({ "op": random.pick(&["=", "!=", "<", "<=", ">", ">="]), "left": left, "right": { "col": other.name } });
        }
    }
    if random.chance(25) {
        let list: Json = (0..random.below(5)).map(|_| if random.chance(10) { Json::Null } else { value(random, column_type) }).collect();
        let right = match random.below(4) {
            0 => json!({ "ctx": random.pick(&["list", "mixed", "none", "user"]) }),
            1 if parameters => json!({ "param": format!("{}s", column_type.name()) }),
            _ => json!({ "val": list }),
        };
        return json!({ "op": random.pick(&["in", "notIn"]), "left": left, "right": right });
    }
    let operator = *random.pick(&["=", "!=", "<", "<=", ">", ">="]);
    let right = single(random, column_type, parameters);
    if random.chance(15) {
        json!({ "op": operator, "left": right, "right": left })
    } else {
        json!({ "op": operator, "left": left, "right": right })
    }
}

fn single(random: &mut Random, column_type: ColumnType, parameters: bool) -> Json {
    match random.below(5) {
        0 => json!({ "ctx": random.pick(&["user", "number", "deep.x", "on", "none", "list"]) }),
        1 if parameters => json!({ "param": column_type.name() }),
        _ => json!({ "val": value(random, column_type) }),
    }
}

fn names(random: &mut Random, columns: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = columns.iter().filter(|_| random.chance(40)).map(|name| (*name).to_owned()).collect();
    if names.is_empty() {
        names.push((*random.pick(columns)).to_owned());
    }
    names
}

fn order_by(random: &mut Random, columns: &[&str]) -> Json {
    (0..random.below(3)).map(|_| json!([random.pick(columns), random.pick(&["asc", "desc"])])).collect()
}

fn sortable(table: &Table) -> Vec<&str> {
    table.columns.iter().filter(|column| is_comparable(column.column_type)).map(|column| column.name.as_str()).collect()
}

fn all(table: &Table) -> Vec<&str> {
    table.columns.iter().map(|column| column.name.as_str()).collect()
}

fn plain_query(random: &mut Random, schema: &Schema, table: &Table) -> Json {
    let mut query = json!({ "orderBy": order_by(random, &sortable(table)) });
    if random.chance(60) {
        query["select"] = json!(names(random, &all(table)));
    }
    if random.chance(40) {
        let other = random.pick(schema.tables());
        let (left, right) = pair(random, table, other);
        query["joins"] =
            json!([{ "type": random.pick(&["inner", "left"]), "table": other.name, "as": "x", "on": [[left.name, right.name]] }]);
        let (own, joined): (String, String) = ((*random.pick(&all(table))).into(), format!("x.{}", random.pick(&all(other))));
        query["select"] = json!([own, joined]);
        query["orderBy"] = json!([[format!("x.{}", random.pick(&sortable(other))), random.pick(&["asc", "desc"])]]);
    }
    if random.chance(40) {
        let related = if table.relations.is_empty() || random.chance(40) { "more" } else { "others" };
        let mut relation = json!({});
        let mut other = table.relations.get("others").and_then(|relation| schema.table(&relation.table)).unwrap_or(table);
        if related == "more" {
            other = random.pick(schema.tables());
            let (from, to) = pair(random, table, other);
            relation = json!({ "table": other.name, "from": [from.name], "to": [to.name] });
        }
        if random.chance(50) {
            relation["select"] = json!(names(random, &all(other)));
        }
        if random.chance(50) {
            relation["where"] = predicate(random, schema, other, 2, true);
        }
        relation["orderBy"] = order_by(random, &sortable(other));
        if random.chance(40) {
            relation["limit"] = json!(random.below(3));
        }
        query["related"] = json!({ related: relation });
    }
    query
}

fn distinct_query(random: &mut Random, table: &Table) -> Json {
    let select = names(random, &sortable(table));
    let given: Vec<&str> = select.iter().map(String::as_str).collect();
    json!({ "distinct": true, "select": select, "orderBy": order_by(random, &given) })
}

fn grouped_query(random: &mut Random, table: &Table) -> Json {
    let group = names(random, &sortable(table));
    let mut given: Vec<&str> = group.iter().map(String::as_str).collect();
    let mut aggregates = json!({ "n": { "fn": "count" } });
    for (position, column) in table.columns.iter().enumerate() {
        use ColumnType::{Bigint, Integer, Real, Text, Timestamp};
        let functions: &[&str] = match column.column_type {
            Integer | Timestamp | Real => &["count", "sum", "avg", "min", "max"],
            Bigint | Text => &["count", "min", "max"],
            _ => &["count"],
        };
        if random.chance(40) {
            aggregates[format!("x{position}")] = json!({ "fn": random.pick(functions), "col": column.name, "distinct": random.chance(30) });
        }
    }
    let mut query = json!({ "aggregates": aggregates });
    if random.chance(70) {
        query["groupBy"] = json!(group);
    } else {
        given.clear();
    }
    given.push("n");
    query["orderBy"] = order_by(random, &given);
    if random.chance(50) {
        query["having"] = json!({ "op": random.pick(&[">", "<=", "!="]), "left": { "col": "n" }, "right": { "val": random.below(3) } });
    }
    query
}
