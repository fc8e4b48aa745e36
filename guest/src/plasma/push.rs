//! Push: mutations of clients, each processed exactly once and in order.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::engine::{Caller, Dialect, Engine, Hooks};
use super::failure::Failure;
use crate::imports::Imports;

/// A mutation as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    /// Whose.
    pub client_id: String,
    /// 1, 2, 3 … per client.
    pub id: u64,
    /// The mutator.
    pub name: String,
    /// Null where they were absent.
    pub arguments: Json,
    /// What the client's clock said; may be fractional.
    pub timestamp: f64,
}

/// What to do with more mutations than a push may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// Process as many as allowed, tell how many remain. Never in the native dialect.
    ApplyPrefix,
    /// Refuse all.
    Reject,
}

/// A push after the checks of its shape; order within the batch, number and envelopes are checked here.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// In which dialect.
    pub dialect: Dialect,
    /// Whose.
    pub client_group_id: String,
    /// In the order of the batch.
    pub mutations: Vec<Mutation>,
    /// `maxMutationsPerPush`.
    pub mutations_max: usize,
    /// `overLimit`.
    pub over_limit: OverLimit,
    /// Whether this very call just failed on another instance (`Request.failure` is set).
    pub second_try: bool,
}

/// What became of a mutation.
#[derive(Clone, Debug, PartialEq)]
pub enum MutationStatus {
    /// Its writes are there.
    Applied,
    /// It had been processed before.
    Duplicate,
    /// It failed for good; nothing of it is there.
    Error(MutationError),
}

/// How a mutation failed, as its client is told.
#[derive(Clone, Debug, PartialEq)]
pub struct MutationError {
    /// `Error`, `PlasmaAuthorizationError` …
    pub name: String,
    /// For people.
    pub message: String,
}

/// One entry of `results`.
#[derive(Clone, Debug, PartialEq)]
pub struct MutationResult {
    /// Whose.
    pub client_id: String,
    /// Which.
    pub id: u64,
    /// Its mutator, for the hook of errors.
    pub name: String,
    /// What became of it.
    pub status: MutationStatus,
}

/// What a push did. Everything in it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct PushReply {
    /// The last mutation id of every client in the batch.
    pub last_mutation_ids: BTreeMap<String, u64>,
    /// The current version (`cookie`).
    pub version: u64,
    /// One entry a mutation that was looked at.
    pub results: Vec<MutationResult>,
    /// Mutations processed for the first time (`applied` of `push-truncated`).
    pub new_mutations: usize,
    /// Mutations left for the next push; above 0: 429 `push-truncated`.
    pub remaining: usize,
    /// Rows that changed.
    pub rows_changed: u64,
    /// The client of the last new mutation.
    pub client_id: Option<String>,
}

/// Why a push was refused; nothing of it was kept.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PushRefused {
    /// A hole or a decrease in the ids, an envelope beyond the limits: 400 `invalid-request`.
    #[error("{0}")]
    Invalid(String),
    /// 413 `too-many-mutations`.
    #[error("{got} mutations in one push, limit {limit}")]
    TooMany {
        /// What is allowed.
        limit: usize,
        /// What came.
        got: usize,
    },
    /// 403 `client-group-owner`.
    #[error("the client group belongs to another user")]
    ClientGroupOwner,
    /// 403 `client-belongs-to-another-group`.
    #[error("the client belongs to another group")]
    ClientOfAnotherGroup,
    /// The server has lost the client's state.
    #[error("the client is unknown")]
    ClientStateNotFound,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Engine {
    /// Processes a push.
    pub fn push(&self, imports: Imports<'_>, caller: &Caller, request: &PushRequest, hooks: &dyn Hooks) -> Result<PushReply, PushRefused> {
        let _ = (imports, caller, request, &hooks);
        todo!()
    }
}
