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
