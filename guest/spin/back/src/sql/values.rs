//! How the contract's values become parameters of PostgreSQL.
//!
//! Spin's driver lets the server say what type each placeholder has, and then refuses a parameter that is not exactly of
//! that. The logic counts on more: whole numbers go into every kind of number, and text into whatever a cast says. So a
//! parameter is either bound in the type that is wanted, or bound in its own and cast in the statement.

use super::scan::{Placed, Token, tokens};
use super::{Dialect, Error, Value};
use crate::ports::Bound;

/// How one parameter is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// In the type of its own: bigint, double precision, text, bytea.
    Own,
    /// As `boolean`.
    Boolean,
    /// As `smallint`.
    Int16,
    /// As `integer`.
    Int32,
    /// As `real`.
    Float32,
    /// As `double precision`.
    Float64,
    /// In its own type, and cast to this one in the statement.
    Cast(String),
}

/// What is known of how the parameters of a statement are bound.
pub(super) type Plan = Vec<Binding>;

/// What the casts in a statement say of its parameters.
pub(super) fn guess(sql: &str, parameters: &[Value]) -> Plan {
    let mut plan = vec![Binding::Own; parameters.len()];
    let placed = tokens(sql, Dialect::Postgres);
    for (index, token) in placed.iter().enumerate() {
        let Token::Placeholder(number) = token.token else { continue };
        let Some(value) = number.checked_sub(1).and_then(|number| parameters.get(number)) else { continue };
        if let Some(wanted) = cast_of(&placed[index + 1..]) {
            plan[number - 1] = binding(value, &wanted).unwrap_or(Binding::Own);
        }
    }
    plan
}

