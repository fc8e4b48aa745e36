//! Predicates from JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{
    ColumnOperand, Comparison, Exists, Operand, Operator, PathPart, Predicate, Source, are_comparable, evaluate::literal_problem,
    is_comparable,
};
use crate::plasma::schema::{Column, ColumnType, Schema, Table};

/// Conditions in one predicate; SQLite takes expressions no deeper than 1000.
const CONDITIONS_MAX: usize = 400;
/// `exists` within one another, and in one predicate. Databases join them, with the tables of the read predicates on top: SQLite takes 64
/// tables in a join, and PostgreSQL plans many of them slowly.
const EXISTS_DEPTH_MAX: usize = 8;
/// See [`EXISTS_DEPTH_MAX`].
const EXISTS_MAX: usize = 20;

/// What is wrong with a predicate or a query: 400 `invalid-request`, or a problem of the configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Invalid {
    /// The path of its key (`where.and[0].left`).
    pub path: String,
    /// What is wrong there.
    pub what: String,
}

impl Invalid {
    pub(super) fn new(path: &str, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }
}

/// Which sources a predicate may name beside `val` and `ctx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `param`
    pub parameters: bool,
    /// `arg`
    pub arguments: bool,
    /// `item`
    pub items: bool,
}

/// The columns that a predicate can name.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    Table(&'a Table),
    Named(&'a BTreeMap<String, Column>),
}

impl<'a> Shape<'a> {
    pub(super) fn column(&self, name: &str) -> Option<&'a Column> {
        match self {
            Self::Table(table) => table.column(name),
            Self::Named(columns) => columns.get(name),
        }
    }
}

/// Parses and checks a predicate on the rows of a table; without one it can name no column outside an `exists`.
pub fn parse_predicate(schema: &Schema, table: Option<&Table>, source: &Json, path: &str, allowed: Allowed) -> Result<Predicate, Invalid> {
    parse_with_shape(schema, table.map(Shape::Table), source, path, allowed)
}

pub(super) fn parse_with_shape(
    schema: &Schema,
    row: Option<Shape<'_>>,
    source: &Json,
    path: &str,
    allowed: Allowed,
) -> Result<Predicate, Invalid> {
    let mut parser = Parser { schema, allowed, conditions: 0, exists: 0, exists_depth: 0 };
    parser.predicate(source, path, row, None)
}

struct Parser<'a> {
    schema: &'a Schema,
    allowed: Allowed,
    conditions: usize,
    /// How many there were so far.
    exists: usize,
    /// Around the present place.
    exists_depth: usize,
}

