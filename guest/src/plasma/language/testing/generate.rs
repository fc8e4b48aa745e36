//! Random numbers, and what is made of them: schemas, rows, predicates and queries.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::Row;
use crate::plasma::envelope::EnvelopeLimits;
use crate::plasma::language::{are_comparable, is_comparable};
use crate::plasma::schema::{Column, ColumnType, Schema, Table, complete_row};

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

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(super) fn chance(&mut self, in_hundred: usize) -> bool {
        self.below(100) < in_hundred
    }

    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// Types of columns that can be compared.
pub(super) const COMPARABLE: [ColumnType; 7] = [
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

pub(super) fn value(random: &mut Random, column_type: ColumnType) -> Json {
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

pub(super) fn rows(random: &mut Random, table: &Table) -> Vec<Row> {
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

pub(super) fn table_json(random: &mut Random, name: &str) -> Json {
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
    let pairs: Vec<_> = pairs.filter(|(one, other)| are_comparable(one.column_type, other.column_type)).collect();
    *random.pick(&pairs)
}

pub(super) fn relation_json(random: &mut Random, schema: &Schema, table: &Table) -> Option<Json> {
    let other = random.pick(schema.tables());
    let (from, to) = pair(random, table, other);
    let kind = if random.chance(50) { "one" } else { "many" };
    random.chance(80).then(|| json!({ "kind": kind, "table": other.name, "from": [from.name], "to": [to.name] }))
}

pub(super) fn predicate(random: &mut Random, schema: &Schema, table: &Table, depth: usize, parameters: bool) -> Json {
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
        let others: Vec<&Column> = table.columns.iter().filter(|other| are_comparable(column_type, other.column_type)).collect();
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

pub(super) fn plain_query(random: &mut Random, schema: &Schema, table: &Table) -> Json {
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

pub(super) fn distinct_query(random: &mut Random, table: &Table) -> Json {
    let select = names(random, &sortable(table));
    let given: Vec<&str> = select.iter().map(String::as_str).collect();
    json!({ "distinct": true, "select": select, "orderBy": order_by(random, &given) })
}

pub(super) fn grouped_query(random: &mut Random, table: &Table) -> Json {
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
