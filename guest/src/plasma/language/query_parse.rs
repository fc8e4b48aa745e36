//! Queries from JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::parse::{Shape, known_keys, known_table, parse_with_shape};
use super::query::{Aggregate, AggregateFunction, Field, Join, OrderKey, OrderTerm, Query, Related};
use super::{Allowed, Invalid, Predicate, Target, is_comparable};
use crate::plasma::schema::{Column, ColumnType, Relation, RelationKind, Schema, Table, pair_problem, relation_problem};

/// Entries of each list of a query.
const ENTRIES_MAX: usize = 100;
/// Joins and relations, each; databases plan many joins slowly.
const TABLES_MAX: usize = 10;
/// What a query may name beside `val` and `ctx`.
const ALLOWED: Allowed = Allowed { parameters: true, arguments: false, items: false };
const KEYS: [&str; 13] =
    ["from", "select", "distinct", "where", "orderBy", "limit", "offset", "after", "related", "joins", "groupBy", "aggregates", "having"];

/// Parses and checks a query.
pub fn parse_query(schema: &Schema, source: &Json) -> Result<Query, Invalid> {
    let object = source.as_object().ok_or_else(|| Invalid::new("query", "must be an object"))?;
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(Invalid::new(key, "unknown key"));
    }
    let table = known_table(schema, object.get("from"), "from")?;
    let mut parser = Parser { schema, table, joins: Vec::new() };
    parser.joins(object.get("joins"))?;
    parser.query(object)
}

struct Parser<'a> {
    schema: &'a Schema,
    table: &'a Table,
    joins: Vec<(Join, &'a Table)>,
}

impl<'a> Parser<'a> {
    fn query(self, object: &Map<String, Json>) -> Result<Query, Invalid> {
        let columns = self.columns();
        let condition = parse_condition(self.schema, Shape::Named(&columns), object.get("where"), "where")?;
        let aggregates = self.aggregates(object.get("aggregates"))?;
        let group = self.fields(object.get("groupBy"), "groupBy")?;
        let grouped = group.is_some() || !aggregates.is_empty();
        let distinct = flag(object.get("distinct"), "distinct")?;
        for (key, refused) in
            [("related", grouped || distinct), ("after", grouped || distinct), ("distinct", grouped), ("having", !grouped)]
        {
            if refused && object.contains_key(key) {
                return Err(Invalid::new(key, "has no place in such a query"));
            }
        }
        let group = group.unwrap_or_default();
        let selected = self.fields(object.get("select"), "select")?;
        let select = match selected {
            Some(fields) => fields,
            None if grouped => group.clone(),
            None => self.table.columns.iter().map(|column| field(None, "", column)).collect(),
        };
        if let Some(field) = select.iter().find(|field| grouped && !group.contains(field)) {
            return Err(Invalid::new("select", format!("column {} is not in groupBy", field.name)));
        }
        let having_columns = group.iter().map(|field| (field.name.clone(), field.column.clone()));
        let having_columns =
            having_columns.chain(aggregates.iter().map(|aggregate| (aggregate.name.clone(), aggregate.column()))).collect();
        let having = parse_condition(self.schema, Shape::Named(&having_columns), object.get("having"), "having")?;
        // Where rows are put together only what they are put together by is left to sort by.
        let sortable = (grouped || distinct).then_some(if grouped { &group } else { &select });
        let order_by = self.order_by(object.get("orderBy"), sortable, &aggregates)?;
        let order = self.total_order(&order_by, sortable);
        let after = object.get("after").map(|after| self.after(after, &order_by, &order)).transpose()?;
        let query = Query {
            from: self.table.name.clone(),
            select,
            distinct,
            condition,
            order,
            limit: count(object.get("limit"), "limit")?,
            offset: count(object.get("offset"), "offset")?,
            after,
            related: self.related(object.get("related"))?,
            joins: self.joins.into_iter().map(|(join, _)| join).collect(),
            grouped,
            group,
            aggregates,
            having,
        };
        match query.aggregates.iter().find(|aggregate| query.group.iter().any(|field| field.name == aggregate.name)) {
            Some(aggregate) => Err(Invalid::new(&format!("aggregates.{}", aggregate.name), "has the name of a column of groupBy")),
            None => Ok(query),
        }
    }

