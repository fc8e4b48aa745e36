//! Pull: what changed for a client since its cookie.

use std::collections::BTreeMap;

use super::cookie::Cookie;
use super::engine::{Caller, Dialect, Engine};
use super::failure::Failure;
use crate::imports::Imports;

/// A pull after the checks of its shape.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// In which dialect the patch is to be.
    pub dialect: Dialect,
    /// Whose.
    pub client_group_id: String,
    /// Up to where the client is.
    pub cookie: Cookie,
    /// Rows of a page; a version is never cut.
    pub rows_max: usize,
}

/// What to tell the client.
#[derive(Clone, Debug)]
pub struct PullReply {
    /// Where it is then. Equal to that of the request where nothing is new.
    pub cookie: Cookie,
    /// `lastMutationIDChanges`
    pub last_mutation_ids: BTreeMap<String, u64>,
    /// A JSON array, encoded.
    pub patch: String,
    /// Rows put.
    pub puts: u64,
    /// Rows deleted.
    pub dels: u64,
    /// Whether there is more to pull at once.
    pub has_more: bool,
    /// Whether the client begins anew, though it had a cookie.
    pub reset: bool,
    /// The version of the database that was read.
    pub version: u64,
}

/// Why a pull was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PullRefused {
    /// 403 `client-group-owner`.
    #[error("the client group belongs to another user")]
    ClientGroupOwner,
    /// The server has lost the client's state.
    #[error("the client group is unknown, or ahead of the server")]
    ClientStateNotFound,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Engine {
    /// What is new for a client.
    pub fn pull(&self, imports: Imports<'_>, caller: &Caller, request: &PullRequest) -> Result<PullReply, PullRefused> {
        let _ = (imports, caller, request);
        todo!()
    }
}
