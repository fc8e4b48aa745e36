//! The one database in which everything is: connections to it, and transactions of the adapter's own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::postgres::{Plans, PostgresLink};
use super::sqlite::SqliteLink;
use super::{Answer, Dialect, Error, Link, Value};
use crate::ports::Ports;
use crate::settings::Place;

/// How long to wait for the writer of SQLite, in milliseconds; Spin itself waits for five seconds each time.
const WRITER_WAIT_MS_MAX: u64 = 10_000;
/// A pause between two tries, where Spin does not wait, in milliseconds.
const WRITER_PAUSE_MS: u64 = 20;
/// How often a transaction of the adapter's own is tried.
const TRIES: usize = 3;

/// See the module.
pub struct Database {
    ports: Rc<Ports>,
    place: Place,
    plans: Rc<Plans>,
    /// At rest: no transaction is open on them.
    resting: RefCell<Vec<Box<dyn Link>>>,
    /// The same, and they only read.
    readers: RefCell<Vec<Box<dyn Link>>>,
    /// Whether connections to PostgreSQL are kept: they are of a pool for all instances, and one that waits must hold none.
    keeps: Cell<bool>,
}

/// A view of one moment. Dropping it ends it.
pub struct Reader {
    database: Rc<Database>,
    link: Option<Box<dyn Link>>,
}

impl Database {
    /// A database that is opened when it is first needed.
    pub fn new(ports: Rc<Ports>, place: Place) -> Self {
        Self { ports, place, plans: Rc::default(), resting: RefCell::default(), readers: RefCell::default(), keeps: Cell::new(false) }
    }

