//! What can go wrong below this room, and how a connection ends then (docs/protocols/secsync.md, sections 2.2 and 2.5).

use super::server_messages::{INTERNAL, TRY_AGAIN_LATER};
use crate::imports::{SqlError, StorageError};

/// A failure that no frame tells of: the connection is closed, the client comes back with a delta.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing happened; the host discards the call and runs it again.
    #[error("the transaction was aborted")]
    Aborted,
    /// It passes: a database or a store is away, or something is full.
    #[error("{0}")]
    Transient(String),
    /// A statement or a row is not what this version expects.
    #[error("{0}")]
    Unexpected(String),
}

impl Failure {
    /// The code to close with.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Aborted | Self::Transient(_) => TRY_AGAIN_LATER,
            Self::Unexpected(_) => INTERNAL,
        }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Aborted => Self::Aborted,
            SqlError::Limit(what) => Self::Transient(format!("database limit: {what}")),
            SqlError::Unavailable(what) => Self::Transient(format!("database unavailable: {what}")),
            SqlError::InvalidStatement(what) => Self::Unexpected(format!("invalid statement: {what}")),
            SqlError::Constraint((kind, what)) => Self::Unexpected(format!("constraint {kind:?}: {what}")),
        }
    }
}

impl From<StorageError> for Failure {
    /// A missing object is transient: it was read while retention dropped it, and the next read sees the newer state.
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound => Self::Transient("an object is missing".into()),
            StorageError::Conflict => Self::Transient("an object is being written".into()),
            StorageError::Limit(what) => Self::Transient(format!("storage limit: {what}")),
            StorageError::Unavailable(what) => Self::Transient(format!("storage unavailable: {what}")),
        }
    }
}