    /// Every column that can be named.
    fn columns(&self) -> BTreeMap<String, Column> {
        let own = self.table.columns.iter().map(|column| (column.name.clone(), column.clone()));
        let joined = self
            .joins
            .iter()
            .flat_map(|(join, table)| table.columns.iter().map(|column| (format!("{}.{}", join.alias, column.name), column.clone())));
        own.chain(joined).collect()
    }

    /// A column by its name in the query.
    fn field(&self, name: &str, path: &str) -> Result<Field, Invalid> {
        let found = match name.split_once('.') {
            None => self.table.column(name).map(|column| field(None, "", column)),
            Some((alias, name)) => self.joins.iter().position(|(join, _)| join.alias == alias).and_then(|position| {
                let column = self.joins[position].1.column(name)?;
                Some(field(Some(position), alias, column))
            }),
        };
        found.ok_or_else(|| Invalid::new(path, format!("unknown column {name}")))
    }

    fn fields(&self, source: Option<&Json>, path: &str) -> Result<Option<Vec<Field>>, Invalid> {
        let Some(source) = source else { return Ok(None) };
        let mut fields: Vec<Field> = Vec::new();
        for name in names(source, path)? {
            let field = self.field(name, path)?;
            if fields.contains(&field) {
                return Err(Invalid::new(path, format!("column {name} is named twice")));
            }
            fields.push(field);
        }
        Ok(Some(fields))
    }

    fn joins(&mut self, source: Option<&Json>) -> Result<(), Invalid> {
        let Some(source) = source else { return Ok(()) };
        let joins = source.as_array().filter(|joins| joins.len() <= TABLES_MAX);
        let joins = joins.ok_or_else(|| Invalid::new("joins", format!("must be a list of at most {TABLES_MAX}")))?;
        for (position, source) in joins.iter().enumerate() {
            let path = format!("joins[{position}]");
            let join = self.join(source, &path)?;
            self.joins.push(join);
        }
        Ok(())
    }

    fn join(&self, source: &Json, path: &str) -> Result<(Join, &'a Table), Invalid> {
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        known_keys(object, &["type", "table", "as", "on"], path)?;
        let left = match object.get("type").and_then(Json::as_str) {
            Some("inner") => false,
            Some("left") => true,
            _ => return Err(Invalid::new(&format!("{path}.type"), "must be inner or left")),
        };
        let table = known_table(self.schema, object.get("table"), &format!("{path}.table"))?;
        let alias = object.get("as").and_then(Json::as_str).filter(|alias| is_name(alias));
        let alias = alias.ok_or_else(|| Invalid::new(&format!("{path}.as"), "must be an identifier"))?;
        if self.joins.iter().any(|(join, _)| join.alias == alias) {
            return Err(Invalid::new(&format!("{path}.as"), "is used twice"));
        }
        let on_path = format!("{path}.on");
        let pairs = object.get("on").and_then(Json::as_array).filter(|pairs| !pairs.is_empty() && pairs.len() <= ENTRIES_MAX);
        let pairs = pairs.ok_or_else(|| Invalid::new(&on_path, "must be a list of pairs of columns"))?;
        let pair = |source: &Json| {
            let pair = names(source, &on_path)?;
            let [left, right] = pair[..] else { return Err(Invalid::new(&on_path, "must be a list of pairs of columns")) };
            let left = self.field(left, &on_path)?;
            let right = right.strip_prefix(alias).and_then(|name| name.strip_prefix('.')).unwrap_or(right);
            let column = table.column(right).ok_or_else(|| Invalid::new(&on_path, format!("unknown column {right}")))?;
            match pair_problem(&left.column, column) {
                Some(problem) => Err(Invalid::new(&on_path, problem)),
                None => Ok((left, field(Some(self.joins.len()), alias, column))),
            }
        };
        let on = pairs.iter().map(pair).collect::<Result<_, _>>()?;
        Ok((Join { left, table: table.name.clone(), alias: alias.into(), on }, table))
    }