impl<'a> Parser<'a> {
    fn predicate(&mut self, source: &Json, path: &str, row: Option<Shape<'a>>, outer: Option<Shape<'a>>) -> Result<Predicate, Invalid> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            return Err(Invalid::new(path, format!("more than {CONDITIONS_MAX} conditions")));
        }
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        if object.contains_key("op") {
            return self.comparison(object, path, row, outer).map(Predicate::Compare);
        }
        let (key, value) = only_member(object).ok_or_else(|| Invalid::new(path, "must have one of const, and, or, not, exists, op"))?;
        let path = format!("{path}.{key}");
        match key {
            "const" => value.as_bool().map(Predicate::Const).ok_or_else(|| Invalid::new(&path, "must be true or false")),
            "and" => self.parts(value, &path, row, outer).map(Predicate::And),
            "or" => self.parts(value, &path, row, outer).map(Predicate::Or),
            "not" => self.predicate(value, &path, row, outer).map(|part| Predicate::Not(Box::new(part))),
            "exists" => self.exists(value, &path, row).map(Predicate::Exists),
            _ => Err(Invalid::new(&path, "unknown key")),
        }
    }

    fn parts(&mut self, source: &Json, path: &str, row: Option<Shape<'a>>, outer: Option<Shape<'a>>) -> Result<Vec<Predicate>, Invalid> {
        let parts = source.as_array().ok_or_else(|| Invalid::new(path, "must be a list"))?;
        parts.iter().enumerate().map(|(position, part)| self.predicate(part, &format!("{path}[{position}]"), row, outer)).collect()
    }

    fn exists(&mut self, source: &Json, path: &str, row: Option<Shape<'a>>) -> Result<Exists, Invalid> {
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        known_keys(object, &["table", "where"], path)?;
        self.exists += 1;
        self.exists_depth += 1;
        if self.exists > EXISTS_MAX || self.exists_depth > EXISTS_DEPTH_MAX {
            return Err(Invalid::new(path, format!("more than {EXISTS_MAX} exists, or more than {EXISTS_DEPTH_MAX} within one another")));
        }
        let table = known_table(self.schema, object.get("table"), &format!("{path}.table"))?;
        let condition = match object.get("where") {
            None => Predicate::Const(true),
            Some(condition) => self.predicate(condition, &format!("{path}.where"), Some(Shape::Table(table)), row)?,
        };
        self.exists_depth -= 1;
        Ok(Exists { table: table.name.clone(), condition: Box::new(condition) })
    }

    fn comparison(
        &mut self,
        object: &Map<String, Json>,
        path: &str,
        row: Option<Shape<'a>>,
        outer: Option<Shape<'a>>,
    ) -> Result<Comparison, Invalid> {
        known_keys(object, &["op", "left", "right"], path)?;
        let operator = object.get("op").and_then(Json::as_str).and_then(operator);
        let operator = operator.ok_or_else(|| Invalid::new(&format!("{path}.op"), "unknown operator"))?;
        let mut side = |key: &str| {
            let path = format!("{path}.{key}");
            object.get(key).map(|source| self.operand(source, &path, row, outer)).transpose()
        };
        let left = side("left")?.ok_or_else(|| Invalid::new(&format!("{path}.left"), "is missing"))?;
        let right = side("right")?;
        let right_path = format!("{path}.right");
        match (operator, &right) {
            (Operator::IsNull | Operator::IsNotNull, Some(_)) => return Err(Invalid::new(&right_path, "has no place with this operator")),
            (Operator::IsNull | Operator::IsNotNull, None) | (_, Some(_)) => {}
            (_, None) => return Err(Invalid::new(&right_path, "is missing")),
        }
        let comparison = Comparison { operator, left, right };
        match type_problem(&comparison).or_else(|| literal_problem(&comparison)) {
            Some(problem) => Err(Invalid::new(path, problem)),
            None => Ok(comparison),
        }
    }

    fn operand(&mut self, source: &Json, path: &str, row: Option<Shape<'a>>, outer: Option<Shape<'a>>) -> Result<Operand, Invalid> {
        let object = source.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))?;
        for (key, is_outer) in [("col", false), ("outer", true)] {
            if object.contains_key(key) {
                known_keys(object, &[key, "path"], path)?;
                let shape = if is_outer { outer } else { row };
                return self.column(object, key, shape, path).map(Operand::Column);
            }
        }
        let wanted = "must have one of col, outer, val, ctx, param, arg, item";
        let (key, value) = only_member(object).ok_or_else(|| Invalid::new(path, wanted))?;
        let text = || value.as_str().ok_or_else(|| Invalid::new(&format!("{path}.{key}"), "must be a string"));
        let refused =
            |is_allowed: bool| if is_allowed { Ok(()) } else { Err(Invalid::new(&format!("{path}.{key}"), "is not allowed here")) };
        let source = match key {
            "val" => Source::Literal(value.clone()),
            "ctx" => Source::Context(dotted(text()?)),
            "param" => {
                refused(self.allowed.parameters)?;
                Source::Parameter(text()?.to_owned())
            }
            "arg" => {
                refused(self.allowed.arguments)?;
                Source::Argument(dotted(text()?))
            }
            "item" => {
                refused(self.allowed.items)?;
                Source::Item(dotted(text()?))
            }
            _ => return Err(Invalid::new(path, wanted)),
        };
        Ok(Operand::Bound(source))
    }

    fn column(&self, object: &Map<String, Json>, key: &str, shape: Option<Shape<'a>>, path: &str) -> Result<ColumnOperand, Invalid> {
        let column_path = format!("{path}.{key}");
        let name = object[key].as_str().ok_or_else(|| Invalid::new(&column_path, "must be a string"))?;
        let shape = shape.ok_or_else(|| Invalid::new(&column_path, "no row is here"))?;
        let column = shape.column(name).ok_or_else(|| Invalid::new(&column_path, format!("unknown column {name}")))?;
        if column.encrypted {
            return Err(Invalid::new(&column_path, format!("column {name} is encrypted")));
        }
        let steps = match object.get("path") {
            None => Vec::new(),
            Some(source) => json_path(source, &format!("{path}.path"))?,
        };
        if !steps.is_empty() && !column.is_json() {
            return Err(Invalid::new(&format!("{path}.path"), format!("column {name} is {}", column.column_type.name())));
        }
        Ok(ColumnOperand { outer: key == "outer", name: name.to_owned(), column_type: column.column_type, path: steps })
    }
}

