//! Client groups: ownership, and how they are forgotten.

use super::engine::Engine;
use super::failure::Failure;
use crate::imports::Imports;

/// Who owns a client group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody: it is unknown.
    Unknown,
    /// The user in question.
    Own,
    /// Somebody else: 403 `client-group-owner`.
    Foreign,
}

impl Engine {
    /// Whose a client group is, for connections that name one.
    pub fn ownership(&self, imports: Imports<'_>, client_group_id: &str, user_id: &str) -> Result<Ownership, Failure> {
        let _ = (imports, client_group_id, user_id);
        todo!()
    }

    /// Forgets a client group; whether it was known. Its clients get ClientStateNotFound from then on.
    pub fn forget(&self, imports: Imports<'_>, client_group_id: &str) -> Result<bool, Failure> {
        let _ = (imports, client_group_id);
        todo!()
    }

    /// Forgets groups that were idle for too long (`clientGroupTtlMs`), a few in a step. `after`: where the step before ended.
    /// Gives where to go on; none: done.
    pub fn expire(&self, imports: Imports<'_>, after: Option<String>) -> Result<Option<String>, Failure> {
        let _ = (imports, after);
        todo!()
    }
}
