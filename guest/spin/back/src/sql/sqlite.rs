//! A connection to Spin's SQLite.

use super::failure::sqlite_error;
use super::{Answer, Dialect, Error, Link, Statement, Value, shape, unsigned};
use crate::ports::SqliteConnection;

/// See [`Link`].
pub(super) struct SqliteLink(pub(super) Box<dyn SqliteConnection>);

impl SqliteLink {
    fn rows(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
        self.0.execute(sql, parameters).map_err(sqlite_error)
    }
}

impl Link for SqliteLink {
    fn run(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        Ok(Answer { rows: self.rows(sql, parameters)?, changed: 0 })
    }

    fn run_foreign(&self, statement: &Statement) -> Result<Answer, Error> {
        let shape = shape(&statement.sql, Dialect::Sqlite).map_err(|refusal| Error::InvalidStatement(refusal.to_string()))?;
        let rows = self.rows(&statement.sql, &statement.parameters)?;
        // Of a statement that changes nothing `changes()` tells about the one before.
        let changed = if shape.writes { changes(&self.rows("SELECT changes()", &[])?)? } else { 0 };
        Ok(Answer { rows, changed })
    }

    fn read_foreign(&self, statement: &Statement, rows_max: u32) -> Result<Answer, Error> {
        let shape = shape(&statement.sql, Dialect::Sqlite).map_err(|refusal| Error::InvalidStatement(refusal.to_string()))?;
        let rows = if shape.verb == "explain" || !shape.returns || shape.writes {
            self.rows(&statement.sql, &statement.parameters)?
        } else {
            self.rows(&limited(&statement.sql[..shape.length], rows_max), &statement.parameters)?
        };
        Ok(Answer { rows, changed: 0 })
    }
}

/// The same query that ends after so many rows: Spin takes in all of them before it gives one.
pub(super) fn limited(sql: &str, rows_max: u32) -> String {
    format!("SELECT * FROM ({sql}\n) LIMIT {rows_max}")
}

fn changes(rows: &[Vec<Value>]) -> Result<u64, Error> {
    rows.first().and_then(|row| row.first()).map_or(Ok(0), unsigned)
}