/// A dotted path in parts; the empty text is the whole.
fn dotted(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split('.').map(str::to_owned).collect() }
}

fn json_path(source: &Json, path: &str) -> Result<Vec<PathPart>, Invalid> {
    let parts =
        source.as_array().filter(|parts| !parts.is_empty()).ok_or_else(|| Invalid::new(path, "must be a list of keys and positions"))?;
    let part = |part: &Json| match part {
        // SQLite's paths have no sure way to write these.
        Json::String(key) if key.chars().any(|character| character == '"' || character == '\\' || character < ' ') => None,
        Json::String(key) => Some(PathPart::Key(key.clone())),
        Json::Number(index) => {
            index.as_u64().and_then(|index| i32::try_from(index).ok()).map(|index| PathPart::Index(index.unsigned_abs()))
        }
        _ => None,
    };
    let parts: Option<Vec<PathPart>> = parts.iter().map(part).collect();
    parts.ok_or_else(|| Invalid::new(path, "parts are positions or keys without quotation mark, backslash and control characters"))
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "in" => Operator::In,
        "notIn" => Operator::NotIn,
        "isNull" => Operator::IsNull,
        "isNotNull" => Operator::IsNotNull,
        "like" => Operator::Like,
        "ilike" => Operator::LikeIgnoreCase,
        "startsWith" => Operator::StartsWith,
        "contains" => Operator::Contains,
        _ => return None,
    })
}

/// Why two operands cannot be compared in this way.
fn type_problem(comparison: &Comparison) -> Option<String> {
    let Comparison { operator, left, right } = comparison;
    let right = right.as_ref()?;
    let has_null = left.is_literal_null() || right.is_literal_null();
    if has_null && matches!(operator, Operator::Equal | Operator::NotEqual) {
        return None;
    }
    let types = [left.compared_type(), right.compared_type()];
    let needs_text = matches!(operator, Operator::Like | Operator::LikeIgnoreCase | Operator::StartsWith | Operator::Contains);
    let takes_list = matches!(operator, Operator::In | Operator::NotIn);
    if let Some(json) = types.into_iter().flatten().find(|column_type| !is_comparable(*column_type)) {
        return Some(format!("a column of type {} is compared by a path or with null", json.name()));
    }
    if (takes_list || matches!(operator, Operator::Like | Operator::LikeIgnoreCase)) && types[1].is_some() {
        return Some("a column cannot be on the right of this operator".into());
    }
    if needs_text && types.into_iter().flatten().any(|column_type| column_type != ColumnType::Text) {
        return Some("this operator is for text".into());
    }
    match types {
        [Some(left), Some(right)] if !are_comparable(left, right) => {
            Some(format!("{} cannot be compared with {}", left.name(), right.name()))
        }
        _ => None,
    }
}

/// The only member of an object.
pub(super) fn only_member(object: &Map<String, Json>) -> Option<(&str, &Json)> {
    let mut members = object.iter();
    let only = members.next()?;
    members.next().is_none().then_some((only.0.as_str(), only.1))
}

pub(super) fn known_keys(object: &Map<String, Json>, known: &[&str], path: &str) -> Result<(), Invalid> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Invalid::new(&format!("{path}.{key}"), "unknown key")),
        None => Ok(()),
    }
}

pub(super) fn known_table<'a>(schema: &'a Schema, name: Option<&Json>, path: &str) -> Result<&'a Table, Invalid> {
    let name = name.and_then(Json::as_str).ok_or_else(|| Invalid::new(path, "must be the name of a table"))?;
    schema.table(name).ok_or_else(|| Invalid::new(path, format!("unknown table {name}")))
}
