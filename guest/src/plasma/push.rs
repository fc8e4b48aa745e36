//! Push: mutations of clients, each processed exactly once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::engine::{Caller, Committing, Dialect, Engine, Hooks};
use super::envelope;
use super::failure::Failure;
use super::mutators::{Asker, Stopped};
use super::store::changes::{self, Head};
use super::store::clients::{self, Processed};
use super::write::Writer;
use crate::imports::{Imports, RowSet, SqlError, Transaction};
use crate::sql::Sql;

/// A mutation as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    /// Whose.
    pub client_id: String,
    /// 1, 2, 3 … per client.
    pub id: u64,
    /// The mutator.
    pub name: String,
    /// Null where they were absent or could not be read.
    pub arguments: Json,
    /// Why they could not be read: the mutation fails with it.
    pub unreadable: Option<String>,
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
    /// How long a transaction may stay open, in milliseconds.
    pub transaction_ms: u64,
}

impl PushRequest {
    /// After so long a transaction takes no further mutation; what is left gets one of its own.
    fn takes_no_more_after(&self) -> Duration {
        Duration::from_millis(self.transaction_ms / 2)
    }

    /// Whether a transaction that met a limit met that of its time.
    fn is_out_of_time(&self, opened: Instant) -> bool {
        opened.elapsed() >= Duration::from_millis(self.transaction_ms / 10 * 9)
    }
}

/// A call takes on no further transaction after so long: its client is told to push the rest again.
const CALL_PATIENCE: Duration = Duration::from_millis(2_500);

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
    /// Writes to rows that changed something.
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

/// Mutations by their place in the batch that earlier tries proved to fail, with the errors to be recorded.
type Blamed = BTreeMap<usize, MutationError>;

/// What is known from the transactions of a push before this one.
#[derive(Default)]
struct Earlier {
    blamed: Blamed,
    /// The mutation at this place gets a transaction of its own: behind others there was no time left for it.
    cut: Option<usize>,
    /// What those that were committed did.
    reply: Option<PushReply>,
}

impl Earlier {
    fn new_mutations(&self) -> usize {
        self.reply.as_ref().map_or(0, |reply| reply.new_mutations)
    }

    /// Adds what one more transaction did. What an earlier one processed is no duplicate to the client.
    fn add(&mut self, mut part: PushReply) {
        if let Some(earlier) = self.reply.take() {
            for (now, before) in part.results.iter_mut().zip(earlier.results) {
                *now = before;
            }
            part.new_mutations += earlier.new_mutations;
            part.rows_changed += earlier.rows_changed;
            part.client_id = part.client_id.or(earlier.client_id);
        }
        self.reply = Some(part);
    }
}

/// Why one try at a push ended.
enum Ended {
    Refused(PushRefused),
    /// This mutation took the transaction with it.
    Blame(usize, MutationError),
    /// The time was over before this mutation, behind others, was done.
    Late(usize),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure.into())
    }
}

impl From<SqlError> for Ended {
    fn from(error: SqlError) -> Self {
        Failure::from(error).into()
    }
}

impl From<PushRefused> for Ended {
    fn from(refused: PushRefused) -> Self {
        Self::Refused(refused)
    }
}

impl Engine {
    /// Processes a push.
    pub fn push(&self, imports: Imports<'_>, caller: &Caller, request: &PushRequest, hooks: &dyn Hooks) -> Result<PushReply, PushRefused> {
        check_order(&request.mutations)?;
        let (limit, got) = (request.mutations_max, request.mutations.len());
        if got > limit && request.dialect == Dialect::Native {
            return Err(PushRefused::TooMany { limit, got });
        }
        if request.dialect == Dialect::Native {
            let violation = |mutation: &Mutation| envelope::violation_in(&mutation.arguments, &self.options.envelopes);
            if let Some(what) = request.mutations.iter().find_map(violation) {
                return Err(PushRefused::Invalid(format!("invalid envelope: {what}")));
            }
        }
        let (begun, mut earlier) = (Instant::now(), Earlier::default());
        loop {
            match self.try_push(imports, caller, request, hooks, &earlier) {
                Ok((part, all)) => {
                    earlier.add(part);
                    earlier.cut = None;
                    if all || begun.elapsed() > CALL_PATIENCE {
                        return earlier.reply.ok_or_else(|| Failure::Unexpected("a push without an answer".into()).into());
                    }
                }
                Err(Ended::Refused(refused)) => return Err(refused),
                Err(Ended::Blame(index, error)) => {
                    earlier.blamed.insert(index, error);
                    // It is recorded before the next one may take as long.
                    earlier.cut = Some(index + 1);
                }
                Err(Ended::Late(index)) => earlier.cut = Some(index),
            }
        }
    }