    /// What statements are written in.
    pub fn dialect(&self) -> Dialect {
        match self.place {
            Place::Sqlite(_) => Dialect::Sqlite,
            Place::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Keeps connections that are at rest for a while, or lets them go.
    pub fn keep(&self, keeps: bool) {
        self.keeps.set(keeps);
        if !keeps && self.dialect() == Dialect::Postgres {
            self.resting.borrow_mut().clear();
            self.readers.borrow_mut().clear();
        }
    }

    fn open(&self) -> Result<Box<dyn Link>, Error> {
        match &self.place {
            Place::Sqlite(label) => {
                let connection = self.ports.sqlite.open(label).map_err(super::sqlite_error)?;
                Ok(Box::new(SqliteLink(connection)))
            }
            Place::Postgres(address) => {
                let connection = self.ports.postgres.open(address.expose()).map_err(super::postgres_error)?;
                let link = PostgresLink { connection, plans: Rc::clone(&self.plans) };
                // Whoever had it before may have left a transaction open on it.
                link.run("ROLLBACK", &[])?;
                Ok(Box::new(link))
            }
        }
    }

    /// A connection without a transaction. Whoever ends well gives it back.
    pub fn take(&self) -> Result<Box<dyn Link>, Error> {
        let resting = self.resting.borrow_mut().pop();
        resting.map_or_else(|| self.open(), Ok)
    }

    /// A connection is at rest again.
    pub fn give_back(&self, link: Box<dyn Link>) {
        if self.keeps.get() || self.dialect() == Dialect::Sqlite {
            self.resting.borrow_mut().push(link);
        }
    }

    /// A statement of the adapter's own in the dialect: `{}` stands for what its tables begin with, `?` for a parameter.
    pub fn own(&self, template: &str) -> String {
        let sqlite = self.dialect() == Dialect::Sqlite;
        let sql = template.replace("{}", if sqlite { "syncline_spin_" } else { "syncline_spin." });
        if sqlite {
            return sql;
        }
        let mut numbered = String::with_capacity(sql.len() + 16);
        for (index, part) in sql.split('?').enumerate() {
            if index > 0 {
                numbered.push('$');
                numbered.push_str(&index.to_string());
            }
            numbered.push_str(part);
        }
        numbered
    }

    /// Runs one statement of the adapter's own by itself.
    pub fn run(&self, template: &str, parameters: &[Value]) -> Result<Answer, Error> {
        let sql = self.own(template);
        for _ in 1..TRIES {
            match self.run_once(&sql, parameters) {
                Err(Error::Aborted) => {}
                other => return other,
            }
        }
        self.run_once(&sql, parameters).map_err(busy)
    }

    fn run_once(&self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        let link = self.take()?;
        let answer = link.run(sql, parameters)?;
        self.give_back(link);
        Ok(answer)
    }

    /// Runs statements of the adapter's own in one transaction, which may be run again.
    pub fn write<T>(&self, run: impl Fn(&dyn Link) -> Result<T, Error>) -> Result<T, Error> {
        for _ in 1..TRIES {
            match self.write_once(&run) {
                Err(Error::Aborted) => {}
                other => return other,
            }
        }
        self.write_once(&run).map_err(busy)
    }

    fn write_once<T>(&self, run: &impl Fn(&dyn Link) -> Result<T, Error>) -> Result<T, Error> {
        let link = self.take()?;
        self.begin(&*link)?;
        let done = run(&*link).and_then(|value| link.run("COMMIT", &[]).map(|_| value));
        match done {
            Ok(value) => {
                self.give_back(link);
                Ok(value)
            }
            Err(error) => {
                self.undo(link);
                Err(error)
            }
        }
    }

    /// Begins a transaction that writes.
    pub fn begin(&self, link: &dyn Link) -> Result<(), Error> {
        if self.dialect() == Dialect::Postgres {
            return link.run("BEGIN ISOLATION LEVEL READ COMMITTED", &[]).map(drop);
        }
        let clock = &self.ports.clock;
        let end_ms = clock.now_ms().saturating_add(WRITER_WAIT_MS_MAX);
        loop {
            match link.run("BEGIN IMMEDIATE", &[]) {
                Err(Error::Aborted) if clock.now_ms() < end_ms => clock.sleep_ms(WRITER_PAUSE_MS),
                other => return other.map(drop),
            }
        }
    }

    /// Rolls back. A connection on which even that fails is let go, which rolls back too on SQLite; the next user of one to
    /// PostgreSQL begins with a ROLLBACK.
    pub fn undo(&self, link: Box<dyn Link>) {
        if link.run("ROLLBACK", &[]).is_ok() {
            self.give_back(link);
        }
    }

    /// A view of now, in which names are those of a schema where there are any.
    pub fn reader(self: &Rc<Self>, schema: Option<&str>) -> Result<Reader, Error> {
        let resting = self.readers.borrow_mut().pop();
        let link = match resting {
            Some(link) => link,
            None => {
                let link = self.open()?;
                if self.dialect() == Dialect::Sqlite {
                    link.run("PRAGMA query_only = 1", &[])?;
                }
                link
            }
        };
        match self.dialect() {
            Dialect::Sqlite => {
                link.run("BEGIN", &[])?;
                // The view is that of the first read.
                link.run("SELECT 1 FROM sqlite_schema LIMIT 1", &[])?;
            }
            Dialect::Postgres => {
                link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &[])?;
                link.run("SELECT set_config('search_path', $1, true)", &[schema.unwrap_or("syncline_spin").into()])?;
            }
        }
        Ok(Reader { database: Rc::clone(self), link: Some(link) })
    }
}

/// What cannot be run again by anybody else is just not to be had now.
fn busy(error: Error) -> Error {
    match error {
        Error::Aborted => Error::Unavailable("the database is busy".into()),
        other => other,
    }
}

impl Reader {
    /// The connection.
    pub fn link(&self) -> Result<&dyn Link, Error> {
        self.link.as_deref().ok_or_else(|| Error::Unavailable("the view is closed".into()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let ended = link.run("ROLLBACK", &[]).is_ok();
        if ended && (self.database.keeps.get() || self.database.dialect() == Dialect::Sqlite) {
            self.database.readers.borrow_mut().push(link);
        }
    }
}