/// The type in `$1::type` or `CAST($1 AS type)`, of which the placeholder was just seen.
fn cast_of(rest: &[Placed<'_>]) -> Option<String> {
    let word = |index: usize| match rest.get(index)?.token {
        Token::Word(word) => Some(word.to_ascii_lowercase()),
        _ => None,
    };
    let mark = |index: usize| rest.get(index).map(|placed| placed.token) == Some(Token::Mark(':'));
    if mark(0) && mark(1) {
        return word(2);
    }
    if word(0)? == "as" { word(1) } else { None }
}

/// How a value is bound where a type is wanted; none where it has no form in that type.
pub(super) fn binding(value: &Value, wanted: &str) -> Option<Binding> {
    let wanted = wanted.to_ascii_lowercase();
    Some(match (value, wanted.as_str()) {
        (Value::Null, _) => Binding::Own,
        (Value::Integer(_), "int8" | "bigint") => Binding::Own,
        (Value::Integer(number), "bool" | "boolean") => matches!(number, 0 | 1).then_some(Binding::Boolean)?,
        (Value::Integer(_), "int2" | "smallint") => Binding::Int16,
        (Value::Integer(_), "int4" | "int" | "integer") => Binding::Int32,
        (Value::Integer(_) | Value::Real(_), "float4" | "real") => Binding::Float32,
        (Value::Integer(_), "float8" | "double" | "float") => Binding::Float64,
        (Value::Integer(_) | Value::Real(_), "numeric" | "decimal") => Binding::Cast("numeric".into()),
        (Value::Integer(_), "oid") => Binding::Cast("oid".into()),
        (Value::Real(_), "float8" | "double" | "float") => Binding::Own,
        (Value::Text(_), "text" | "varchar" | "character" | "char" | "bpchar" | "name" | "citext" | "unknown") => Binding::Own,
        (
            Value::Text(_),
            "bool" | "boolean" | "int2" | "smallint" | "int4" | "int" | "integer" | "int8" | "bigint" | "float4" | "real" | "float8"
            | "double" | "float" | "bytea" | "oid",
        ) => return None,
        (Value::Text(_), other) => Binding::Cast(type_name(other)?),
        (Value::Blob(_), "bytea") => Binding::Own,
        _ => return None,
    })
}

/// A type of the driver, or one that a cast names, in SQL. Nothing but a plain name gets into a statement.
fn type_name(wanted: &str) -> Option<String> {
    let (name, array) = match wanted.strip_suffix("array") {
        Some(member) if !member.is_empty() => (member, "[]"),
        _ => (wanted, ""),
    };
    let name = match name.split_once("name: \"") {
        // A type of somebody's own: `other(other { name: "mood", …`.
        Some((_, rest)) => rest.split_once('"')?.0,
        None => name,
    };
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_plain.then(|| format!("{name}{array}"))
}

/// The statement with the casts that the bindings need.
pub(super) fn with_casts(sql: &str, parameters: &[Value], plan: &Plan) -> String {
    if plan.iter().all(|binding| !matches!(binding, Binding::Cast(_))) {
        return sql.to_owned();
    }
    let (mut cast, mut copied) = (String::with_capacity(sql.len() + 64), 0);
    for placed in tokens(sql, Dialect::Postgres) {
        let Token::Placeholder(number) = placed.token else { continue };
        let index = number.wrapping_sub(1);
        if let (Some(Binding::Cast(wanted)), Some(value)) = (plan.get(index), parameters.get(index)) {
            let own = match value {
                Value::Integer(_) => "bigint",
                Value::Real(_) => "double precision",
                Value::Blob(_) => "bytea",
                Value::Text(_) | Value::Null => "text",
            };
            cast.push_str(&sql[copied..placed.start]);
            cast.push_str(&format!("CAST(CAST(${number} AS {own}) AS {wanted})"));
            copied = placed.end;
        }
    }
    cast.push_str(&sql[copied..]);
    cast
}

/// A parameter as it is bound.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the column has the precision that it has")]
pub(super) fn bound(index: usize, value: &Value, binding: &Binding) -> Result<Bound, Error> {
    let narrow = |wanted: &str| Error::InvalidStatement(format!("${}: the number is no {wanted}", index + 1));
    Ok(match (value, binding) {
        (Value::Null, _) => Bound::Null,
        (Value::Integer(number), Binding::Boolean) => Bound::Boolean(*number != 0),
        (Value::Integer(number), Binding::Int16) => Bound::Int16(i16::try_from(*number).map_err(|_| narrow("smallint"))?),
        (Value::Integer(number), Binding::Int32) => Bound::Int32(i32::try_from(*number).map_err(|_| narrow("integer"))?),
        (Value::Integer(number), Binding::Float32) => Bound::Float32(*number as f32),
        (Value::Integer(number), Binding::Float64) => Bound::Float64(*number as f64),
        (Value::Integer(number), _) => Bound::Int64(*number),
        (Value::Real(number), Binding::Float32) => Bound::Float32(*number as f32),
        (Value::Real(number), _) => Bound::Float64(*number),
        (Value::Text(text), _) if text.contains('\0') => {
            return Err(Error::InvalidStatement(format!("${}: PostgreSQL keeps no text with a NUL character", index + 1)));
        }
        (Value::Text(text), _) => Bound::Text(text.clone()),
        (Value::Blob(bytes), _) => Bound::Bytes(bytes.clone()),
    })
}

/// How many parameters the placeholders of a statement stand for.
pub(super) fn placeholder_count(sql: &str) -> usize {
    let number = |placed: &Placed<'_>| if let Token::Placeholder(number) = placed.token { Some(number) } else { None };
    tokens(sql, Dialect::Postgres).iter().filter_map(number).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_in_the_statement_say_how_parameters_are_bound() {
        let sql = "INSERT INTO t VALUES ($1::boolean, CAST($2 AS integer), $3::text::jsonb, CAST($4 AS jsonb), $5, $6::numeric)";
        let parameters = [Value::Integer(1), Value::Integer(2), "{}".into(), "{}".into(), Value::Integer(5), Value::Integer(6)];
        let plan = guess(sql, &parameters);
        let cast = |name: &str| Binding::Cast(name.into());
        assert_eq!(plan, [Binding::Boolean, Binding::Int32, Binding::Own, cast("jsonb"), Binding::Own, cast("numeric")]);
        assert_eq!(
            with_casts(sql, &parameters, &plan),
            "INSERT INTO t VALUES ($1::boolean, CAST($2 AS integer), $3::text::jsonb, CAST(CAST(CAST($4 AS text) AS jsonb) AS jsonb), $5, \
             CAST(CAST($6 AS bigint) AS numeric)::numeric)"
        );
    }

    #[test]
    fn what_has_no_form_in_a_type_is_not_bound() {
        assert_eq!(binding(&"1".into(), "Int8"), None);
        assert_eq!(binding(&Value::Integer(2), "Bool"), None);
        assert_eq!(binding(&Value::Blob(vec![]), "Jsonb"), None);
        assert_eq!(binding(&"x".into(), "Jsonb; DROP TABLE t"), None);
        assert_eq!(binding(&"{}".into(), "TextArray"), Some(Binding::Cast("text[]".into())));
        assert_eq!(binding(&"sad".into(), "Other(Other { name: \"mood\", oid: 1 })"), Some(Binding::Cast("mood".into())));
        assert!(bound(0, &Value::Integer(1 << 40), &Binding::Int32).is_err());
        assert!(bound(0, &"a\0b".into(), &Binding::Own).is_err());
    }
}
