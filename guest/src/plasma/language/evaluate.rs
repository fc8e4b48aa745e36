//! Predicates in memory, for the checks of writes.
//!
//! Unknown counts as false here: nothing tells the two apart, since `not` takes unknown for false.

use std::borrow::Cow;
use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::bind::{fitted, fitted_list, fitted_pattern};
use super::{BindError, Bindings, ColumnOperand, Comparison, Exists, Operand, Operator, PathPart, Predicate, Source, Target, bigint};
use crate::plasma::schema::ColumnType;

/// Who knows other rows.
pub trait Lookup {
    /// Why it could not look; [`BindError`]s are among them.
    type Error: From<BindError>;
    /// Whether some row meets the condition, in which `outer` is a row.
    fn exists(&self, exists: &Exists, outer: &Map<String, Json>, bindings: &Bindings<'_>) -> Result<bool, Self::Error>;
}

/// Whether a predicate holds for a row, in which `outer` is [`Bindings::outer`]; unknown is false. A predicate without a
/// table is given an empty row.
pub fn evaluate<L: Lookup>(predicate: &Predicate, row: &Map<String, Json>, bindings: &Bindings<'_>, lookup: &L) -> Result<bool, L::Error> {
    match predicate {
        Predicate::Const(value) => Ok(*value),
        Predicate::And(parts) => parts.iter().try_fold(true, |met, part| Ok(met && evaluate(part, row, bindings, lookup)?)),
        Predicate::Or(parts) => parts.iter().try_fold(false, |met, part| Ok(met || evaluate(part, row, bindings, lookup)?)),
        Predicate::Not(part) => Ok(!evaluate(part, row, bindings, lookup)?),
        Predicate::Exists(exists) => lookup.exists(exists, row, bindings),
        Predicate::Compare(comparison) => Ok(compare(comparison, Some(row), bindings)?),
    }
}

/// A comparison in which no row has a part.
pub(super) fn row_free(comparison: &Comparison, bindings: &Bindings<'_>) -> Result<bool, BindError> {
    compare(comparison, None, bindings)
}

fn compare(comparison: &Comparison, row: Option<&Map<String, Json>>, bindings: &Bindings<'_>) -> Result<bool, BindError> {
    let (operator, target) = (comparison.operator, comparison.target());
    let is_null = |operand: &Operand| match operand {
        Operand::Column(column) => Ok(at_path(column, row, bindings).is_none()),
        // As it is: a list is not null only because it cannot be compared.
        Operand::Bound(source) => Ok(source.value(bindings)?.is_null()),
    };
    let Some(right) = &comparison.right else {
        return Ok(is_null(&comparison.left)? == (operator == Operator::IsNull));
    };
    for (one, other) in [(&comparison.left, right), (right, &comparison.left)] {
        if other.is_literal_null() && matches!(operator, Operator::Equal | Operator::NotEqual) {
            return Ok(is_null(one)? == (operator == Operator::Equal));
        }
    }
    let value = |operand: &Operand| match operand {
        Operand::Column(column) => Ok(compared(column, row, bindings)),
        Operand::Bound(source) => Ok(Cow::Owned(fitted(source, target, bindings)?)),
    };
    let left = value(&comparison.left)?;
    match (operator, right) {
        (Operator::In | Operator::NotIn, Operand::Bound(source)) => {
            let members = fitted_list(source, target, bindings)?;
            Ok(is_member(&left, &members, operator == Operator::In, target))
        }
        (Operator::Like | Operator::LikeIgnoreCase, Operand::Bound(source)) => {
            let pattern = fitted_pattern(source, bindings)?;
            let matched =
                pattern.zip(left.as_str()).map(|((pattern, _), text)| pattern.matches(text, operator == Operator::LikeIgnoreCase));
            Ok(matched.unwrap_or(false))
        }
        (Operator::NotEqual, _) => {
            let right = value(right)?;
            let both_null = left.is_null() && right.is_null();
            Ok(!both_null && order(&left, &right, target) != Some(Ordering::Equal))
        }
        _ => Ok(holds(operator, &left, value(right)?.as_ref(), target)),
    }
}

fn holds(operator: Operator, left: &Json, right: &Json, target: Target) -> bool {
    let texts = left.as_str().zip(right.as_str());
    match operator {
        Operator::StartsWith => texts.is_some_and(|(text, start)| text.starts_with(start)),
        Operator::Contains => texts.is_some_and(|(text, part)| text.contains(part)),
        _ => order(left, right, target).is_some_and(|order| match operator {
            Operator::Equal => order.is_eq(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
            _ => false,
        }),
    }
}

fn is_member(left: &Json, members: &[Json], wanted: bool, target: Target) -> bool {
    let is_equal = |member: &Json| order(left, member, target) == Some(Ordering::Equal);
    if members.is_empty() {
        !wanted
    } else if wanted {
        members.iter().any(is_equal)
    } else {
        // With a null on either side nobody knows.
        !left.is_null() && !members.iter().any(|member| member.is_null() || is_equal(member))
    }
}

/// What a column's path leads to; none where it is null.
fn at_path<'a>(column: &ColumnOperand, row: Option<&'a Map<String, Json>>, bindings: &Bindings<'a>) -> Option<&'a Json> {
    let row = if column.outer { bindings.outer } else { row };
    let value = row?.get(&column.name)?;
    let found = column.path.iter().try_fold(value, |value, part| match (part, value) {
        (PathPart::Key(key), Json::Object(object)) => object.get(key),
        (PathPart::Index(index), Json::Array(members)) => members.get(usize::try_from(*index).ok()?),
        _ => None,
    });
    found.filter(|value| !value.is_null())
}

fn compared<'a>(column: &ColumnOperand, row: Option<&'a Map<String, Json>>, bindings: &Bindings<'a>) -> Cow<'a, Json> {
    match at_path(column, row, bindings) {
        None => Cow::Owned(Json::Null),
        Some(value) if column.path.is_empty() => Cow::Borrowed(value),
        Some(value) => Cow::Owned(Target::PathText.fit(value).unwrap_or(Json::Null)),
    }
}

/// How two values that are compared as `target` stand to each other; none where nobody knows.
fn order(left: &Json, right: &Json, target: Target) -> Option<Ordering> {
    match target {
        Target::Type(column_type) => value_order(column_type, left, right),
        Target::PathText => Some(left.as_str()?.cmp(right.as_str()?)),
        Target::Any => match (left, right) {
            (Json::String(left), Json::String(right)) => Some(left.cmp(right)),
            (Json::Bool(left), Json::Bool(right)) => Some(left.cmp(right)),
            (Json::Number(_), Json::Number(_)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
            _ => None,
        },
    }
}

/// The order of two values of a type as the databases sort them; none with null or for what has no order.
pub(super) fn value_order(column_type: ColumnType, left: &Json, right: &Json) -> Option<Ordering> {
    match column_type {
        ColumnType::Text => Some(left.as_str()?.cmp(right.as_str()?)),
        ColumnType::Integer | ColumnType::Timestamp | ColumnType::Real => left.as_f64()?.partial_cmp(&right.as_f64()?),
        ColumnType::Bigint => Some(bigint::sort_key(left.as_str()?).cmp(&bigint::sort_key(right.as_str()?))),
        ColumnType::Boolean => Some(left.as_bool()?.cmp(&right.as_bool()?)),
        ColumnType::Bytes => {
            let bytes = |value: &Json| STANDARD.decode(value.as_str()?).ok();
            Some(bytes(left)?.cmp(&bytes(right)?))
        }
        ColumnType::Json | ColumnType::File => None,
    }
}

/// Whether a literal can be compared with what it is compared with.
pub(super) fn literal_problem(comparison: &Comparison) -> Option<String> {
    let empty = Map::new();
    let bindings = Bindings::of_context(&empty);
    let target = comparison.target();
    let check = |source: &Source, is_right: bool| match comparison.operator {
        Operator::In | Operator::NotIn if is_right => match source.value(&bindings) {
            Ok(Json::Array(_)) => fitted_list(source, target, &bindings).map(|_| ()),
            _ => Err(BindError::Unfit { source_name: "val".into(), expected: "a list" }),
        },
        Operator::Like | Operator::LikeIgnoreCase if is_right => fitted_pattern(source, &bindings).map(|_| ()),
        _ => fitted(source, target, &bindings).map(|_| ()),
    };
    [(Some(&comparison.left), false), (comparison.right.as_ref(), true)].into_iter().find_map(|(operand, is_right)| match operand {
        Some(Operand::Bound(source @ Source::Literal(_))) => check(source, is_right).err().map(|error| error.to_string()),
        _ => None,
    })
}
