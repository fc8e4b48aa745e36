//! Queries as SQL, and their results as rows.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use super::bind::Form;
use super::query::{Aggregate, AggregateFunction, Field, OrderKey, Query, Related};
use super::{BindError, Bindings, Compiled, Exists, Frame, Predicate, Scope, Sources, SqlBuilder, bigint, dependencies};
use crate::imports::{Dialect, RowSet, Statement, Value};
use crate::plasma::schema::{Column, ColumnType, RelationKind, Schema, from_sql, quoted, real_json, select_cell, type_cast, type_to_sql};

/// Arguments of one call of a function that makes a JSON array; databases take no more than 100.
const ARGUMENTS_MAX: usize = 50;

/// A query that can be run.
#[derive(Clone, Debug)]
pub struct CompiledQuery {
    compiled: Compiled,
    output: Vec<Output>,
    tables: BTreeSet<String>,
}

/// One column of the result.
#[derive(Clone, Debug)]
enum Output {
    Cell(Column),
    Related { name: String, kind: RelationKind, columns: Vec<Column> },
}

impl CompiledQuery {
    /// The statement with its values.
    pub fn statement(&self, bindings: &Bindings<'_>) -> Result<Statement, BindError> {
        self.compiled.statement(bindings, &[])
    }

    /// The same, with values for what [`compile_query_after`] left to be given.
    pub fn statement_given(&self, bindings: &Bindings<'_>, given: &[Value]) -> Result<Statement, BindError> {
        self.compiled.statement(bindings, given)
    }

    /// What it gave, in wire form.
    pub fn rows(&self, found: &RowSet) -> Vec<Map<String, Json>> {
        let cell = |output: &Output, cell: &Value| match output {
            Output::Cell(column) => (column.name.clone(), from_sql(column, cell)),
            Output::Related { name, kind, columns } => (name.clone(), related_rows(*kind, columns, cell)),
        };
        found.rows.iter().map(|row| self.output.iter().zip(row).map(|(output, value)| cell(output, value)).collect()).collect()
    }

    /// Every table whose rows the result depends on, those of read predicates included.
    pub fn tables(&self) -> &BTreeSet<String> {
        &self.tables
    }
}

/// Compiles a query. `read_auth`: whether the read predicates of all tables it touches are part of it.
pub fn compile_query(schema: &Schema, query: &Query, dialect: Dialect, sources: &Sources, read_auth: bool) -> CompiledQuery {
    compile_query_after(schema, query, dialect, sources, read_auth, &|_| {})
}

/// The same behind what `before` adds: common table expressions that sources name.
pub fn compile_query_after(
    schema: &Schema,
    query: &Query,
    dialect: Dialect,
    sources: &Sources,
    read_auth: bool,
    before: &dyn Fn(&mut SqlBuilder<'_>),
) -> CompiledQuery {
    let mut builder = SqlBuilder::new(dialect, sources);
    before(&mut builder);
    let mut compiler = Compiler { schema, query, read_auth, builder, names: BTreeMap::new(), tables: BTreeSet::new() };
    compiler.names = compiler.column_names();
    let output = if query.grouped {
        compiler.grouped()
    } else if query.distinct {
        compiler.distinct()
    } else {
        compiler.plain()
    };
    let Compiler { builder, tables, .. } = compiler;
    CompiledQuery { compiled: builder.finish(), output, tables }
}

/// A condition of a query with the read predicates of the tables that it reaches by `exists`. The `exists` inside those
/// are left alone.
pub fn with_read_auth(schema: &Schema, predicate: &Predicate) -> Predicate {
    let all = |parts: &[Predicate]| parts.iter().map(|part| with_read_auth(schema, part)).collect();
    match predicate {
        Predicate::Const(_) | Predicate::Compare(_) => predicate.clone(),
        Predicate::And(parts) => Predicate::And(all(parts)),
        Predicate::Or(parts) => Predicate::Or(all(parts)),
        Predicate::Not(part) => Predicate::Not(Box::new(with_read_auth(schema, part))),
        Predicate::Exists(exists) => {
            let read = schema.table(&exists.table).map(|table| table.auth.read.clone());
            let condition = with_read_auth(schema, &exists.condition);
            let both = std::iter::once(condition).chain(read).collect();
            Predicate::Exists(Exists { table: exists.table.clone(), condition: Box::new(Predicate::And(both)) })
        }
    }
}

struct Compiler<'a> {
    schema: &'a Schema,
    query: &'a Query,
    read_auth: bool,
    builder: SqlBuilder<'a>,
    /// The columns of the query's rows as SQL.
    names: BTreeMap<String, String>,
    tables: BTreeSet<String>,
}

