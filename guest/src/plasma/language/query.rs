//! Queries as they are after all checks.

use serde_json::Value as Json;

use super::Predicate;
use crate::plasma::schema::{Column, ColumnType, RelationKind};

/// A query, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The table that it reads.
    pub from: String,
    /// What it gives beside relations and aggregates.
    pub select: Vec<Field>,
    /// Whether equal rows are given once.
    pub distinct: bool,
    /// Which rows.
    pub condition: Predicate,
    /// In which order; total wherever the columns allow it.
    pub order: Vec<OrderTerm>,
    /// How many rows at most.
    pub limit: Option<i64>,
    /// How many are left out first.
    pub offset: Option<i64>,
    /// The values of `order` in the row after which it begins.
    pub after: Option<Vec<Json>>,
    /// Rows of other tables, inside each row.
    pub related: Vec<Related>,
    /// Tables beside the first.
    pub joins: Vec<Join>,
    /// Whether rows are put together in groups; without columns all are one.
    pub grouped: bool,
    /// What is equal in a group.
    pub group: Vec<Field>,
    /// What is computed of each group.
    pub aggregates: Vec<Aggregate>,
    /// Which groups.
    pub having: Predicate,
}

/// A column of the table or of a joined one.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// As the query names it: `column`, or `alias.column` of a joined table.
    pub name: String,
    /// The joined table, by its place in [`Query::joins`].
    pub join: Option<usize>,
    /// The column.
    pub column: Column,
}

/// One term of an order. Nulls are less than all else.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderTerm {
    /// By what.
    pub key: OrderKey,
    /// Whether the largest comes first.
    pub descending: bool,
}

/// By what rows are sorted.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderKey {
    /// A column.
    Field(Field),
    /// An aggregate, by its place in [`Query::aggregates`].
    Aggregate(usize),
}

/// Rows of another table that belong to a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Related {
    /// The key under which they are given.
    pub name: String,
    /// An object or a list.
    pub kind: RelationKind,
    /// The other table.
    pub table: String,
    /// Columns of the first table.
    pub from: Vec<String>,
    /// As many of the other, equal to them.
    pub to: Vec<String>,
    /// What is given of each.
    pub select: Vec<Column>,
    /// Which of them.
    pub condition: Predicate,
    /// In which order; total.
    pub order: Vec<(Column, bool)>,
    /// How many at most.
    pub limit: Option<i64>,
}

/// A table beside the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Whether rows without a partner stay, with nulls.
    pub left: bool,
    /// The table.
    pub table: String,
    /// The name before its columns.
    pub alias: String,
    /// A column of an earlier table and one of this, equal to it.
    pub on: Vec<(Field, Field)>,
}

/// What is computed of a group. Sums of whole numbers are whole, and an error of the database beyond 64 bits; averages
/// are doubles; all but counts are null where there is no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The key under which it is given.
    pub name: String,
    /// Which.
    pub function: AggregateFunction,
    /// Of what; only `count` needs none.
    pub field: Option<Field>,
    /// Whether equal values count once.
    pub distinct: bool,
}

/// Which aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateFunction {
    /// Rows, or values that are not null.
    Count,
    /// The sum of numbers.
    Sum,
    /// Their average.
    Average,
    /// The least.
    Minimum,
    /// The largest.
    Maximum,
}

impl Aggregate {
    /// The type of the result.
    pub fn column_type(&self) -> ColumnType {
        let of_field = self.field.as_ref().map_or(ColumnType::Integer, |field| field.column.column_type);
        match self.function {
            AggregateFunction::Count => ColumnType::Integer,
            AggregateFunction::Average => ColumnType::Real,
            AggregateFunction::Sum if of_field == ColumnType::Timestamp => ColumnType::Integer,
            AggregateFunction::Sum | AggregateFunction::Minimum | AggregateFunction::Maximum => of_field,
        }
    }

    /// The result as a column of the result rows.
    pub(super) fn column(&self) -> Column {
        result_column(&self.name, self.column_type())
    }
}

/// A column of result rows.
pub(super) fn result_column(name: &str, column_type: ColumnType) -> Column {
    Column { name: name.into(), column_type, nullable: true, default: None, encrypted: false, references: None }
}