    /// One try, in one transaction; whether it got to the end of the batch, or as far as its number allows.
    fn try_push(
        &self,
        imports: Imports<'_>,
        caller: &Caller,
        request: &PushRequest,
        hooks: &dyn Hooks,
        earlier: &Earlier,
    ) -> Result<(PushReply, bool), Ended> {
        let sql = self.sql(imports)?;
        let transaction = self.begin(imports)?;
        let mutations_max = request.mutations_max - earlier.new_mutations();
        let (head, mut last_ids) = self.read_state(sql, transaction.as_ref(), caller, request)?;
        // What it waited for other writers until now is no mutation's fault.
        let opened = Instant::now();
        let is_new = |mutation: &Mutation, last: &BTreeMap<String, u64>| mutation.id > last[&mutation.client_id];
        let new_count = request.mutations.iter().filter(|mutation| is_new(mutation, &last_ids)).count();
        if new_count > mutations_max && request.over_limit == OverLimit::Reject {
            return Err(PushRefused::TooMany { limit: request.mutations_max, got: request.mutations.len() }.into());
        }

        let mut writer = Writer::new(self, sql, imports, transaction.as_ref(), Some(&caller.context));
        let asker = Asker { user_id: &caller.user_id, context: &caller.context, client_group_id: &request.client_group_id };
        let (mut results, mut processed, mut last_new, mut all) = (Vec::new(), Vec::new(), 0, true);
        for (index, mutation) in request.mutations.iter().enumerate() {
            let status = if !is_new(mutation, &last_ids) {
                MutationStatus::Duplicate
            } else if processed.len() == mutations_max {
                continue;
            } else if !processed.is_empty() && (earlier.cut == Some(index) || opened.elapsed() > request.takes_no_more_after()) {
                all = false;
                break;
            } else {
                last_new = index;
                let version = head.last + processed.len() as u64 + 1;
                writer.set_version(version, 0);
                let processing = self.process(&mut writer, asker, request, index, &earlier.blamed);
                let status = processing.map_err(|ended| out_of_time(ended, request, opened, index, processed.is_empty()))?;
                processed.push(Processed { version, client_id: mutation.client_id.clone(), mutation_id: mutation.id });
                last_ids.insert(mutation.client_id.clone(), mutation.id);
                status
            };
            let (client_id, id, name) = (mutation.client_id.clone(), mutation.id, mutation.name.clone());
            results.push(MutationResult { client_id, id, name, status });
        }
        let reply = PushReply {
            last_mutation_ids: last_ids,
            version: if processed.is_empty() { head.version } else { head.last + processed.len() as u64 },
            results,
            new_mutations: processed.len(),
            remaining: new_count - processed.len(),
            rows_changed: writer.changed,
            client_id: processed.last().map(|one| one.client_id.clone()),
        };
        // Without anything new there is nothing to write, and the transaction is dropped.
        if !processed.is_empty() {
            let late = |error: SqlError| out_of_time(error.into(), request, opened, last_new, processed.len() == 1);
            let mut statements = writer.flush();
            statements.extend(clients::processed(sql, &request.client_group_id, imports.now_ms, &processed));
            statements.push(clients::touch_group(sql, &request.client_group_id, &caller.user_id, imports.now_ms));
            statements.push(changes::set_version(sql, &self.options.region, reply.version));
            transaction.execute_batch(statements).map_err(late)?;
            hooks.committing(&Committing {
                version: reply.version,
                rows_changed: reply.rows_changed,
                tables: &writer.tables,
                new_mutations: reply.new_mutations as u64,
                client_group_id: Some(&request.client_group_id),
                client_id: reply.client_id.as_deref(),
                caller: Some(caller),
            });
            transaction.commit().map_err(late)?;
        }
        Ok((reply, all))
    }