impl Compiler<'_> {
    fn plain(&mut self) -> Vec<Output> {
        let query = self.query;
        self.builder.push("SELECT ");
        let mut output = Vec::new();
        for field in &query.select {
            self.separate(&output);
            self.cell(&field.column, &expression(field));
            output.push(Output::Cell(Column { name: field.name.clone(), ..field.column.clone() }));
        }
        for (position, related) in query.related.iter().enumerate() {
            self.separate(&output);
            self.related(position, related);
            output.push(Output::Related { name: related.name.clone(), kind: related.kind, columns: related.select.clone() });
        }
        self.source_and_condition();
        self.order(&|field| expression(field));
        self.limits();
        output
    }

    /// What is sorted by must be among what is given, but is not given as it is sorted: hence the inner query.
    fn distinct(&mut self) -> Vec<Output> {
        let query = self.query;
        let inner = |field: &Field| {
            let position = query.select.iter().position(|selected| selected == field);
            position.map_or_else(|| "NULL".to_owned(), |position| format!("\"d\".\"c{position}\""))
        };
        self.builder.push("SELECT ");
        let mut output = Vec::new();
        for field in &query.select {
            self.separate(&output);
            self.cell(&field.column, &inner(field));
            output.push(Output::Cell(Column { name: field.name.clone(), ..field.column.clone() }));
        }
        self.builder.push(" FROM (SELECT DISTINCT ");
        for (position, field) in query.select.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            self.builder.push(&format!("{comma}{} AS \"c{position}\"", expression(field)));
        }
        self.source_and_condition();
        self.builder.push(") AS \"d\"");
        self.order(&inner);
        self.limits();
        output
    }

    fn grouped(&mut self) -> Vec<Output> {
        let query = self.query;
        let dialect = self.builder.dialect;
        self.builder.push("SELECT ");
        let mut output = Vec::new();
        for field in &query.select {
            self.separate(&output);
            self.cell(&field.column, &expression(field));
            output.push(Output::Cell(Column { name: field.name.clone(), ..field.column.clone() }));
        }
        for aggregate in &query.aggregates {
            self.separate(&output);
            self.cell(&aggregate.column(), &aggregate_sql(aggregate, dialect));
            output.push(Output::Cell(aggregate.column()));
        }
        self.source_and_condition();
        if !query.group.is_empty() {
            let group: Vec<String> = query.group.iter().map(expression).collect();
            self.builder.push(" GROUP BY ").push(&group.join(", "));
        }
        if query.having != Predicate::Const(true) {
            let group = query.group.iter().map(|field| (field.name.clone(), expression(field)));
            let aggregates = query.aggregates.iter().map(|aggregate| (aggregate.name.clone(), aggregate_sql(aggregate, dialect)));
            let names = group.chain(aggregates).collect();
            self.builder.push(" HAVING ");
            self.condition(&query.having, Scope::Named(&names));
        }
        self.order(&|field| expression(field));
        self.limits();
        output
    }

    fn separate(&mut self, output: &[Output]) {
        if !output.is_empty() {
            self.builder.push(", ");
        }
    }

    fn cell(&mut self, column: &Column, expression: &str) {
        let cell = select_cell(column, expression, self.builder.dialect);
        self.builder.push(&cell);
    }

    fn column_names(&self) -> BTreeMap<String, String> {
        let columns = |alias: &str, table: &str, before: &str| -> Vec<(String, String)> {
            let columns = self.schema.table(table).map(|table| table.columns.as_slice()).unwrap_or_default();
            columns
                .iter()
                .map(|column| (format!("{before}{}", column.name), format!("{}.{}", quoted(alias), quoted(&column.name))))
                .collect()
        };
        let joins = self.query.joins.iter().enumerate();
        let joined = joins.flat_map(|(position, join)| columns(&format!("j{position}"), &join.table, &format!("{}.", join.alias)));
        columns("t0", &self.query.from, "").into_iter().chain(joined).collect()
    }

    /// Adds the condition of a query, with what its `exists` may see.
    fn condition(&mut self, condition: &Predicate, row: Scope<'_>) {
        let condition = if self.read_auth { with_read_auth(self.schema, condition) } else { condition.clone() };
        self.tables.extend(dependencies(&condition).into_iter().map(str::to_owned));
        self.builder.predicate(&condition, Frame { row, outer: None });
    }

    /// Adds what the caller may see of a table.
    fn readable(&mut self, table: &str, alias: &str) {
        self.tables.insert(table.to_owned());
        if let Some(table) = self.schema.table(table).filter(|table| self.read_auth && table.auth.read != Predicate::Const(true)) {
            self.tables.extend(dependencies(&table.auth.read).into_iter().map(str::to_owned));
            self.builder.push(" AND ").predicate(&table.auth.read, Frame::alias(alias));
        }
    }

    fn source_and_condition(&mut self) {
        let query = self.query;
        let relation = self.builder.sources.relation(&query.from);
        self.builder.push(" FROM ").push(&relation).push(" AS \"t0\"");
        for (position, join) in query.joins.iter().enumerate() {
            let relation = self.builder.sources.relation(&join.table);
            let (kind, alias) = (if join.left { " LEFT JOIN " } else { " JOIN " }, format!("j{position}"));
            let pairs: Vec<String> = join.on.iter().map(|(left, right)| format!("{} = {}", expression(left), expression(right))).collect();
            self.builder.push(kind).push(&relation).push(" AS ").push(&quoted(&alias)).push(" ON ").push(&pairs.join(" AND "));
            self.readable(&join.table, &alias);
        }
        self.builder.push(" WHERE ");
        let names = std::mem::take(&mut self.names);
        self.condition(&query.condition, Scope::Named(&names));
        self.names = names;
        self.readable(&query.from, "t0");
        if let Some(after) = &query.after {
            self.builder.push(" AND ");
            self.after(after);
        }
    }

    /// Adds the condition that a row comes after one with these values of the order.
    fn after(&mut self, values: &[Json]) {
        let terms = self.query.order.iter().zip(values).filter_map(|(term, value)| match &term.key {
            OrderKey::Field(field) => Some((field, term.descending, value)),
            OrderKey::Aggregate(_) => None,
        });
        let terms: Vec<_> = terms.collect();
        self.builder.push("(");
        for (position, (field, descending, value)) in terms.iter().enumerate() {
            self.builder.push(if position > 0 { " OR (" } else { "(" });
            for (field, _, value) in &terms[..position] {
                self.builder.push(&expression(field));
                if value.is_null() {
                    self.builder.push(" IS NULL AND ");
                } else {
                    self.builder.push(" = ");
                    self.order_value(field, value, false);
                    self.builder.push(" AND ");
                }
            }
            let column = expression(field);
            match (value.is_null(), descending) {
                (true, false) => _ = self.builder.push(&format!("{column} IS NOT NULL")),
                (true, true) => _ = self.builder.push("1=0"),
                (false, false) => {
                    let sorted = self.sorted(&column, field.column.column_type);
                    self.builder.push(&sorted).push(" > ");
                    self.order_value(field, value, true);
                }
                (false, true) => {
                    let sorted = self.sorted(&column, field.column.column_type);
                    self.builder.push("(").push(&sorted).push(" < ");
                    self.order_value(field, value, true);
                    self.builder.push(&format!(" OR {column} IS NULL)"));
                }
            }
            self.builder.push(")");
        }
        self.builder.push(")");
    }

    fn order_value(&mut self, field: &Field, value: &Json, sorted: bool) {
        let column_type = field.column.column_type;
        let is_key = sorted && column_type == ColumnType::Bigint && self.builder.dialect == Dialect::Sqlite;
        let form = if is_key { Form::SortKey } else { Form::Plain };
        let value = match (form, value) {
            (Form::SortKey, Json::String(digits)) => Value::Text(bigint::sort_key(digits)),
            _ => type_to_sql(column_type, value),
        };
        self.builder.fixed(value, type_cast(column_type));
    }

    /// An expression that sorts as its type does.
    fn sorted(&self, expression: &str, column_type: ColumnType) -> String {
        match (self.builder.dialect, column_type) {
            (Dialect::Sqlite, ColumnType::Bigint) => bigint::sort_key_sql(expression),
            (Dialect::Postgres, ColumnType::Text) => format!("{expression} COLLATE \"C\""),
            _ => expression.to_owned(),
        }
    }

    fn order_term(&self, expression: &str, column_type: ColumnType, descending: bool) -> String {
        let direction = if descending { "DESC NULLS LAST" } else { "ASC NULLS FIRST" };
        format!("{} {direction}", self.sorted(expression, column_type))
    }

    fn order(&mut self, expression: &dyn Fn(&Field) -> String) {
        let query = self.query;
        let terms = query.order.iter().map(|term| match &term.key {
            OrderKey::Field(field) => self.order_term(&expression(field), field.column.column_type, term.descending),
            OrderKey::Aggregate(position) => {
                let aggregate = &query.aggregates[*position];
                self.order_term(&aggregate_sql(aggregate, self.builder.dialect), aggregate.column_type(), term.descending)
            }
        });
        let terms: Vec<String> = terms.collect();
        if !terms.is_empty() {
            self.builder.push(" ORDER BY ").push(&terms.join(", "));
        }
    }

    fn limits(&mut self) {
        if let Some(limit) = self.query.limit {
            self.builder.push(" LIMIT ").fixed(limit.into(), "::bigint");
        }
        if let Some(offset) = self.query.offset {
            if self.query.limit.is_none() && self.builder.dialect == Dialect::Sqlite {
                self.builder.push(" LIMIT -1");
            }
            self.builder.push(" OFFSET ").fixed(offset.into(), "::bigint");
        }
    }

    /// Adds one correlated subquery that gives an array of rows, each an array of arrays of cells.
    fn related(&mut self, position: usize, related: &Related) {
        let alias = format!("r{position}");
        let dialect = self.builder.dialect;
        let cells: Vec<String> = related
            .select
            .iter()
            .enumerate()
            .map(|(position, column)| nested_cell(column, &format!("\"s\".\"c{position}\""), dialect))
            .collect();
        let array = if dialect == Dialect::Sqlite { "json_array" } else { "json_build_array" };
        let parts: Vec<String> = cells.chunks(ARGUMENTS_MAX).map(|cells| format!("{array}({})", cells.join(", "))).collect();
        let row = format!("{array}({})", parts.join(", "));
        match dialect {
            Dialect::Sqlite => self.builder.push("(SELECT json_group_array(").push(&row).push(") FROM (SELECT "),
            Dialect::Postgres => self.builder.push("(SELECT coalesce(json_agg(").push(&row).push("), '[]'::json) FROM (SELECT "),
        };
        let column = |alias: &str, name: &str| format!("{}.{}", quoted(alias), quoted(name));
        let selected: Vec<String> = related
            .select
            .iter()
            .enumerate()
            .map(|(position, selected)| format!("{} AS \"c{position}\"", column(&alias, &selected.name)))
            .collect();
        let relation = self.builder.sources.relation(&related.table);
        self.builder.push(&selected.join(", ")).push(" FROM ").push(&relation).push(" AS ").push(&quoted(&alias)).push(" WHERE ");
        for (from, to) in related.from.iter().zip(&related.to) {
            self.builder.push(&format!("{} = {} AND ", column(&alias, to), column("t0", from)));
        }
        self.condition(&related.condition, Scope::Alias(&alias));
        self.readable(&related.table, &alias);
        let order = related.order.iter();
        let order: Vec<String> =
            order.map(|(sorted, descending)| self.order_term(&column(&alias, &sorted.name), sorted.column_type, *descending)).collect();
        self.builder.push(" ORDER BY ").push(&order.join(", "));
        let limit = if related.kind == RelationKind::One { Some(related.limit.unwrap_or(1).min(1)) } else { related.limit };
        if let Some(limit) = limit {
            self.builder.push(" LIMIT ").fixed(limit.into(), "::bigint");
        }
        self.builder.push(") AS \"s\")");
        if dialect == Dialect::Postgres {
            self.builder.push("::text");
        }
    }
}

