//! Statements under construction: text, and where the value of each placeholder comes from.

use std::collections::BTreeMap;

use super::bind::Slot;
use super::{BindError, Bindings};
use crate::imports::{Dialect, Statement, Value};
use crate::plasma::schema::{quoted, table_name};

/// What stands for the tables of a schema in a statement.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The table prefix of the database.
    pub prefix: String,
    /// By table: a quoted name that stands for it, as that of a common table expression.
    pub replaced: BTreeMap<String, String>,
}

impl Sources {
    /// The tables themselves.
    pub fn of_prefix(prefix: &str) -> Self {
        Self { prefix: prefix.into(), replaced: BTreeMap::new() }
    }

    /// What follows `FROM`.
    pub fn relation(&self, table: &str) -> String {
        self.replaced.get(table).cloned().unwrap_or_else(|| table_name(&self.prefix, table))
    }
}

/// What stands for the columns of a row in a statement.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// An alias (unquoted) and the column's name.
    Alias(&'a str),
    /// An SQL expression by name. A name that is missing is null.
    Named(&'a BTreeMap<String, String>),
    /// A parameter with the column's value in [`Bindings::outer`].
    Bound,
}

impl Scope<'_> {
    /// The column as SQL; none where a parameter stands for it.
    pub(super) fn column(&self, name: &str) -> Option<String> {
        match self {
            Self::Alias(alias) => Some(format!("{}.{}", quoted(alias), quoted(name))),
            Self::Named(names) => Some(names.get(name).cloned().unwrap_or_else(|| "NULL".into())),
            Self::Bound => None,
        }
    }
}

/// The rows in whose sight a predicate stands.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What `col` means.
    pub row: Scope<'a>,
    /// What `outer` means.
    pub outer: Option<Scope<'a>>,
}

impl<'a> Frame<'a> {
    /// The row of an alias, with none around it.
    pub fn alias(alias: &'a str) -> Self {
        Self { row: Scope::Alias(alias), outer: None }
    }
}

/// A statement under construction.
pub struct SqlBuilder<'a> {
    pub(super) dialect: Dialect,
    pub(super) sources: &'a Sources,
    /// Rows of `exists` so far.
    pub(super) exists_count: usize,
    sql: String,
    slots: Vec<Slot>,
}

impl<'a> SqlBuilder<'a> {
    /// Nothing yet.
    pub fn new(dialect: Dialect, sources: &'a Sources) -> Self {
        Self { dialect, sources, exists_count: 0, sql: String::new(), slots: Vec::new() }
    }

    /// Predicates added from here on read other tables.
    pub fn use_sources(&mut self, sources: &'a Sources) -> &mut Self {
        self.sources = sources;
        self
    }

    /// Adds text.
    pub fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a placeholder whose value is always the same; `cast` (`::bigint`) is written in PostgreSQL only.
    pub fn fixed(&mut self, value: Value, cast: &str) -> &mut Self {
        self.placeholder(Slot::Fixed(value), cast)
    }

    /// Adds a placeholder for the n-th of the values given to [`Compiled::statement`].
    pub fn given(&mut self, position: usize, cast: &str) -> &mut Self {
        self.placeholder(Slot::Given(position), cast)
    }

    pub(super) fn placeholder(&mut self, slot: Slot, cast: &str) -> &mut Self {
        self.slots.push(slot);
        match self.dialect {
            Dialect::Sqlite => self.sql.push('?'),
            Dialect::Postgres => {
                self.sql.push('$');
                self.sql.push_str(&self.slots.len().to_string());
                self.sql.push_str(cast);
            }
        }
        self
    }

    /// The statement.
    pub fn finish(self) -> Compiled {
        Compiled { sql: self.sql, slots: self.slots }
    }
}

/// A statement whose text is final and whose values are still to come. Worth keeping.
#[derive(Clone, Debug)]
pub struct Compiled {
    sql: String,
    slots: Vec<Slot>,
}

impl Compiled {
    /// The statement with its values; `given` are those of [`SqlBuilder::given`], of which a missing one is null.
    pub fn statement(&self, bindings: &Bindings<'_>, given: &[Value]) -> Result<Statement, BindError> {
        let parameters = self.slots.iter().map(|slot| slot.value(bindings, given));
        Ok(Statement { sql: self.sql.clone(), parameters: parameters.collect::<Result<_, _>>()? })
    }

    /// Its text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}