    fn aggregates(&self, source: Option<&Json>) -> Result<Vec<Aggregate>, Invalid> {
        let entries = entries(source, "aggregates", ENTRIES_MAX)?;
        entries.into_iter().map(|(name, source)| self.aggregate(name, source, &format!("aggregates.{name}"))).collect()
    }

    fn aggregate(&self, name: &str, source: &Json, path: &str) -> Result<Aggregate, Invalid> {
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        known_keys(object, &["fn", "col", "distinct"], path)?;
        let function = match object.get("fn").and_then(Json::as_str) {
            Some("count") => AggregateFunction::Count,
            Some("sum") => AggregateFunction::Sum,
            Some("avg") => AggregateFunction::Average,
            Some("min") => AggregateFunction::Minimum,
            Some("max") => AggregateFunction::Maximum,
            _ => return Err(Invalid::new(&format!("{path}.fn"), "unknown aggregate")),
        };
        let column_path = format!("{path}.col");
        let field = match object.get("col") {
            None => None,
            Some(name) => Some(self.field(name.as_str().unwrap_or_default(), &column_path)?),
        };
        let distinct = flag(object.get("distinct"), &format!("{path}.distinct"))?;
        use ColumnType::{Bigint, Integer, Real, Text, Timestamp};
        let is_number = |column_type| matches!(column_type, Integer | Timestamp | Real);
        let fits = match (&field, function) {
            (None, AggregateFunction::Count) => !distinct,
            (None, _) => return Err(Invalid::new(&column_path, "is missing")),
            (Some(_), AggregateFunction::Count) => true,
            (Some(field), _) if field.column.encrypted => false,
            (Some(field), AggregateFunction::Sum | AggregateFunction::Average) => is_number(field.column.column_type),
            (Some(field), _) => is_number(field.column.column_type) || matches!(field.column.column_type, Bigint | Text),
        };
        if !fits {
            return Err(Invalid::new(&column_path, "is nothing that this aggregate can be computed of"));
        }
        Ok(Aggregate { name: name.to_owned(), function, field, distinct })
    }

    fn order_by(&self, source: Option<&Json>, sortable: Option<&Vec<Field>>, aggregates: &[Aggregate]) -> Result<Vec<OrderTerm>, Invalid> {
        let mut order = Vec::new();
        for (name, descending) in order_pairs(source, "orderBy")? {
            let aggregate = aggregates.iter().position(|aggregate| aggregate.name == name);
            let key = match aggregate {
                Some(position) => OrderKey::Aggregate(position),
                None => OrderKey::Field(self.field(name, "orderBy")?),
            };
            if let OrderKey::Field(field) = &key {
                order_problem(&field.column, "orderBy")?;
                if sortable.is_some_and(|sortable| !sortable.contains(field)) {
                    return Err(Invalid::new("orderBy", format!("column {name} is not among those that are given")));
                }
            }
            order.push(OrderTerm { key, descending });
        }
        Ok(order)
    }

    /// The order with what makes it total: the primary keys, or all that is given where rows are put together.
    fn total_order(&self, order_by: &[OrderTerm], sortable: Option<&Vec<Field>>) -> Vec<OrderTerm> {
        let more =
            sortable.map_or_else(|| self.keys(), |fields| fields.iter().filter(|field| is_sortable(&field.column)).cloned().collect());
        let missing = more.into_iter().map(OrderKey::Field).filter(|key| !order_by.iter().any(|term| term.key == *key));
        order_by.iter().cloned().chain(missing.map(|key| OrderTerm { key, descending: false })).collect()
    }

