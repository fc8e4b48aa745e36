//! A connection to PostgreSQL as Spin has it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::failure::{postgres_error, wrong_type};
use super::present::{present, with_a_row};
use super::values::{Plan, binding, bound, guess, placeholder_count, with_casts};
use super::{Answer, Dialect, Error, Link, Shape, Statement, Value, shape};
use crate::ports::{Bound, Cell, PostgresConnection};

/// Statements of which it is kept how their parameters are bound.
const PLANS_MAX: usize = 512;

/// How the parameters of statements are bound, as it was learnt from the server.
#[derive(Default)]
pub(super) struct Plans(RefCell<HashMap<String, Plan>>);

/// See [`Link`].
pub(super) struct PostgresLink {
    pub(super) connection: Box<dyn PostgresConnection>,
    pub(super) plans: Rc<Plans>,
}

impl Plans {
    fn of(&self, sql: &str, parameters: &[Value]) -> Plan {
        self.0.borrow().get(sql).filter(|plan| plan.len() == parameters.len()).cloned().unwrap_or_else(|| guess(sql, parameters))
    }

    fn keep(&self, sql: &str, plan: Plan) {
        let mut plans = self.0.borrow_mut();
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(sql.to_owned(), plan);
    }
}

/// What a statement is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Rows,
    Count,
}

/// Rows as they came, or a count.
enum Came {
    Rows(Vec<Vec<Cell>>),
    Count(u64),
}

impl PostgresLink {
    fn send(&self, sql: &str, parameters: &[Value], wanted: Wanted) -> Result<Came, Error> {
        let expected = placeholder_count(sql);
        if expected != parameters.len() {
            return Err(Error::InvalidStatement(format!("{expected} placeholders, {} parameters", parameters.len())));
        }
        let mut plan = self.plans.of(sql, parameters);
        let mut learnt = false;
        // Each round learns of one parameter at least.
        for _ in 0..=parameters.len() {
            let text = with_casts(sql, parameters, &plan);
            let given = parameters.iter().zip(&plan).enumerate();
            let given = given.map(|(index, (value, binding))| bound(index, value, binding)).collect::<Result<Vec<Bound>, Error>>()?;
            let sent = match wanted {
                Wanted::Rows => self.connection.query(&text, &given).map(Came::Rows),
                Wanted::Count => self.connection.execute(&text, &given).map(Came::Count),
            };
            let error = match sent {
                Ok(came) => {
                    if learnt {
                        self.plans.keep(sql, plan);
                    }
                    return Ok(came);
                }
                Err(error) => error,
            };
            let Some((index, postgres_type)) = wrong_type(&error) else { return Err(postgres_error(error)) };
            let other = parameters.get(index).and_then(|value| binding(value, postgres_type)).filter(|other| plan[index] != *other);
            let Some(other) = other else {
                return Err(Error::InvalidStatement(format!("${}: the parameter has no form in the type {postgres_type}", index + 1)));
            };
            plan[index] = other;
            learnt = true;
        }
        Err(Error::InvalidStatement("the parameters fit no type that the server wants".into()))
    }

    fn rows(&self, sql: &str, shape: &Shape, parameters: &[Value]) -> Result<Vec<Vec<Cell>>, Error> {
        let with_a_row = with_a_row(sql, shape);
        match self.send(with_a_row.as_deref().unwrap_or(sql), parameters, Wanted::Rows)? {
            Came::Rows(rows) if with_a_row.is_some() => Ok(present(rows)),
            Came::Rows(rows) => Ok(rows),
            Came::Count(_) => Err(Error::Unavailable("a count came in the place of rows".into())),
        }
    }

    fn count(&self, sql: &str, parameters: &[Value]) -> Result<u64, Error> {
        match self.send(sql, parameters, Wanted::Count)? {
            Came::Count(count) => Ok(count),
            Came::Rows(rows) => Ok(rows.len() as u64),
        }
    }
}

impl Link for PostgresLink {
    fn run(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        // What is no statement of the logic's (BEGIN …) has no shape, and gives no rows.
        if let Some(shape) = shape(sql, Dialect::Postgres).ok().filter(|shape| shape.returns) {
            let rows = known(self.rows(sql, &shape, parameters)?)?;
            return Ok(Answer { changed: rows.len() as u64, rows });
        }
        Ok(Answer { rows: Vec::new(), changed: self.count(sql, parameters)? })
    }

    fn run_foreign(&self, statement: &Statement) -> Result<Answer, Error> {
        let shape = shape(&statement.sql, Dialect::Postgres).map_err(|refusal| Error::InvalidStatement(refusal.to_string()))?;
        let sql = &statement.sql[..shape.length];
        if !shape.returns {
            let changed = self.count(sql, &statement.parameters)?;
            return Ok(Answer { rows: Vec::new(), changed: if shape.writes { changed } else { 0 } });
        }
        let rows = self.rows(sql, &shape, &statement.parameters)?;
        let rows = if shape.writes { known(rows)? } else { self.readable(&shape, sql, &statement.parameters, rows)? };
        Ok(Answer { changed: if shape.writes { rows.len() as u64 } else { 0 }, rows })
    }

    fn read_foreign(&self, statement: &Statement, rows_max: u32) -> Result<Answer, Error> {
        let shape = shape(&statement.sql, Dialect::Postgres).map_err(|refusal| Error::InvalidStatement(refusal.to_string()))?;
        let mut sql = statement.sql[..shape.length].to_owned();
        if shape.returns && !shape.writes && shape.verb != "explain" {
            sql = format!("SELECT * FROM ({sql}\n) AS view LIMIT {rows_max}");
        }
        let rows = self.rows(&sql, &shape, &statement.parameters)?;
        Ok(Answer { rows: self.readable(&shape, &sql, &statement.parameters, rows)?, changed: 0 })
    }
}

impl PostgresLink {
    /// Reads once more, with a cast to text for each column whose type has no form in Spin (`jsonb`, `numeric` …).
    fn readable(&self, shape: &Shape, sql: &str, parameters: &[Value], rows: Vec<Vec<Cell>>) -> Result<Vec<Vec<Value>>, Error> {
        let columns = rows.first().map_or(0, Vec::len);
        let strange = |column: usize| rows.iter().any(|row| row.get(column).is_some_and(Option::is_none));
        let strange: Vec<bool> = (0..columns).map(strange).collect();
        if !strange.contains(&true) || shape.verb == "explain" {
            return known(rows);
        }
        let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
        let cast = |(name, strange): (&String, &bool)| if *strange { format!("CAST({name} AS text)") } else { name.clone() };
        let selected: Vec<String> = names.iter().zip(&strange).map(cast).collect();
        let again = format!("SELECT {} FROM ({sql}\n) AS view ({})", selected.join(", "), names.join(", "));
        known(self.rows(&again, shape, parameters)?)
    }
}

/// Rows whose cells all have a form.
fn known(rows: Vec<Vec<Cell>>) -> Result<Vec<Vec<Value>>, Error> {
    let row = |row: Vec<Cell>| {
        let cell = |(column, cell): (usize, Cell)| {
            cell.ok_or_else(|| {
                Error::InvalidStatement(format!("column {} has a type of its own: cast it to text in the statement", column + 1))
            })
        };
        row.into_iter().enumerate().map(cell).collect()
    };
    rows.into_iter().map(row).collect()
}
