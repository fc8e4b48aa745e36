//! The rooms together, over doubles of Spin.

mod doubles;
mod due;
mod effects;
mod executor;
mod objects;
mod postgres;
mod postgres_double;
mod savepoints;
mod storage;

use crate::back::Back;
use crate::bindings::exports::syncline::host::pubsub::{Class, Publication, Subscription};
use crate::bindings::exports::syncline::spin::adapter::Ended;
use crate::executor::Handle;
use crate::sql::{Error, RowSet, Statement, Value};
use doubles::World;

/// A statement on the tables of database `main`: `{}` is their prefix.
fn statement(sql: &str, parameters: &[Value]) -> Statement {
    Statement { sql: sql.replace("{}", "m_m_main_4_"), parameters: parameters.to_vec() }
}

impl Back {
    fn run(&self, handle: Handle, sql: &str, parameters: &[Value]) -> Result<RowSet, Error> {
        self.execute(handle, &[statement(sql, parameters)]).map(|mut sets| sets.remove(0))
    }

    /// Whole numbers that a query gives.
    fn numbers(&self, sql: &str) -> Vec<i64> {
        let view = self.open_view("main").unwrap();
        let set = self.query(&view, &statement(sql, &[]), None).unwrap();
        self.close_view(view);
        decoded(&set)
    }

    /// One call that runs a statement and commits.
    fn write(&self, sql: &str, parameters: &[Value]) -> Ended {
        self.begin("m", false);
        let handle = self.begin_transaction("main").unwrap();
        self.run(handle, sql, parameters).unwrap();
        self.commit(handle).unwrap();
        self.end(false).unwrap()
    }
}

/// The cells of an answer, all of them whole numbers.
fn decoded(set: &RowSet) -> Vec<i64> {
    set.cells.chunks(9).map(|cell| i64::from_le_bytes(cell[1..].try_into().unwrap())).collect()
}

fn publication(topic: &str, message: &str) -> Publication {
    Publication {
        topic: topic.into(),
        message: message.as_bytes().to_vec(),
        order: None,
        class: Class::MustDeliver,
        except: None,
        close: None,
    }
}

fn subscription(topic: &str, presence: Option<&str>) -> Subscription {
    Subscription {
        topic: topic.into(),
        mode: crate::bindings::exports::syncline::host::pubsub::Mode::Deliver,
        group: String::new(),
        cursor: None,
        presence: presence.map(|presence| presence.as_bytes().to_vec()),
    }
}

/// The messages of all publications of the mount after a position.
fn messages(back: &Back, after: u64) -> Vec<String> {
    let found = back.publications("m", &[], after, 1 << 20).unwrap();
    found.publications.into_iter().map(|(_, publication)| String::from_utf8(publication.message).unwrap()).collect()
}