    fn keys(&self) -> Vec<Field> {
        let own = self.table.key_columns().map(|column| field(None, "", column));
        let joined = self
            .joins
            .iter()
            .enumerate()
            .flat_map(|(position, (join, table))| table.key_columns().map(move |column| field(Some(position), &join.alias, column)));
        own.chain(joined).collect()
    }

    /// The values of `orderBy` and the whole primary key, or each column once.
    fn after(&self, source: &Json, order_by: &[OrderTerm], order: &[OrderTerm]) -> Result<Vec<Json>, Invalid> {
        let values = source.as_array().ok_or_else(|| Invalid::new("after", "must be a list"))?;
        let (keys, given) = (self.keys(), order_by.len());
        let values: Vec<&Json> = if values.len() == order.len() {
            values.iter().collect()
        } else if values.len() == given + keys.len() {
            let repeated = |key: &Field| order_by.iter().any(|term| term.key == OrderKey::Field(key.clone()));
            let own = keys.iter().zip(&values[given..]).filter(|(key, _)| !repeated(key)).map(|(_, value)| value);
            values[..given].iter().chain(own).collect()
        } else {
            return Err(Invalid::new("after", format!("must have {} values: those of orderBy and of the primary key", order.len())));
        };
        let fitted = order.iter().zip(values).map(|(term, value)| {
            let OrderKey::Field(field) = &term.key else { return None };
            Target::Type(field.column.column_type).fit(value)
        });
        fitted.collect::<Option<_>>().ok_or_else(|| Invalid::new("after", "has a value of a wrong type"))
    }

    fn related(&self, source: Option<&Json>) -> Result<Vec<Related>, Invalid> {
        let entries = entries(source, "related", TABLES_MAX)?;
        entries.into_iter().map(|(name, source)| self.relation(name, source, &format!("related.{name}"))).collect()
    }

    fn relation(&self, name: &str, source: &Json, path: &str) -> Result<Related, Invalid> {
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        known_keys(object, &["table", "from", "to", "select", "where", "orderBy", "limit"], path)?;
        let known = self.table.relations.get(name);
        if known.is_none() && !["table", "from", "to"].iter().all(|key| object.contains_key(*key)) {
            return Err(Invalid::new(path, format!("unknown relation {name}; another needs table, from and to")));
        }
        if self.table.column(name).is_some() {
            return Err(Invalid::new(path, "has the name of a column"));
        }
        let mut relation =
            known.cloned().unwrap_or(Relation { kind: RelationKind::Many, table: String::new(), from: Vec::new(), to: Vec::new() });
        if let Some(table) = object.get("table") {
            relation.table = known_table(self.schema, Some(table), &format!("{path}.table"))?.name.clone();
        }
        let owned = |key: &str, old: Vec<String>| match object.get(key) {
            None => Ok(old),
            Some(source) => names(source, &format!("{path}.{key}")).map(|names| names.into_iter().map(str::to_owned).collect()),
        };
        (relation.from, relation.to) = (owned("from", relation.from)?, owned("to", relation.to)?);
        if let Some(problem) = relation_problem(self.schema, self.table, &relation) {
            return Err(Invalid::new(path, problem));
        }
        let table = known_table(self.schema, Some(&Json::from(relation.table.as_str())), path)?;
        let column =
            |name: &str, path: &str| table.column(name).cloned().ok_or_else(|| Invalid::new(path, format!("unknown column {name}")));
        let select_path = format!("{path}.select");
        let select = match object.get("select") {
            None => table.columns.clone(),
            Some(source) => names(source, &select_path)?.into_iter().map(|name| column(name, &select_path)).collect::<Result<_, _>>()?,
        };
        let order_path = format!("{path}.orderBy");
        let mut order = Vec::new();
        for (name, descending) in order_pairs(object.get("orderBy"), &order_path)? {
            let column = column(name, &order_path)?;
            order_problem(&column, &order_path)?;
            order.push((column, descending));
        }
        let keys = table.key_columns().filter(|key| !order.iter().any(|(column, _)| column == *key)).cloned().collect::<Vec<_>>();
        order.extend(keys.into_iter().map(|key| (key, false)));
        let condition = parse_condition(self.schema, Shape::Table(table), object.get("where"), &format!("{path}.where"))?;
        let limit = count(object.get("limit"), &format!("{path}.limit"))?;
        let Relation { kind, table, from, to } = relation;
        Ok(Related { name: name.to_owned(), kind, table, from, to, select, condition, order, limit })
    }
}