    /// Where the log is, and the last mutation id of every client in the batch, none of which may be ahead or another group's.
    fn read_state(
        &self,
        sql: &Sql,
        transaction: &dyn Transaction,
        caller: &Caller,
        request: &PushRequest,
    ) -> Result<(Head, BTreeMap<String, u64>), Ended> {
        let ids: BTreeSet<&str> = request.mutations.iter().map(|mutation| mutation.client_id.as_str()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let asked = vec![
            changes::head_to_write_statement(sql),
            clients::group_statement(sql, &request.client_group_id),
            clients::clients_statement(sql, &ids),
        ];
        let [head, group, known] =
            <[RowSet; 3]>::try_from(transaction.execute_batch(asked)?).map_err(|_| Failure::Unexpected("three answers".into()))?;
        if clients::group_of(group.rows)?.is_some_and(|group| group.user_id != caller.user_id) {
            return Err(PushRefused::ClientGroupOwner.into());
        }
        let known = clients::clients_of(known.rows)?;
        if known.values().any(|client| client.group_id != request.client_group_id) {
            return Err(PushRefused::ClientOfAnotherGroup.into());
        }
        let last_id = |id: &str| known.get(id).map_or(0, |client| client.last_mutation_id);
        let last_ids: BTreeMap<_, _> = ids.iter().map(|id| ((*id).to_owned(), last_id(id))).collect();
        // Within the batch ids are consecutive, so only the first of each client can leave a hole.
        let mut expected = last_ids.clone();
        for mutation in &request.mutations {
            let last = expected.entry(mutation.client_id.clone()).or_default();
            if mutation.id > *last + 1 {
                return Err(PushRefused::ClientStateNotFound.into());
            }
            *last = (*last).max(mutation.id);
        }
        Ok((changes::head_of(&head.rows)?, last_ids))
    }

    /// Runs one new mutation. Its own failure is its status.
    fn process<'a>(
        &'a self,
        writer: &mut Writer<'a>,
        asker: Asker<'_>,
        request: &PushRequest,
        index: usize,
        blamed: &Blamed,
    ) -> Result<MutationStatus, Ended> {
        let mutation = &request.mutations[index];
        if let Some(error) = blamed.get(&index) {
            return Ok(MutationStatus::Error(error.clone()));
        }
        let to_app = self.mutators.goes_to_app(&self.schema, &mutation.name);
        if request.second_try && to_app && !note_try(writer.imports, mutation)? {
            let message = format!("mutator {} failed again and again", mutation.name);
            return Ok(MutationStatus::Error(MutationError { name: "Error".into(), message }));
        }
        if let Some(problem) = &mutation.unreadable {
            return Ok(MutationStatus::Error(MutationError { name: "Error".into(), message: problem.clone() }));
        }
        let beginning = writer.begin_mutation();
        let done = match envelope::violation_in(&mutation.arguments, &self.options.envelopes) {
            Some(what) => Err(Stopped::failed(format!("invalid envelope: {what}"))),
            None => self.run_mutator(writer, asker, mutation),
        };
        match done {
            Ok(()) => {
                writer.keep_mutation()?;
                Ok(MutationStatus::Applied)
            }
            Err(Stopped::Failed(error)) => {
                writer.undo_mutation(beginning)?;
                Ok(MutationStatus::Error(error))
            }
            Err(Stopped::TimedOut(error)) => Err(Ended::Blame(index, error)),
            Err(Stopped::Passing(failure)) => Err(failure.into()),
        }
    }
}

/// A limit that was met when the time was over: behind others a mutation gets a transaction of its own, and one that takes all the
/// time for itself fails for good, since its client would push it for ever.
fn out_of_time(ended: Ended, request: &PushRequest, opened: Instant, index: usize, alone: bool) -> Ended {
    match ended {
        Ended::Refused(PushRefused::Failure(Failure::Limit(_))) if request.is_out_of_time(opened) => {
            let message = format!("mutator {} took too long", request.mutations[index].name);
            if alone { Ended::Blame(index, MutationError { name: "Error".into(), message }) } else { Ended::Late(index) }
        }
        other => other,
    }
}

/// Ids of one client inside a batch are consecutive.
fn check_order(mutations: &[Mutation]) -> Result<(), PushRefused> {
    let mut last = BTreeMap::new();
    for mutation in mutations {
        if let Some(last) = last.insert(&mutation.client_id, mutation.id)
            && mutation.id != last + 1
        {
            let Mutation { client_id, id, .. } = mutation;
            return Err(PushRefused::Invalid(format!("mutation {id} of client {client_id} does not follow {last}")));
        }
    }
    Ok(())
}

/// Notes which mutation of the app is being tried, for the case that it takes the whole call along (where the app is composed
/// with this component). False: it was noted before, so that it did so twice.
///
/// Only a call that has just failed notes anything: the first try of a push costs nothing. The note is not rolled back, because it is
/// no row.
fn note_try(imports: Imports<'_>, mutation: &Mutation) -> Result<bool, Failure> {
    let key = format!("tried/{}", mutation.client_id);
    let noted = imports.storage.get(&key)?;
    let now = mutation.id.to_string().into_bytes();
    if noted.as_deref() == Some(&now) {
        return Ok(false);
    }
    imports.storage.compare_and_set(&key, noted, now)?;
    Ok(true)
}