fn expression(field: &Field) -> String {
    let alias = field.join.map_or_else(|| "t0".to_owned(), |position| format!("j{position}"));
    format!("{}.{}", quoted(&alias), quoted(&field.column.name))
}

fn aggregate_sql(aggregate: &Aggregate, dialect: Dialect) -> String {
    let Some(field) = &aggregate.field else { return "count(*)".into() };
    let column = expression(field);
    let is_bigint_text = dialect == Dialect::Sqlite && field.column.column_type == ColumnType::Bigint;
    let argument = if aggregate.distinct { format!("DISTINCT {column}") } else { column.clone() };
    let is_whole = field.column.column_type != ColumnType::Real;
    match (aggregate.function, dialect) {
        (AggregateFunction::Count, _) => format!("count({argument})"),
        // As wide as in SQLite; PostgreSQL would go on in `numeric`.
        (AggregateFunction::Sum, Dialect::Postgres) if is_whole => format!("sum({argument})::bigint"),
        (AggregateFunction::Sum, _) => format!("sum({argument})"),
        (AggregateFunction::Average, Dialect::Sqlite) => format!("avg({argument})"),
        // As SQLite computes it, to the last bit.
        (AggregateFunction::Average, Dialect::Postgres) => format!("(sum({argument})::double precision / nullif(count({argument}), 0))"),
        (AggregateFunction::Minimum, _) if is_bigint_text => bigint::value_of_key_sql(&format!("min({})", bigint::sort_key_sql(&column))),
        (AggregateFunction::Maximum, _) if is_bigint_text => bigint::value_of_key_sql(&format!("max({})", bigint::sort_key_sql(&column))),
        (AggregateFunction::Minimum, _) => format!("min({column})"),
        (AggregateFunction::Maximum, _) => format!("max({column})"),
    }
}

