//! Values from outside, brought to the type that they are compared with.

use serde_json::{Map, Value as Json};

use super::pattern::Pattern;
use super::{Comparison, Source, Target, evaluate};
use crate::imports::Value;
use crate::plasma::schema::{ColumnType, has_zero_character, normal_value, number_text, type_bulk_value, type_to_sql};

/// Where the values of a run come from.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a> {
    /// The caller's context.
    pub context: &'a Map<String, Json>,
    /// Parameters of a query; none: it has none.
    pub parameters: Option<&'a Map<String, Json>>,
    /// Arguments of a mutation.
    pub arguments: Option<&'a Json>,
    /// The present element of a `forEach`.
    pub item: Option<&'a Json>,
    /// The row that [`super::Scope::Bound`] stands for, complete.
    pub outer: Option<&'a Map<String, Json>>,
}

impl<'a> Bindings<'a> {
    /// Only a context, as for read predicates.
    pub fn of_context(context: &'a Map<String, Json>) -> Self {
        Self { context, parameters: None, arguments: None, item: None, outer: None }
    }
}

/// Why values cannot be bound: 400 in a query, a mutation's error in a mutator.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BindError {
    /// A parameter that was not given.
    #[error("parameter {0} is missing")]
    MissingParameter(String),
    /// A value that cannot be compared with what it is compared with.
    #[error("{source_name} expects {expected}")]
    Unfit {
        /// Which (`param p`).
        source_name: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The value at the end of a dotted path; elements of arrays are named by their position. The empty path is the value itself.
pub fn value_at<'a>(value: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, part| match value {
        Json::Object(object) => object.get(part),
        Json::Array(members) => members.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

impl Source {
    /// The value as it is; absent is null.
    pub(super) fn value<'a>(&'a self, bindings: &Bindings<'a>) -> Result<&'a Json, BindError> {
        let found = match self {
            Self::Literal(value) => Some(value),
            Self::Context(path) => match path.split_first() {
                Some((first, rest)) => bindings.context.get(first).and_then(|value| value_at(value, rest)),
                None => None,
            },
            Self::Parameter(name) => {
                let found = bindings.parameters.and_then(|parameters| parameters.get(name));
                Some(found.ok_or_else(|| BindError::MissingParameter(name.clone()))?)
            }
            Self::Argument(path) => bindings.arguments.and_then(|arguments| value_at(arguments, path)),
            Self::Item(path) => bindings.item.and_then(|item| value_at(item, path)),
        };
        Ok(found.unwrap_or(&Json::Null))
    }

    /// As it is called in messages.
    fn name(&self) -> String {
        match self {
            Self::Literal(_) => "val".into(),
            Self::Context(path) => format!("ctx {}", path.join(".")),
            Self::Parameter(name) => format!("param {name}"),
            Self::Argument(path) => format!("arg {}", path.join(".")),
            Self::Item(path) => format!("item {}", path.join(".")),
        }
    }

    /// What becomes of a value that does not fit: null where it comes from the context, else an error.
    fn unfit(&self, expected: &'static str) -> Result<Json, BindError> {
        match self {
            Self::Context(_) => Ok(Json::Null),
            _ => Err(BindError::Unfit { source_name: self.name(), expected }),
        }
    }
}

impl Target {
    /// The value as one of the target, in normal form; none where it has another type.
    pub(super) fn fit(self, value: &Json) -> Option<Json> {
        if has_zero_character(value) {
            return None;
        }
        match (self, value) {
            (_, Json::Null) => Some(Json::Null),
            (Self::Type(column_type), _) => normal_value(column_type, value),
            (Self::PathText, Json::String(_)) => Some(value.clone()),
            (Self::PathText, Json::Bool(flag)) => Some(Json::String(flag.to_string())),
            // Through the normal form: `1.0` in a row is `1`.
            (Self::PathText, Json::Number(_)) => match normal_value(ColumnType::Json, value)? {
                Json::Number(number) => Some(Json::String(number_text(&number))),
                _ => None,
            },
            (Self::PathText, _) => None,
            (Self::Any, Json::Number(number)) => number.as_f64().is_some_and(f64::is_finite).then(|| value.clone()),
            (Self::Any, Json::Array(_) | Json::Object(_)) => None,
            (Self::Any, _) => Some(value.clone()),
        }
    }

    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Type(column_type) => column_type.name(),
            Self::PathText | Self::Any => "a string, a number or a boolean",
        }
    }

    /// The type in which it goes into SQL.
    pub(super) fn sql_type(self) -> ColumnType {
        match self {
            Self::Type(column_type) => column_type,
            Self::PathText | Self::Any => ColumnType::Text,
        }
    }
}

