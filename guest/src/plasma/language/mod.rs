//! The language of plasma: predicates and queries, checked against the schema, as SQL and in memory.
//!
//! Three-valued logic as in SQL. What comes from outside (`ctx`, `param`, `arg`, `item`, `outer`) is never part of the
//! text of a statement, so a text is constant per schema and operation. A `ctx` value of another type than it is
//! compared with counts as null; a `param`, `arg` or `item` of another type is an error.

mod bigint;
mod bind;
mod builder;
mod compile;
mod evaluate;
mod parse;
mod pattern;
mod query;
mod query_parse;
mod query_sql;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use bind::{BindError, Bindings, value_at};
pub use builder::{Compiled, Frame, Scope, Sources, SqlBuilder};
pub use compile::compile_exists;
pub use evaluate::{Lookup, evaluate};
pub use parse::{Allowed, Invalid, parse_predicate};
pub use query::{Aggregate, AggregateFunction, Field, Join, OrderKey, OrderTerm, Query, Related};
pub use query_parse::parse_query;
pub use query_sql::{CompiledQuery, compile_query, compile_query_after, with_read_auth};

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::schema::ColumnType;

/// A condition on a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Always or never.
    Const(bool),
    /// All of them; none is true.
    And(Vec<Predicate>),
    /// One of them; none is false.
    Or(Vec<Predicate>),
    /// True where the other is false or unknown.
    Not(Box<Predicate>),
    /// Some row of a table meets a condition, in which `outer` is the present row.
    Exists(Exists),
    /// Two operands, the left one of which may be a column.
    Compare(Comparison),
}

/// Rows of a table that meet a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Exists {
    /// The table.
    pub table: String,
    /// The condition on its rows.
    pub condition: Box<Predicate>,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// What is compared.
    pub left: Operand,
    /// What with; none for `isNull` and `isNotNull`.
    pub right: Option<Operand>,
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in`
    In,
    /// `notIn`
    NotIn,
    /// `isNull`
    IsNull,
    /// `isNotNull`
    IsNotNull,
    /// `like`
    Like,
    /// `ilike`
    LikeIgnoreCase,
    /// `startsWith`
    StartsWith,
    /// `contains`
    Contains,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A column of the present row or of the one around it.
    Column(ColumnOperand),
    /// A value from elsewhere.
    Bound(Source),
}

/// A column of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnOperand {
    /// Whether of the row around the `exists`.
    pub outer: bool,
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// The way into a JSON value, which is then compared as text; empty: the column itself.
    pub path: Vec<PathPart>,
}

/// One step into a JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum PathPart {
    /// A member of an object.
    Key(String),
    /// An element of an array.
    Index(u32),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// `val`
    Literal(Json),
    /// `ctx`: absent is null.
    Context(Vec<String>),
    /// `param`: absent is an error.
    Parameter(String),
    /// `arg` of a mutator: absent is null.
    Argument(Vec<String>),
    /// `item` of a mutator's `forEach`: absent is null.
    Item(Vec<String>),
}

/// The tables that a predicate reaches by `exists`, at any depth.
pub fn dependencies(predicate: &Predicate) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    collect_dependencies(predicate, &mut found);
    found
}

fn collect_dependencies<'a>(predicate: &'a Predicate, found: &mut BTreeSet<&'a str>) {
    match predicate {
        Predicate::Const(_) | Predicate::Compare(_) => {}
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().for_each(|part| collect_dependencies(part, found)),
        Predicate::Not(part) => collect_dependencies(part, found),
        Predicate::Exists(exists) => {
            found.insert(&exists.table);
            collect_dependencies(&exists.condition, found);
        }
    }
}

/// The same predicate with other names of parameters.
pub fn with_parameters_renamed(predicate: &Predicate, rename: &dyn Fn(&str) -> String) -> Predicate {
    let all = |parts: &[Predicate]| parts.iter().map(|part| with_parameters_renamed(part, rename)).collect();
    let operand = |operand: &Operand| match operand {
        Operand::Bound(Source::Parameter(name)) => Operand::Bound(Source::Parameter(rename(name))),
        other => other.clone(),
    };
    match predicate {
        Predicate::Const(_) => predicate.clone(),
        Predicate::And(parts) => Predicate::And(all(parts)),
        Predicate::Or(parts) => Predicate::Or(all(parts)),
        Predicate::Not(part) => Predicate::Not(Box::new(with_parameters_renamed(part, rename))),
        Predicate::Exists(exists) => {
            let condition = Box::new(with_parameters_renamed(&exists.condition, rename));
            Predicate::Exists(Exists { table: exists.table.clone(), condition })
        }
        Predicate::Compare(comparison) => Predicate::Compare(Comparison {
            operator: comparison.operator,
            left: operand(&comparison.left),
            right: comparison.right.as_ref().map(operand),
        }),
    }
}

/// Whether values of a type can be compared other than with null.
pub fn is_comparable(column_type: ColumnType) -> bool {
    !matches!(column_type, ColumnType::Json | ColumnType::File)
}

/// Whether values of two types can be compared with each other.
pub fn are_comparable(left: ColumnType, right: ColumnType) -> bool {
    let is_number = |column_type| matches!(column_type, ColumnType::Integer | ColumnType::Timestamp | ColumnType::Real);
    is_comparable(left) && (left == right || is_number(left) && is_number(right))
}

impl Operand {
    /// The type as which it is compared; none for what comes from elsewhere, which takes that of the other side.
    pub(super) fn compared_type(&self) -> Option<ColumnType> {
        match self {
            Self::Column(column) if column.path.is_empty() => Some(column.column_type),
            Self::Column(_) => Some(ColumnType::Text),
            Self::Bound(_) => None,
        }
    }

    /// Whether it is null by the text of the predicate.
    pub(super) fn is_literal_null(&self) -> bool {
        *self == Self::Bound(Source::Literal(Json::Null))
    }

    fn is_path(&self) -> bool {
        matches!(self, Self::Column(column) if !column.path.is_empty())
    }
}

impl Comparison {
    /// What the values from elsewhere must be.
    pub(super) fn target(&self) -> Target {
        let sides = || std::iter::once(&self.left).chain(&self.right);
        if sides().any(Operand::is_path) {
            return Target::PathText;
        }
        if matches!(self.operator, Operator::Like | Operator::LikeIgnoreCase | Operator::StartsWith | Operator::Contains) {
            return Target::Type(ColumnType::Text);
        }
        sides().find_map(Operand::compared_type).map_or(Target::Any, Target::Type)
    }

    /// Whether no row has a part in it.
    pub(super) fn is_row_free(&self) -> bool {
        std::iter::once(&self.left).chain(&self.right).all(|operand| matches!(operand, Operand::Bound(_)))
    }
}

/// What a value from elsewhere must be in order to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A value of a type.
    Type(ColumnType),
    /// A scalar of JSON as text.
    PathText,
    /// The other side comes from elsewhere, too.
    Any,
}
