//! The open transaction of a call: its connection, its savepoints, and what is to be let out with it.

use std::rc::Rc;

use crate::call::Effect;
use crate::sql::{Answer, Database, Dialect, Error, Link, Statement, Value};

/// A statement of the adapter's own that stays done, whatever becomes of the transaction that it was run in.
type Lasting = (String, Vec<Value>);

/// A savepoint, and how much there was when it was set.
struct Mark {
    savepoint: u32,
    effects: usize,
    lasting: usize,
}

/// See the module.
pub struct Root {
    /// Tells it from those before.
    pub serial: u64,
    /// The logic's name for the database.
    pub name: String,
    /// Let out when it is committed.
    pub effects: Vec<Effect>,
    database: Rc<Database>,
    link: Box<dyn Link>,
    until_ms: u64,
    marks: Vec<Mark>,
    savepoint_next: u32,
    lasting: Vec<Lasting>,
    /// Why nothing more can be done in it.
    lost: Option<Error>,
    /// A statement failed, and nothing was rolled back since: PostgreSQL would call its COMMIT a success and roll back.
    failed: bool,
}

/// Set before anything else in SQLite, where what lasts shares the connection with what does not.
const BASE: &str = "base";

impl Root {
    /// A transaction on a connection on which it was begun. Until then it must be at its end.
    pub fn begin(database: Rc<Database>, link: Box<dyn Link>, serial: u64, name: &str, until_ms: u64) -> Result<Self, Error> {
        if database.dialect() == Dialect::Sqlite {
            link.run(&format!("SAVEPOINT {BASE}"), &[])?;
        }
        Ok(Self {
            serial,
            name: name.to_owned(),
            effects: Vec::new(),
            database,
            link,
            until_ms,
            marks: Vec::new(),
            savepoint_next: 1,
            lasting: Vec::new(),
            lost: None,
            failed: false,
        })
    }

    /// Runs a statement of the logic.
    pub fn execute(&mut self, statement: &Statement, now_ms: u64) -> Result<Answer, Error> {
        self.check(now_ms)?;
        let done = self.link.run_foreign(statement);
        self.seen(done)
    }

    /// Runs a statement of the adapter's own that stays done even if the transaction does not.
    pub fn execute_lasting(&mut self, sql: String, parameters: Vec<Value>) -> Result<Answer, Error> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let done = self.link.run(&sql, &parameters);
        let done = self.seen(done)?;
        self.lasting.push((sql, parameters));
        Ok(done)
    }

    /// Reads what this transaction sees.
    pub fn read_own(&mut self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let done = self.link.run(sql, parameters);
        self.seen(done)
    }

    /// The connection, for what is written right before the commit.
    pub fn link(&self) -> &dyn Link {
        &*self.link
    }

    /// Sets a savepoint.
    pub fn savepoint(&mut self, now_ms: u64) -> Result<u32, Error> {
        self.check(now_ms)?;
        let savepoint = self.savepoint_next;
        let done = self.link.run(&format!("SAVEPOINT s{savepoint}"), &[]);
        self.seen(done)?;
        self.savepoint_next += 1;
        self.marks.push(Mark { savepoint, effects: self.effects.len(), lasting: self.lasting.len() });
        Ok(savepoint)
    }

    /// Forgets a savepoint and those after it.
    pub fn release(&mut self, savepoint: u32, now_ms: u64) -> Result<(), Error> {
        let position = self.position(savepoint)?;
        self.check(now_ms)?;
        let done = self.link.run(&format!("RELEASE SAVEPOINT s{savepoint}"), &[]);
        self.seen(done)?;
        self.marks.truncate(position);
        Ok(())
    }

    /// Undoes all since a savepoint, which stays; what is to last is done again.
    pub fn rollback_to(&mut self, savepoint: u32) -> Result<(), Error> {
        let position = self.position(savepoint)?;
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let done = self.link.run(&format!("ROLLBACK TO SAVEPOINT s{savepoint}"), &[]);
        self.seen(done)?;
        self.failed = false;
        self.marks.truncate(position + 1);
        let (effects, lasting) = self.marks.last().map_or((0, 0), |mark| (mark.effects, mark.lasting));
        self.effects.truncate(effects);
        self.again(lasting)
    }

    /// Does what is to last once more, from one on.
    fn again(&mut self, from: usize) -> Result<(), Error> {
        for (sql, parameters) in self.lasting.get(from..).unwrap_or_default() {
            let done = self.link.run(sql, parameters);
            if let Err(error) = done {
                self.lost = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Commits. An error: nothing was committed, but for what is to last.
    pub fn commit(self, now_ms: u64) -> Result<(), Error> {
        let ready = self.check(now_ms).and_then(|()| match self.failed && self.database.dialect() == Dialect::Postgres {
            true => Err(Error::InvalidStatement("a statement of the transaction failed and was not rolled back".into())),
            false => Ok(()),
        });
        if let Err(error) = ready {
            self.undo()?;
            return Err(error);
        }
        match self.link.run("COMMIT", &[]) {
            Ok(_) => {
                self.database.give_back(self.link);
                Ok(())
            }
            Err(error) => {
                self.undo()?;
                Err(error)
            }
        }
    }

    /// Rolls back; what is to last stays. An error: that is lost too.
    pub fn undo(mut self) -> Result<(), Error> {
        if self.lasting.is_empty() || self.lost.is_some() {
            let lost = if self.lasting.is_empty() { None } else { self.lost.clone() };
            self.database.undo(self.link);
            return lost.map_or(Ok(()), Err);
        }
        let undone = if self.database.dialect() == Dialect::Sqlite {
            // The writer is not let go in between, so that nobody sees what is to last come and go.
            self.link.run(&format!("ROLLBACK TO SAVEPOINT {BASE}"), &[]).map(drop)
        } else {
            self.link.run("ROLLBACK", &[]).and_then(|_| self.database.begin(&*self.link))
        };
        let done = undone.and_then(|()| self.again(0)).and_then(|()| self.link.run("COMMIT", &[]).map(drop));
        match done {
            Ok(()) => {
                self.database.give_back(self.link);
                Ok(())
            }
            Err(error) => {
                self.database.undo(self.link);
                Err(error)
            }
        }
    }

    fn position(&self, savepoint: u32) -> Result<usize, Error> {
        let position = self.marks.iter().position(|mark| mark.savepoint == savepoint);
        position.ok_or_else(|| Error::InvalidStatement("the savepoint is not open".into()))
    }

    fn check(&self, now_ms: u64) -> Result<(), Error> {
        match &self.lost {
            Some(lost) => Err(lost.clone()),
            None if now_ms > self.until_ms => Err(Error::Limit("time of an open transaction".into())),
            None => Ok(()),
        }
    }

    /// Looks at what became of a statement. SQLite answers some errors by rolling back everything; what came after would then
    /// be committed at once, each by itself.
    fn seen<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        let Err(error) = &done else { return done };
        self.failed = true;
        match self.database.dialect() {
            Dialect::Sqlite if self.link.run("BEGIN", &[]).is_ok() => {
                // Undone by SQLite: this was a new one.
                self.lost = Some(match error {
                    Error::Aborted => Error::Aborted,
                    other => Error::Unavailable(format!("the transaction was rolled back: {other:?}")),
                });
            }
            Dialect::Postgres if matches!(error, Error::Aborted | Error::Unavailable(_)) => self.lost = Some(error.clone()),
            _ => {}
        }
        done
    }
}
