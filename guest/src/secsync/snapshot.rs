//! Saving snapshots (docs/protocols/secsync.md, section 5.1).

use std::collections::BTreeMap;

use super::connect::sequence;
use super::deliver;
use super::failure::Failure;
use super::frames::{Kind, SnapshotFrame};
use super::hooks;
use super::reading::{Clocks, Found, Wanted, lacking};
use super::receive::{Denied, permit};
use super::retention::{self, Dropped};
use super::server_messages as messages;
use super::settings::{ParentProof, Settings};
use super::store::{Call, Content};
use super::verify;
use crate::imports::{Query, Transaction};

use super::attachment::Attachment;
use super::policy::Action;

/// Why a snapshot is not saved. All but the last two say nothing else to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefused {
    /// A field is missing or mistyped.
    #[error("bad shape")]
    Shape,
    /// It names another document than the connection's.
    #[error("it names another document")]
    ForeignDocument,
    /// The author did not sign it.
    #[error("bad signature")]
    Signature,
    /// The app refused it, or did not answer.
    #[error("the app did not take it")]
    App,
    /// The document is gone.
    #[error("the document does not exist")]
    NoDocument,
    /// Some snapshot has its id already.
    #[error("its snapshotId is used already")]
    SnapshotIdUsed,
    /// It does not prove its parent.
    #[error("wrong parentSnapshotProof")]
    ParentProof,
    /// Its parent is not the active snapshot.
    #[error("based on an outdated snapshot")]
    Outdated,
    /// Its creator had not seen all updates on the parent.
    #[error("it misses updates")]
    MissesUpdates,
}

/// What the database says that matters for the decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The number of commits so far.
    pub seq: i64,
    /// The active snapshot.
    pub active: Option<Active>,
    /// Whether some snapshot of any document has the new id.
    pub snapshot_id_used: bool,
    /// The place in the chain of what the new snapshot names as its parent, if it is one of this document.
    pub parent_ordinal: Option<i64>,
    /// Until when the updates of others wait for somebody's retry.
    pub grace_until: Option<i64>,
}

/// The active snapshot and its clock table.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    id: String,
    ordinal: i64,
    parent_proof: String,
    ciphertext_hash: String,
    clocks: Clocks,
}

/// Decides about a snapshot whose signature is right.
pub fn decide(settings: &Settings, state: &State, snapshot: &SnapshotFrame<'_>) -> Result<(), SnapshotRefused> {
    if state.snapshot_id_used {
        return Err(SnapshotRefused::SnapshotIdUsed);
    }
    let Some(active) = &state.active else {
        let first_proof = || verify::parent_snapshot_proof("", "", "");
        let is_first = || snapshot.parent_snapshot_id.is_empty() && snapshot.parent_snapshot_proof == first_proof();
        return if settings.parent_proof != ParentProof::Strict || is_first() { Ok(()) } else { Err(SnapshotRefused::ParentProof) };
    };
    if snapshot.parent_snapshot_id != active.id {
        return Err(SnapshotRefused::Outdated);
    }
    if !has_seen_all(&active.clocks, &snapshot.parent_snapshot_update_clocks) {
        return Err(SnapshotRefused::MissesUpdates);
    }
    let proof = || verify::parent_snapshot_proof(&active.parent_proof, &active.ciphertext_hash, &active.id);
    if settings.parent_proof != ParentProof::Off && snapshot.parent_snapshot_proof != proof() {
        return Err(SnapshotRefused::ParentProof);
    }
    Ok(())
}

/// Whether two clock tables are the same, both ways.
fn has_seen_all(stored: &Clocks, claimed: &BTreeMap<String, f64>) -> bool {
    stored.len() == claimed.len() && stored.iter().all(|(author, clock)| claimed.get(author) == Some(&(*clock as f64)))
}

/// Checks a snapshot as far as that goes without the database.
pub fn check(call: &Call<'_>, attachment: &Attachment, snapshot: &SnapshotFrame<'_>) -> Result<Result<(), SnapshotRefused>, Denied> {
    if snapshot.signed.doc_id != attachment.doc_id {
        return Ok(Err(SnapshotRefused::ForeignDocument));
    }
    if permit(call, attachment, Action::WriteSnapshot, &snapshot.signed)?.is_err() {
        return Ok(Err(SnapshotRefused::App));
    }
    if call.settings.verify_signatures && !verify::is_signed(Kind::Snapshot, &snapshot.signed) {
        return Ok(Err(SnapshotRefused::Signature));
    }
    Ok(Ok(()))
}

