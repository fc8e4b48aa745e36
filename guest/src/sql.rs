//! Statements that read the same in every dialect.
//!
//! Logic writes placeholders as `?`; [`Sql`] numbers them where the dialect wants `$1`, and puts the table prefix
//! in place of `{}`.

use crate::imports::{DatabaseInfo, Dialect, Executor, Query, SqlError, Statement, Value};

/// How the statements of one database are written.
#[derive(Clone, Debug)]
pub struct Sql {
    dialect: Dialect,
    prefix: String,
}

impl Sql {
    /// Asks the host how a database wants its statements.
    pub fn of(executor: &dyn Executor, database: &str) -> Result<Self, SqlError> {
        Ok(Self::new(executor.describe(database)?))
    }

    /// From what the host said.
    pub fn new(info: DatabaseInfo) -> Self {
        Self { dialect: info.dialect, prefix: info.table_prefix }
    }

    /// The dialect, for the few statements that must differ.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What comes before every name of a table or an index.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A statement from a template: `{}` stands for the table prefix, `?` for a parameter. Neither may occur in a literal.
    pub fn statement(&self, template: &str, parameters: impl IntoIterator<Item = Value>) -> Statement {
        let mut sql = String::with_capacity(template.len() + 16);
        let mut count = 0;
        let mut rest = template.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '{' if rest.peek() == Some(&'}') => {
                    rest.next();
                    sql.push_str(&self.prefix);
                }
                '?' if self.dialect == Dialect::Postgres => {
                    count += 1;
                    sql.push('$');
                    sql.push_str(&count.to_string());
                }
                other => sql.push(other),
            }
        }
        Statement { sql, parameters: parameters.into_iter().collect() }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Reads what is there for this call: within the transaction that is open, if there is one, else in a view of its own.
pub fn read<T, E: From<SqlError>>(executor: &dyn Executor, database: &str, run: impl FnOnce(&dyn Query) -> Result<T, E>) -> Result<T, E> {
    match executor.snapshot(database) {
        Ok(view) => run(view.as_ref()),
        // No view beside an open transaction, which a second `begin` joins.
        Err(SqlError::InvalidStatement(_)) => {
            let view = executor.begin(database)?;
            let found = run(view.as_ref())?;
            view.commit()?;
            Ok(found)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_prefix_follow_the_dialect() {
        let template = "SELECT a FROM {}t WHERE b = ? AND c = ?";
        let of = |dialect, prefix: &str| {
            Sql::new(DatabaseInfo { dialect, table_prefix: prefix.into() }).statement(template, [1.into(), "x".into()])
        };
        assert_eq!(of(Dialect::Sqlite, "").sql, "SELECT a FROM t WHERE b = ? AND c = ?");
        assert_eq!(of(Dialect::Postgres, "m_").sql, "SELECT a FROM m_t WHERE b = $1 AND c = $2");
    }
}
