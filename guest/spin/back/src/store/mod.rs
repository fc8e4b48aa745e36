//! What the adapter itself keeps, table by table. All of it is in the one database, beside the tables of the logic.

pub mod answers;
pub mod documents;
pub mod jobs;
pub mod keyvalue;
pub mod outbox;
pub mod places;
pub mod presence;
pub mod publications;
pub mod starts;
pub mod tables;

use crate::sql::Value;

/// The condition that a row is of one of some mounts, of which there is at least one, and its parameters.
fn of_mounts(mounts: &[String]) -> (String, Vec<Value>) {
    let places = vec!["?"; mounts.len()].join(", ");
    (format!("mount IN ({places})"), mounts.iter().map(|mount| mount.as_str().into()).collect())
}