/// Saves a checked snapshot, or finds out what its author lacks. Gives the reply, and why it is a refusal.
pub fn save(call: &Call<'_>, attachment: &Attachment, snapshot: &SnapshotFrame<'_>) -> Result<(String, Option<SnapshotRefused>), Failure> {
    let body = snapshot.signed.body();
    let message = messages::snapshot(&body);
    let content = call.put_away(body)?;
    let server_data = snapshot.additional_server_data.map(|data| call.put_away(data.to_owned())).transpose()?;
    let take_back = || {
        call.take_back(&content);
        server_data.iter().for_each(|data| call.take_back(data));
    };
    let decided = attempt(call, attachment, snapshot, &Contents { body: &content, server_data: server_data.as_ref(), message });
    match decided {
        Ok(Ok(())) => Ok((messages::snapshot_saved(&snapshot.snapshot_id), None)),
        Ok(Err((refused, lacks))) => {
            take_back();
            let reply = match lacks {
                None => messages::SNAPSHOT_SAVE_FAILED.to_owned(),
                Some(found) => messages::snapshot_save_failed(&found.load(call)?),
            };
            Ok((reply, Some(refused)))
        }
        Err(failure) => {
            take_back();
            Err(failure)
        }
    }
}

type Refusal = (SnapshotRefused, Option<Found>);

/// A snapshot as it is stored and told of.
struct Contents<'a> {
    body: &'a Content,
    server_data: Option<&'a Content>,
    message: String,
}

/// One transaction: decides, then writes and publishes.
fn attempt(
    call: &Call<'_>,
    attachment: &Attachment,
    snapshot: &SnapshotFrame<'_>,
    contents: &Contents<'_>,
) -> Result<Result<(), Refusal>, Failure> {
    let transaction = call.begin()?;
    let view: &dyn Query = transaction.as_ref();
    let Some(state) = state(call, view, snapshot)? else { return Ok(Err((SnapshotRefused::NoDocument, None))) };
    let decided = match decide(call.settings, &state, snapshot) {
        Ok(()) => hooks::create_snapshot(call, transaction.as_ref(), attachment, snapshot)?,
        refused => refused,
    };
    match decided {
        Ok(()) => {
            let seq = state.seq + 1;
            let dropped = write(call, transaction.as_ref(), snapshot, &state, contents)?;
            deliver::publish_saved(call, &snapshot.signed.doc_id, sequence(seq), contents.message.clone());
            transaction.commit()?;
            dropped.committed(call);
            Ok(Ok(()))
        }
        Err(SnapshotRefused::Outdated) => {
            let found = lacks_after_outdated(call, view, snapshot, &state)?;
            Ok(Err((SnapshotRefused::Outdated, Some(found))))
        }
        Err(SnapshotRefused::MissesUpdates) => {
            let active = state.active.as_ref();
            let wanted = active.map_or(Wanted::All, |active| lacking(&active.clocks, &snapshot.parent_snapshot_update_clocks));
            let updates = call.updates(view, active.map_or("", |active| &active.id), &wanted)?;
            grant_grace(call, transaction, snapshot, &state)?;
            Ok(Err((SnapshotRefused::MissesUpdates, Some(Found { updates, ..Found::default() }))))
        }
        Err(refused) => Ok(Err((refused, None))),
    }
}

fn state(call: &Call<'_>, view: &dyn Query, snapshot: &SnapshotFrame<'_>) -> Result<Option<State>, Failure> {
    let template = "SELECT d.seq, d.grace_until, n.id, p.ordinal, s.id, s.ordinal, s.parent_proof, s.ciphertext_hash \
         FROM {}ss_documents d LEFT JOIN {}ss_snapshots s ON s.id = d.active_snapshot_id LEFT JOIN {}ss_snapshots n ON n.id = ? \
         LEFT JOIN {}ss_snapshots p ON p.id = ? AND p.doc_id = d.id WHERE d.id = ?";
    let parameters =
        [snapshot.snapshot_id.as_str().into(), snapshot.parent_snapshot_id.as_str().into(), snapshot.signed.doc_id.as_str().into()];
    let Some(mut row) = call.rows(view, template, parameters)?.into_iter().next() else { return Ok(None) };
    let mut state = State {
        seq: row.integer()?,
        grace_until: row.optional_integer()?,
        snapshot_id_used: row.optional_text()?.is_some(),
        parent_ordinal: row.optional_integer()?,
        active: None,
    };
    if let (Some(id), Some(ordinal)) = (row.optional_text()?, row.optional_integer()?) {
        let (parent_proof, ciphertext_hash) = (row.text()?, row.text()?);
        // The clock table decides nothing where the parent is wrong already.
        let clocks = if id == snapshot.parent_snapshot_id { call.clocks(view, &id)? } else { Clocks::new() };
        state.active = Some(Active { id, ordinal, parent_proof, ciphertext_hash, clocks });
    }
    Ok(Some(state))
}

