//! What can go wrong below the engine.

use crate::imports::{SqlError, StorageError};

/// A failure that is nobody's fault who can be told: nothing of the call is kept.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nothing happened. Return at once, whatever it is: the host discards it and runs the call again.
    #[error("the transaction was aborted")]
    Aborted,
    /// It passes: 503 `unavailable`, `Retry-After: 1`.
    #[error("{0}")]
    Unavailable(String),
    /// A statement or a row is not what this version expects: 500 `internal`, logged, no detail leaves the server.
    #[error("{0}")]
    Unexpected(String),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Aborted => Self::Aborted,
            SqlError::Limit(what) => Self::Unavailable(format!("database limit: {what}")),
            SqlError::Unavailable(what) => Self::Unavailable(format!("database unavailable: {what}")),
            SqlError::InvalidStatement(what) => Self::Unexpected(format!("invalid statement: {what}")),
            SqlError::Constraint((kind, what)) => Self::Unexpected(format!("constraint {kind:?}: {what}")),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(format!("storage: {error:?}"))
    }
}