/// The value of a source as one of a target.
pub(super) fn fitted(source: &Source, target: Target, bindings: &Bindings<'_>) -> Result<Json, BindError> {
    let value = source.value(bindings)?;
    target.fit(value).map_or_else(|| source.unfit(target.expected()), Ok)
}

/// The members of a list; what is no list is none, what does not fit is null.
pub(super) fn fitted_list(source: &Source, target: Target, bindings: &Bindings<'_>) -> Result<Vec<Json>, BindError> {
    match source.value(bindings)? {
        Json::Array(members) => {
            members.iter().map(|member| target.fit(member).map_or_else(|| source.unfit(target.expected()), Ok)).collect()
        }
        Json::Null => Ok(Vec::new()),
        _ => source.unfit("a list").map(|_| Vec::new()),
    }
}

/// A pattern; none is null.
pub(super) fn fitted_pattern(source: &Source, bindings: &Bindings<'_>) -> Result<Option<(Pattern, String)>, BindError> {
    let Json::String(text) = fitted(source, Target::Type(ColumnType::Text), bindings)? else { return Ok(None) };
    match Pattern::parse(&text) {
        Some(pattern) => Ok(Some((pattern, text))),
        None => source.unfit("a pattern of at most 1000 bytes that ends with no open escape").map(|_| None),
    }
}

/// How a value goes into a placeholder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// As the key that `bigint` sorts by in SQLite.
    SortKey,
    /// A list as the text of a JSON array.
    List,
    /// A pattern of `LIKE`.
    Pattern,
    /// A pattern of `LIKE` as one of `GLOB`.
    Glob,
}

/// Where the value of a placeholder comes from.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Always this one.
    Fixed(Value),
    /// The n-th of those given when the statement is bound.
    Given(usize),
    /// From elsewhere.
    Source { source: Source, target: Target, form: Form },
    /// A column of the row that stands outside of the statement.
    Outer { name: String, column_type: ColumnType, form: Form },
    /// Whether a comparison in which no row has a part is true.
    Condition(Comparison),
}

impl Slot {
    pub(super) fn value(&self, bindings: &Bindings<'_>, given: &[Value]) -> Result<Value, BindError> {
        match self {
            Self::Fixed(value) => Ok(value.clone()),
            Self::Given(position) => Ok(given.get(*position).cloned().unwrap_or(Value::Null)),
            Self::Condition(comparison) => Ok(Value::Integer(evaluate::row_free(comparison, bindings)?.into())),
            Self::Outer { name, column_type, form } => {
                let value = bindings.outer.and_then(|row| row.get(name)).unwrap_or(&Json::Null);
                Ok(plain(*column_type, value, *form))
            }
            Self::Source { source, target, form: Form::List, .. } => {
                let members = fitted_list(source, *target, bindings)?;
                let members = members.iter().map(|member| type_bulk_value(target.sql_type(), member)).collect();
                Ok(Value::Text(Json::Array(members).to_string()))
            }
            Self::Source { source, form: form @ (Form::Pattern | Form::Glob), .. } => Ok(match fitted_pattern(source, bindings)? {
                None => Value::Null,
                Some((pattern, _)) if *form == Form::Glob => Value::Text(pattern.glob()),
                Some((_, text)) => Value::Text(text),
            }),
            Self::Source { source, target, form } => Ok(plain(target.sql_type(), &fitted(source, *target, bindings)?, *form)),
        }
    }
}

fn plain(column_type: ColumnType, value: &Json, form: Form) -> Value {
    match (form, value) {
        (Form::SortKey, Json::String(digits)) => Value::Text(super::bigint::sort_key(digits)),
        _ => type_to_sql(column_type, value),
    }
}