/// The active snapshot, all on it, and the chain from what the author took for the active one.
fn lacks_after_outdated(call: &Call<'_>, view: &dyn Query, snapshot: &SnapshotFrame<'_>, state: &State) -> Result<Found, Failure> {
    let doc_id = &snapshot.signed.doc_id;
    let active = call.head(view, doc_id, None, "")?.and_then(|head| head.active);
    let active = active.ok_or_else(|| Failure::Unexpected("the active snapshot is not there".into()))?;
    let updates = call.updates(view, &active.id, &Wanted::All)?;
    let chain = match state.parent_ordinal {
        // An empty chain says: the given snapshot is a child of yours, or you have it.
        Some(parent) if parent + 1 < active.ordinal => call.snapshot_proof_chain(view, doc_id, parent, active.ordinal)?,
        _ => Vec::new(),
    };
    Ok(Found { snapshot: Some(active.content), updates, snapshot_proof_chain: Some(chain) })
}

fn write(
    call: &Call<'_>,
    transaction: &dyn Transaction,
    snapshot: &SnapshotFrame<'_>,
    state: &State,
    contents: &Contents<'_>,
) -> Result<Dropped, Failure> {
    let (doc_id, id) = (snapshot.signed.doc_id.as_str(), snapshot.snapshot_id.as_str());
    let seq = state.seq + 1;
    let ordinal = state.active.as_ref().map_or(1, |active| active.ordinal + 1);
    let hash = verify::hash(&snapshot.signed.ciphertext);
    let mut values = vec![id.into(), doc_id.into(), ordinal.into(), seq.into()];
    values.extend([snapshot.parent_snapshot_id.as_str().into(), snapshot.parent_snapshot_proof.as_str().into(), hash.into()]);
    values.extend(contents.body.columns());
    values.extend(contents.server_data.unwrap_or(&Content::Dropped).columns());
    values.push(call.now_ms().into());
    let insert = "INSERT INTO {}ss_snapshots (id, doc_id, ordinal, seq, parent_id, parent_proof, ciphertext_hash, body, object_key, \
         server_data, server_data_object_key, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let activate = "UPDATE {}ss_documents SET active_snapshot_id = ?, ordinal = ?, seq = ?, update_count = 0, grace_author = NULL, \
         grace_until = NULL WHERE id = ?";
    let mut statements =
        vec![call.statement(insert, values), call.statement(activate, [id.into(), ordinal.into(), seq.into(), doc_id.into()])];
    if let Some(active) = &state.active {
        let supersede = "UPDATE {}ss_snapshots SET superseded_at = ? WHERE id = ?";
        statements.push(call.statement(supersede, [call.now_ms().into(), active.id.as_str().into()]));
    }
    transaction.execute_batch(statements)?;
    retention::after_snapshot(call, transaction, doc_id, ordinal)
}

/// Lets the updates of others wait for the retry of this author. Not again at once: nobody can hold up a document for good.
fn grant_grace(call: &Call<'_>, transaction: Box<dyn Transaction>, snapshot: &SnapshotFrame<'_>, state: &State) -> Result<(), Failure> {
    let grace_ms = i64::try_from(call.settings.snapshot_grace_ms).unwrap_or(i64::MAX);
    let now_ms = call.now_ms();
    let rested = state.grace_until.is_none_or(|until| until.saturating_add(grace_ms) <= now_ms);
    if grace_ms == 0 || !rested {
        return Ok(());
    }
    let template = "UPDATE {}ss_documents SET grace_author = ?, grace_until = ? WHERE id = ?";
    let parameters =
        [snapshot.signed.pub_key.as_str().into(), now_ms.saturating_add(grace_ms).into(), snapshot.signed.doc_id.as_str().into()];
    transaction.execute(call.statement(template, parameters))?;
    Ok(transaction.commit()?)
}
