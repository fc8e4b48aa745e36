//! Saving updates (docs/protocols/secsync.md, section 5.2).

use super::attachment::Attachment;
use super::connect::sequence;
use super::deliver;
use super::failure::Failure;
use super::frames::{Kind, UpdateFrame};
use super::hooks;
use super::policy::Action;
use super::receive::{Denied, permit};
use super::server_messages as messages;
use super::store::{Call, Content};
use super::verify;
use crate::imports::Query;

/// Why an update is not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateRefused {
    /// A field is missing or mistyped.
    #[error("bad shape")]
    Shape,
    /// It names another document than the connection's.
    #[error("it names another document")]
    ForeignDocument,
    /// The author did not sign it.
    #[error("bad signature")]
    Signature,
    /// Its snapshot is not the active one.
    #[error("its snapshot is not the active one")]
    NotActive,
    /// Its clock is not the one after the author's last.
    #[error("its clock is not the next one")]
    Clock,
    /// The app refused it, or did not answer.
    #[error("the app did not take it")]
    App,
    /// The snapshot has as many updates as it may: the client is told to make a new one.
    #[error("a new snapshot is required")]
    NewSnapshotRequired,
}

/// What the database says that matters for the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The number of commits so far.
    pub seq: i64,
    /// The active snapshot.
    pub active_snapshot_id: Option<String>,
    /// The number of updates on it.
    pub update_count: u64,
    /// The author's last clock on it.
    pub last_clock: Option<u64>,
    /// The signature of the stored update with the same snapshot, author and clock.
    pub stored_signature: Option<String>,
    /// Whose retry of a snapshot the updates of others wait for, and until when.
    pub grace: Option<(String, i64)>,
}

/// What to do with an update.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is stored already, byte for byte.
    AlreadySaved,
    /// Append it.
    Save,
    /// Look at it again after so many milliseconds.
    PutOff(u64),
    /// Say no.
    Refuse(UpdateRefused),
}

/// Decides about an update whose signature is right. `limit` is the number of updates that a snapshot may have.
pub fn decide(state: &State, update: &UpdateFrame<'_>, limit: Option<u64>, now_ms: i64) -> Decision {
    if state.stored_signature.as_deref() == Some(update.signed.signature.as_ref()) {
        return Decision::AlreadySaved;
    }
    if state.active_snapshot_id.as_deref() != Some(update.ref_snapshot_id.as_str()) {
        return Decision::Refuse(UpdateRefused::NotActive);
    }
    if limit.is_some_and(|limit| state.update_count >= limit) {
        return Decision::Refuse(UpdateRefused::NewSnapshotRequired);
    }
    if update.clock != state.last_clock.map_or(0, |last| last + 1) {
        return Decision::Refuse(UpdateRefused::Clock);
    }
    match &state.grace {
        Some((author, until)) if *author != update.signed.pub_key && *until > now_ms => Decision::PutOff(until.abs_diff(now_ms)),
        _ => Decision::Save,
    }
}

/// Checks an update as far as that goes without the database.
pub fn check(call: &Call<'_>, attachment: &Attachment, update: &UpdateFrame<'_>) -> Result<Result<(), UpdateRefused>, Denied> {
    if update.signed.doc_id != attachment.doc_id {
        return Ok(Err(UpdateRefused::ForeignDocument));
    }
    if permit(call, attachment, Action::WriteUpdate, &update.signed)?.is_err() {
        return Ok(Err(UpdateRefused::App));
    }
    if call.settings.verify_signatures && !verify::is_signed(Kind::Update, &update.signed) {
        return Ok(Err(UpdateRefused::Signature));
    }
    Ok(Ok(()))
}

/// Saves a checked update: what was decided has been done when this returns.
pub fn save(call: &Call<'_>, attachment: &Attachment, update: &UpdateFrame<'_>) -> Result<Decision, Failure> {
    let body = update.signed.body();
    let message = messages::update(&body);
    let content = call.put_away(body)?;
    let attempted = attempt(call, attachment, update, &content, message);
    if !matches!(attempted, Ok(Decision::Save)) {
        call.take_back(&content);
    }
    attempted
}

/// One transaction: decides, then writes and publishes.
fn attempt(
    call: &Call<'_>,
    attachment: &Attachment,
    update: &UpdateFrame<'_>,
    content: &Content,
    message: String,
) -> Result<Decision, Failure> {
    let transaction = call.begin()?;
    let state = state(call, transaction.as_ref(), update)?;
    let seq = state.seq + 1;
    let mut decision = decide(&state, update, call.settings.updates_limit(&update.signed.doc_id), call.now_ms());
    if decision == Decision::Save
        && let Err(refused) = hooks::create_update(call, transaction.as_ref(), attachment, update)?
    {
        decision = Decision::Refuse(refused);
    }
    if decision == Decision::Save {
        let clock = i64::try_from(update.clock).unwrap_or(i64::MAX);
        let mut values = vec![update.ref_snapshot_id.as_str().into(), seq.into(), update.signed.pub_key.as_str().into(), clock.into()];
        values.push(update.signed.signature.as_ref().into());
        values.extend(content.columns());
        let insert =
            "INSERT INTO {}ss_updates (snapshot_id, seq, pub_key, clock, signature, body, object_key) VALUES (?, ?, ?, ?, ?, ?, ?)";
        let count = "UPDATE {}ss_documents SET seq = ?, update_count = update_count + 1 WHERE id = ?";
        let statements = vec![call.statement(insert, values), call.statement(count, [seq.into(), update.signed.doc_id.as_str().into()])];
        transaction.execute_batch(statements)?;
        // Within the transaction: whatever becomes of this call, others get the update if and only if it is there.
        deliver::publish_saved(call, &update.signed.doc_id, sequence(seq), message);
        transaction.commit()?;
    }
    Ok(decision)
}

/// Everything that decides about an update, in one question. A document that is gone has no active snapshot.
fn state(call: &Call<'_>, view: &dyn Query, update: &UpdateFrame<'_>) -> Result<State, Failure> {
    let template = "SELECT d.seq, d.active_snapshot_id, d.update_count, \
         (SELECT MAX(a.clock) FROM {}ss_updates a WHERE a.snapshot_id = d.active_snapshot_id AND a.pub_key = ?), \
         (SELECT u.signature FROM {}ss_updates u WHERE u.snapshot_id = ? AND u.pub_key = ? AND u.clock = ?), \
         d.grace_author, d.grace_until FROM {}ss_documents d WHERE d.id = ?";
    let pub_key = update.signed.pub_key.as_str();
    let clock = i64::try_from(update.clock).unwrap_or(i64::MAX);
    let parameters =
        [pub_key.into(), update.ref_snapshot_id.as_str().into(), pub_key.into(), clock.into(), update.signed.doc_id.as_str().into()];
    let Some(mut row) = call.rows(view, template, parameters)?.into_iter().next() else { return Ok(State::default()) };
    Ok(State {
        seq: row.integer()?,
        active_snapshot_id: row.optional_text()?,
        update_count: sequence(row.integer()?),
        last_clock: row.optional_integer()?.map(sequence),
        stored_signature: row.optional_text()?,
        grace: row.optional_text()?.zip(row.optional_integer()?),
    })
}