/// A cell as a member of a JSON array.
fn nested_cell(column: &Column, expression: &str, dialect: Dialect) -> String {
    match (dialect, column.column_type) {
        (Dialect::Sqlite, _) if column.is_json() => format!("json({expression})"),
        (Dialect::Postgres, _) if column.is_json() => expression.to_owned(),
        (Dialect::Sqlite, ColumnType::Bytes) => format!("CASE WHEN {expression} IS NOT NULL THEN hex({expression}) END"),
        (Dialect::Postgres, ColumnType::Bytes) => format!("encode({expression}, 'hex')"),
        (Dialect::Postgres, ColumnType::Bigint) => format!("{expression}::text"),
        _ => expression.to_owned(),
    }
}

fn related_rows(kind: RelationKind, columns: &[Column], cell: &Value) -> Json {
    let parsed = match cell {
        Value::Text(text) => serde_json::from_str::<Vec<Vec<Vec<Json>>>>(text).unwrap_or_default(),
        _ => Vec::new(),
    };
    let rows = parsed.into_iter().map(|parts| {
        let cells = parts.into_iter().flatten();
        Json::Object(columns.iter().zip(cells).map(|(column, value)| (column.name.clone(), unnested(column, value))).collect())
    });
    let mut rows: Vec<Json> = rows.collect();
    match kind {
        RelationKind::Many => Json::Array(rows),
        RelationKind::One => rows.pop().unwrap_or(Json::Null),
    }
}

fn unnested(column: &Column, value: Json) -> Json {
    match (column.column_type, &value) {
        _ if column.is_json() => value,
        (ColumnType::Boolean, Json::Number(number)) => Json::Bool(number.as_i64() != Some(0)),
        (ColumnType::Real, Json::Number(number)) => number.as_f64().map_or(Json::Null, real_json),
        (ColumnType::Bytes, Json::String(hex)) => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
            let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |byte, half| byte * 16 + digit(half))).collect();
            Json::String(STANDARD.encode(bytes))
        }
        _ => value,
    }
}