fn field(join: Option<usize>, alias: &str, column: &Column) -> Field {
    let name = if join.is_some() { format!("{alias}.{}", column.name) } else { column.name.clone() };
    Field { name, join, column: column.clone() }
}

fn parse_condition(schema: &Schema, shape: Shape<'_>, source: Option<&Json>, path: &str) -> Result<Predicate, Invalid> {
    source.map_or(Ok(Predicate::Const(true)), |source| parse_with_shape(schema, Some(shape), source, path, ALLOWED))
}

fn is_sortable(column: &Column) -> bool {
    !column.encrypted && is_comparable(column.column_type)
}

fn order_problem(column: &Column, path: &str) -> Result<(), Invalid> {
    match column {
        Column { encrypted: true, .. } => Err(Invalid::new(path, format!("column {} is encrypted", column.name))),
        _ if !is_sortable(column) => {
            Err(Invalid::new(path, format!("column {} is {}, which has no order", column.name, column.column_type.name())))
        }
        _ => Ok(()),
    }
}

fn order_pairs<'j>(source: Option<&'j Json>, path: &str) -> Result<Vec<(&'j str, bool)>, Invalid> {
    let wrong = || Invalid::new(path, "must be a list of [column, \"asc\" or \"desc\"]");
    let Some(source) = source else { return Ok(Vec::new()) };
    let pairs = source.as_array().filter(|pairs| pairs.len() <= ENTRIES_MAX).ok_or_else(wrong)?;
    let pair = |pair: &'j Json| match &pair.as_array()?[..] {
        [Json::String(name), Json::String(direction)] if direction == "asc" => Some((name.as_str(), false)),
        [Json::String(name), Json::String(direction)] if direction == "desc" => Some((name.as_str(), true)),
        _ => None,
    };
    pairs.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)
}

fn names<'j>(source: &'j Json, path: &str) -> Result<Vec<&'j str>, Invalid> {
    let names = source.as_array().filter(|names| !names.is_empty() && names.len() <= ENTRIES_MAX * 10);
    let names = names.and_then(|names| names.iter().map(Json::as_str).collect::<Option<_>>());
    names.ok_or_else(|| Invalid::new(path, "must be a list of column names"))
}

fn entries<'j>(source: Option<&'j Json>, path: &str, limit: usize) -> Result<Vec<(&'j str, &'j Json)>, Invalid> {
    let Some(source) = source else { return Ok(Vec::new()) };
    let object = source.as_object().filter(|object| object.len() <= limit);
    let object = object.ok_or_else(|| Invalid::new(path, format!("must be an object with at most {limit} entries")))?;
    match object.keys().find(|name| !is_name(name)) {
        Some(name) => Err(Invalid::new(path, format!("{name:?} is not an identifier"))),
        None => Ok(object.iter().map(|(name, value)| (name.as_str(), value)).collect()),
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 63 && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(is_part)
}

fn flag(source: Option<&Json>, path: &str) -> Result<bool, Invalid> {
    source.map_or(Ok(false), |source| source.as_bool().ok_or_else(|| Invalid::new(path, "must be true or false")))
}

fn count(source: Option<&Json>, path: &str) -> Result<Option<i64>, Invalid> {
    let wrong = || Invalid::new(path, "must be an integer that is not negative");
    source.map(|source| source.as_i64().filter(|count| *count >= 0).ok_or_else(wrong)).transpose()
}
