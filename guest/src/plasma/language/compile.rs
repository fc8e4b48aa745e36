//! Predicates as SQL.

use super::bind::{Form, Slot};
use super::builder::{Compiled, Frame, Scope, Sources, SqlBuilder};
use super::{ColumnOperand, Comparison, Exists, Operand, Operator, PathPart, Predicate, Target, bigint};
use crate::imports::{Dialect, Value};
use crate::plasma::schema::{ColumnType, member_to_type, quoted, type_cast};

/// A statement that gives one row where the `exists` holds for the row in [`super::Bindings::outer`], else none.
pub fn compile_exists(exists: &Exists, dialect: Dialect, sources: &Sources) -> Compiled {
    let mut builder = SqlBuilder::new(dialect, sources);
    builder.push("SELECT 1 FROM ").push(&sources.relation(&exists.table)).push(" AS \"e0\" WHERE ");
    builder.predicate(&exists.condition, Frame { row: Scope::Alias("e0"), outer: Some(Scope::Bound) });
    builder.push(" LIMIT 1");
    builder.finish()
}

impl SqlBuilder<'_> {
    /// Adds a predicate in parentheses.
    pub fn predicate(&mut self, predicate: &Predicate, frame: Frame<'_>) -> &mut Self {
        match predicate {
            Predicate::Const(true) => self.push("(1=1)"),
            Predicate::Const(false) => self.push("(1=0)"),
            Predicate::And(parts) => self.joined(parts, " AND ", "(1=1)", frame),
            Predicate::Or(parts) => self.joined(parts, " OR ", "(1=0)", frame),
            Predicate::Not(part) => {
                let unknown = if self.dialect == Dialect::Sqlite { "0" } else { "false" };
                self.push("(NOT coalesce(").predicate(part, frame).push(", ").push(unknown).push("))")
            }
            Predicate::Exists(exists) => self.exists(exists, frame),
            Predicate::Compare(comparison) if comparison.is_row_free() => {
                self.push("(").placeholder(Slot::Condition(comparison.clone()), "::boolean").push(")")
            }
            Predicate::Compare(comparison) => {
                self.push("(");
                self.comparison(comparison, frame);
                self.push(")")
            }
        }
    }

    fn joined(&mut self, parts: &[Predicate], word: &str, none: &str, frame: Frame<'_>) -> &mut Self {
        if parts.is_empty() {
            return self.push(none);
        }
        self.push("(");
        for (position, part) in parts.iter().enumerate() {
            self.push(if position == 0 { "" } else { word }).predicate(part, frame);
        }
        self.push(")")
    }

    fn exists(&mut self, exists: &Exists, frame: Frame<'_>) -> &mut Self {
        self.exists_count += 1;
        let alias = format!("e{}", self.exists_count);
        let relation = self.sources.relation(&exists.table);
        self.push("(EXISTS (SELECT 1 FROM ").push(&relation).push(" AS ").push(&quoted(&alias)).push(" WHERE ");
        self.predicate(&exists.condition, Frame { row: Scope::Alias(&alias), outer: Some(frame.row) });
        self.push("))")
    }

    fn comparison(&mut self, comparison: &Comparison, frame: Frame<'_>) {
        let Comparison { operator, left, right } = comparison;
        let null_check = |other: &Operand| other.is_literal_null() && matches!(operator, Operator::Equal | Operator::NotEqual);
        match (operator, right) {
            (Operator::IsNull | Operator::IsNotNull, _) | (_, None) => self.null_check(left, *operator == Operator::IsNull, frame),
            (_, Some(right)) if null_check(right) => self.null_check(left, *operator == Operator::Equal, frame),
            (_, Some(right)) if null_check(left) => self.null_check(right, *operator == Operator::Equal, frame),
            (Operator::In | Operator::NotIn, Some(right)) => self.membership(comparison, right, frame),
            (Operator::Like | Operator::LikeIgnoreCase, Some(right)) => self.like(comparison, right, frame),
            (Operator::StartsWith | Operator::Contains, Some(right)) => self.substring(comparison, right, frame),
            (_, Some(right)) => self.relation(comparison, right, frame),
        }
    }

    fn null_check(&mut self, operand: &Operand, is_null: bool, frame: Frame<'_>) {
        match operand {
            // Not its text: what a container is there has none.
            Operand::Column(column) if !column.path.is_empty() => self.path_value(column, frame),
            _ => self.operand(operand, Target::Any, Form::Plain, frame),
        }
        self.push(if is_null { " IS NULL" } else { " IS NOT NULL" });
    }

    fn relation(&mut self, comparison: &Comparison, right: &Operand, frame: Frame<'_>) {
        let (target, operator) = (comparison.target(), comparison.operator);
        let is_order = !matches!(operator, Operator::Equal | Operator::NotEqual);
        let form = if is_order && target == Target::Type(ColumnType::Bigint) { self.bigint_form() } else { Form::Plain };
        self.operand(&comparison.left, target, form, frame);
        if is_order && self.dialect == Dialect::Postgres && target.sql_type() == ColumnType::Text {
            self.push(" COLLATE \"C\"");
        }
        self.push(match (operator, self.dialect) {
            (Operator::NotEqual, Dialect::Sqlite) => " IS NOT ",
            (Operator::NotEqual, Dialect::Postgres) => " IS DISTINCT FROM ",
            (Operator::Less, _) => " < ",
            (Operator::LessOrEqual, _) => " <= ",
            (Operator::Greater, _) => " > ",
            (Operator::GreaterOrEqual, _) => " >= ",
            _ => " = ",
        });
        self.operand(right, target, form, frame);
    }

    fn bigint_form(&self) -> Form {
        if self.dialect == Dialect::Sqlite { Form::SortKey } else { Form::Plain }
    }

    fn membership(&mut self, comparison: &Comparison, right: &Operand, frame: Frame<'_>) {
        let (target, is_in) = (comparison.target(), comparison.operator == Operator::In);
        self.operand(&comparison.left, target, Form::Plain, frame);
        let member = |name| member_to_type(target.sql_type(), name, self.dialect);
        let (open, close) = match (self.dialect, is_in) {
            (Dialect::Sqlite, true) => (format!(" IN (SELECT {} FROM json_each(", member("value")), "))"),
            (Dialect::Sqlite, false) => (format!(" NOT IN (SELECT {} FROM json_each(", member("value")), "))"),
            (Dialect::Postgres, true) => {
                (format!(" = ANY (ARRAY(SELECT {} FROM json_array_elements_text(", member("\"member\"")), ") AS \"member\"))")
            }
            (Dialect::Postgres, false) => {
                (format!(" <> ALL (ARRAY(SELECT {} FROM json_array_elements_text(", member("\"member\"")), ") AS \"member\"))")
            }
        };
        self.push(&open);
        self.bound(right, target, Form::List, "::text::json");
        self.push(close);
    }

    fn like(&mut self, comparison: &Comparison, right: &Operand, frame: Frame<'_>) {
        let operator = comparison.operator;
        self.operand(&comparison.left, comparison.target(), Form::Plain, frame);
        let (word, escape) = match (self.dialect, operator) {
            (Dialect::Sqlite, Operator::Like) => (" GLOB ", ""),
            (Dialect::Sqlite, _) => (" LIKE ", " ESCAPE '\\'"),
            (Dialect::Postgres, Operator::Like) => (" LIKE ", " ESCAPE '\\'"),
            // Letters of ASCII only, whatever the locale of the database.
            (Dialect::Postgres, _) => (" COLLATE \"C\" ILIKE ", " ESCAPE '\\'"),
        };
        self.push(word);
        let form = if (self.dialect, operator) == (Dialect::Sqlite, Operator::Like) { Form::Glob } else { Form::Pattern };
        self.bound(right, Target::Type(ColumnType::Text), form, "::text");
        self.push(escape);
    }

    fn substring(&mut self, comparison: &Comparison, right: &Operand, frame: Frame<'_>) {
        let (target, operator) = (comparison.target(), comparison.operator);
        let add = |builder: &mut Self, operand: &Operand| builder.operand(operand, target, Form::Plain, frame);
        match (self.dialect, operator) {
            (Dialect::Sqlite, Operator::StartsWith) => {
                self.push("substr(");
                add(self, &comparison.left);
                self.push(", 1, length(");
                add(self, right);
                self.push(")) = ");
                add(self, right);
            }
            (Dialect::Postgres, Operator::StartsWith) => {
                self.push("starts_with(");
                add(self, &comparison.left);
                self.push(", ");
                add(self, right);
                self.push(")");
            }
            (Dialect::Sqlite, _) => {
                self.push("instr(");
                add(self, &comparison.left);
                self.push(", ");
                add(self, right);
                self.push(") > 0");
            }
            (Dialect::Postgres, _) => {
                self.push("position(");
                add(self, right);
                self.push(" in ");
                add(self, &comparison.left);
                self.push(") > 0");
            }
        }
    }

    /// Adds a value from elsewhere.
    fn bound(&mut self, operand: &Operand, target: Target, form: Form, cast: &str) {
        match operand {
            Operand::Bound(source) => {
                self.placeholder(Slot::Source { source: source.clone(), target, form }, cast);
            }
            // The parser lets no column be a list or a pattern.
            Operand::Column(_) => {
                self.push("NULL");
            }
        }
    }

    fn operand(&mut self, operand: &Operand, target: Target, form: Form, frame: Frame<'_>) {
        match operand {
            Operand::Bound(_) => self.bound(operand, target, form, type_cast(target.sql_type())),
            Operand::Column(column) if !column.path.is_empty() => self.path_text(column, frame),
            Operand::Column(column) => self.column(column, form, frame),
        }
    }

    fn column(&mut self, column: &ColumnOperand, form: Form, frame: Frame<'_>) {
        let scope = if column.outer { frame.outer.unwrap_or(Scope::Bound) } else { frame.row };
        match scope.column(&column.name) {
            Some(sql) if form == Form::SortKey => self.push(&bigint::sort_key_sql(&sql)),
            Some(sql) => self.push(&sql),
            None => {
                let slot = Slot::Outer { name: column.name.clone(), column_type: column.column_type, form };
                self.placeholder(slot, type_cast(column.column_type))
            }
        };
    }

    /// Adds the scalar at the end of a path as text; containers have none.
    fn path_text(&mut self, column: &ColumnOperand, frame: Frame<'_>) {
        match self.dialect {
            Dialect::Sqlite => {
                self.push("(CASE json_type(");
                self.column(column, Form::Plain, frame);
                self.push(", ")
                    .path(column)
                    .push(") WHEN 'null' THEN NULL WHEN 'object' THEN NULL WHEN 'array' THEN NULL WHEN 'text' THEN ");
                self.path_value(column, frame);
                self.push(" ELSE ");
                self.column(column, Form::Plain, frame);
                // The text of a number or a boolean as it is stored.
                self.push(" -> ").path(column).push(" END)");
            }
            Dialect::Postgres => {
                self.push("(CASE WHEN jsonb_typeof(");
                self.step(column, frame);
                self.push(") IN ('object', 'array') THEN NULL ELSE ");
                self.path_value(column, frame);
                self.push(" END)");
            }
        }
    }

    /// Adds what is at the end of a path, null where there is nothing or a JSON null.
    fn path_value(&mut self, column: &ColumnOperand, frame: Frame<'_>) {
        match self.dialect {
            Dialect::Sqlite => {
                self.push("json_extract(");
                self.column(column, Form::Plain, frame);
                self.push(", ").path(column).push(")");
            }
            Dialect::Postgres => {
                self.push("(");
                self.step(column, frame);
                self.push(" #>> '{}')");
            }
        }
    }

    /// Adds the path. In PostgreSQL it is strict: `->` would take a scalar for an array of one, and `#>` a key for a position.
    fn path(&mut self, column: &ColumnOperand) -> &mut Self {
        let part = |part: &PathPart| match part {
            PathPart::Key(key) => format!(".\"{key}\""),
            PathPart::Index(index) => format!("[{index}]"),
        };
        let start = if self.dialect == Dialect::Sqlite { "$" } else { "strict $" };
        let path: String = std::iter::once(start.to_owned()).chain(column.path.iter().map(part)).collect();
        self.fixed(Value::Text(path), "::text::jsonpath")
    }

    /// Adds what is at the end of a path as `jsonb`; null where a step does not fit.
    fn step(&mut self, column: &ColumnOperand, frame: Frame<'_>) {
        self.push("jsonb_path_query_first(");
        self.column(column, Form::Plain, frame);
        self.push(", ").path(column).push(", '{}', true)");
    }
}
