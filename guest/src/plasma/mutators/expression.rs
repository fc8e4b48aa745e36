//! Expressions of declarative mutators.

use std::hash::{BuildHasher, RandomState};

use serde_json::{Map, Number, Value as Json};

use super::Stopped;

/// A value that depends on a mutation.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// `arg`, with what stands for an absent one.
    Argument(Vec<String>, Option<Json>),
    /// `item` of the innermost `forEach`, with what stands for an absent one.
    Item(Vec<String>, Option<Json>),
    /// `ctx`
    Context(Vec<String>),
    /// `val`
    Value(Json),
    /// `col`: of the row before its update.
    Column(String),
    /// `add`
    Add(Vec<Expression>),
    /// `concat`
    Concat(Vec<Expression>),
    /// `now`: `mutation` is the client's clock, rounded.
    Now {
        /// Whether the server's clock.
        server: bool,
    },
    /// `uuid`
    Uuid,
    /// `coalesce`
    Coalesce(Vec<Expression>),
}

/// What an expression is evaluated with.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The arguments of the mutation.
    pub arguments: &'a Json,
    /// The present element of the innermost `forEach`.
    pub item: Option<&'a Json>,
    /// `ctx`
    pub context: &'a Map<String, Json>,
    /// The row that is updated, before.
    pub row: Option<&'a Map<String, Json>>,
    /// The client's clock.
    pub timestamp: f64,
    /// The server's clock.
    pub now_ms: u64,
}

/// What an expression may name where it stands.
#[derive(Clone, Copy, Default)]
pub struct Place<'a> {
    /// Within a `forEach`.
    pub in_for_each: bool,
    /// The table whose row is updated.
    pub updated: Option<&'a crate::plasma::schema::Table>,
}

impl Expression {
    /// Parses; the problem names the path.
    pub fn parse(source: &Json, path: &str, place: Place<'_>) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{path}: {what}"));
        let Some(object) = source.as_object() else { return wrong("expected an expression, an object") };
        let default = object.get("default").cloned();
        let mut keys = object.keys().filter(|key| *key != "default");
        let (Some(key), None) = (keys.next(), keys.next()) else { return wrong("expected exactly one key") };
        if default.is_some() && !matches!(key.as_str(), "arg" | "item") {
            return wrong("default goes with arg and item only");
        }
        let value = &object[key];
        let parts = |least: usize, most: usize| -> Result<Vec<Self>, String> {
            let list = value.as_array().filter(|list| (least..=most).contains(&list.len()));
            let list = list.ok_or_else(|| format!("{path}.{key}: expected a list of expressions"))?;
            list.iter().enumerate().map(|(index, part)| Self::parse(part, &format!("{path}.{key}[{index}]"), place)).collect()
        };
        Ok(match key.as_str() {
            "arg" => Self::Argument(dotted(value, path, key)?, default),
            "item" if place.in_for_each => Self::Item(dotted(value, path, key)?, default),
            "item" => return wrong("item stands outside a forEach"),
            "ctx" => Self::Context(dotted(value, path, key)?),
            "val" => Self::Value(value.clone()),
            "col" => match (place.updated, value.as_str()) {
                (Some(table), Some(name)) if table.column(name).is_some() => Self::Column(name.into()),
                (Some(_), _) => return wrong(&format!("unknown column {value}")),
                (None, _) => return wrong("col stands outside an update"),
            },
            "add" => Self::Add(parts(2, 2)?),
            "concat" => Self::Concat(parts(0, usize::MAX)?),
            "coalesce" => Self::Coalesce(parts(0, usize::MAX)?),
            "now" => match value.as_str() {
                Some("mutation") => Self::Now { server: false },
                Some("server") => Self::Now { server: true },
                _ => return wrong("now is \"mutation\" or \"server\""),
            },
            "uuid" if *value == Json::Bool(true) => Self::Uuid,
            "uuid" => return wrong("uuid must be true"),
            other => return wrong(&format!("unknown expression {other}")),
        })
    }

    /// The value; none where what it names is absent.
    pub fn evaluate(&self, environment: &Environment<'_>) -> Result<Option<Json>, Stopped> {
        Ok(match self {
            Self::Argument(path, default) => descend(environment.arguments, path).cloned().or_else(|| default.clone()),
            Self::Item(path, default) => environment.item.and_then(|item| descend(item, path)).cloned().or_else(|| default.clone()),
            Self::Context(path) => Some(context(environment.context, path)),
            Self::Value(value) => Some(value.clone()),
            Self::Column(name) => environment.row.and_then(|row| row.get(name)).cloned(),
            Self::Add(parts) => Some(add(&parts[0].or_null(environment)?, &parts[1].or_null(environment)?)?),
            Self::Concat(parts) => Some(concat(parts, environment)?),
            Self::Now { server: true } => Some(environment.now_ms.into()),
            Self::Now { server: false } => Some((environment.timestamp.round() as i64).into()),
            Self::Uuid => Some(uuid().into()),
            Self::Coalesce(parts) => {
                for part in parts {
                    if let Some(value) = part.evaluate(environment)?.filter(|value| !value.is_null()) {
                        return Ok(Some(value));
                    }
                }
                Some(Json::Null)
            }
        })
    }

    /// The value; null where what it names is absent.
    pub fn or_null(&self, environment: &Environment<'_>) -> Result<Json, Stopped> {
        Ok(self.evaluate(environment)?.unwrap_or(Json::Null))
    }
}

/// A dotted path; the empty one is the whole.
pub fn dotted(value: &Json, path: &str, key: &str) -> Result<Vec<String>, String> {
    let text = value.as_str().ok_or_else(|| format!("{path}.{key}: expected a path, a string"))?;
    Ok(if text.is_empty() { Vec::new() } else { text.split('.').map(str::to_owned).collect() })
}

/// What a path leads to. Lists are entered by position.
pub fn descend<'a>(value: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, part| match value {
        Json::Object(object) => object.get(part),
        Json::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

fn context(context: &Map<String, Json>, path: &[String]) -> Json {
    let found = match path.split_first() {
        None => return Json::Object(context.clone()),
        Some((first, rest)) => context.get(first).and_then(|value| descend(value, rest)),
    };
    found.cloned().unwrap_or(Json::Null)
}

fn add(left: &Json, right: &Json) -> Result<Json, Stopped> {
    let wrong = || Stopped::failed("add expects numbers");
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64())
        && let Some(sum) = left.checked_add(right)
    {
        return Ok(sum.into());
    }
    let sum = left.as_f64().ok_or_else(wrong)? + right.as_f64().ok_or_else(wrong)?;
    Number::from_f64(sum).map(Json::Number).ok_or_else(wrong)
}

fn concat(parts: &[Expression], environment: &Environment<'_>) -> Result<Json, Stopped> {
    let mut text = String::new();
    for part in parts {
        match part.or_null(environment)? {
            Json::Null => {}
            Json::String(part) => text.push_str(&part),
            part @ (Json::Number(_) | Json::Bool(_)) => text.push_str(&part.to_string()),
            _ => return Err(Stopped::failed("concat expects text")),
        }
    }
    Ok(text.into())
}

/// A random UUID. The standard library's hashers have keys that the host's randomness gave.
pub fn uuid() -> String {
    let random = || u128::from(RandomState::new().hash_one(()));
    let bits = (random() << 64 | random()) & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_random_and_of_version_four() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]));
    }
}
