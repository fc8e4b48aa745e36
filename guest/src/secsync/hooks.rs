//! What the app of the mount is asked (docs/protocols/secsync.md, sections 6 and 10): who may do what, what is saved, what
//! a reader gets. Arguments are those of the callbacks of `secsync-server`, field for field.
//!
//! An app that falls is the callback that throws: whoever waits for its answer is refused, and nothing else.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::attachment::Attachment;
use super::connect::Request;
use super::failure::Failure;
use super::frames::{BadShape, Kind, SnapshotFrame, UpdateFrame};
use super::policy::{Access, Action};
use super::server_messages::{ChainEntry, DocumentState};
use super::snapshot::SnapshotRefused;
use super::store::Call;
use super::update::UpdateRefused;
use crate::app::{Function, fell};
use crate::imports::{AppFailure, Caller, Identity, Transaction, Verdict};

/// Answers for a document in place of what is stored.
pub const GET_DOCUMENT: &str = "secsync.get-document";
/// Judges the `publicData` of a frame.
pub const VALIDATE_PUBLIC_DATA: &str = "secsync.validate-public-data";

/// The app did not answer: it fell, or there is no sense in what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the app did not answer")]
pub struct AppFell;

/// For whom the app is called; of jobs and broadcasts nobody.
fn caller(call: &Call<'_>, session_key: Option<&str>) -> Caller {
    let claims = session_key.map_or_else(|| json!({}), |key| json!({"websocketSessionKey": key}));
    let identity = Identity { user_id: None, roles: Vec::new(), claims: claims.to_string() };
    Caller { mount: call.mount.to_owned(), connection: Some(call.connection).filter(|id| *id != 0), identity, context: Vec::new() }
}

/// `hasAccess`: whether a session may do something with a document.
pub fn has_access(call: &Call<'_>, action: Action, session_key: &str, doc_id: &str, pub_key: Option<&str>) -> Result<bool, AppFell> {
    if call.settings.access != Access::App {
        return Ok(call.settings.access.allows(action, session_key, doc_id, pub_key));
    }
    let mut parameters = json!({"action": action.name(), "documentId": doc_id, "websocketSessionKey": session_key});
    if let Some(pub_key) = pub_key {
        parameters["publicKey"] = pub_key.into();
    }
    let answers = call.imports.app.authorize(&caller(call, Some(session_key)), action.name(), &[parameters.to_string()]);
    answers.first().copied().ok_or(AppFell)
}

/// `hasBroadcastAccess`: one answer for each session key; one that is missing means no.
pub fn has_broadcast_access(call: &Call<'_>, doc_id: &str, session_keys: &[&str]) -> Result<Vec<bool>, AppFell> {
    let access = &call.settings.broadcast_access;
    if *access != Access::App {
        return Ok(session_keys.iter().map(|key| access.allows_broadcast(key, doc_id)).collect());
    }
    let objects: Vec<_> = session_keys.iter().map(|key| json!({"documentId": doc_id, "websocketSessionKey": key}).to_string()).collect();
    let mut answers = call.imports.app.authorize(&caller(call, None), "broadcast", &objects);
    if answers.is_empty() && !objects.is_empty() {
        return Err(AppFell);
    }
    answers.resize(objects.len(), false);
    Ok(answers)
}

/// `createSnapshot`: the last word about a snapshot that would be saved, within its transaction.
pub fn create_snapshot(
    call: &Call<'_>,
    transaction: &dyn Transaction,
    attachment: &Attachment,
    snapshot: &SnapshotFrame<'_>,
) -> Result<Result<(), SnapshotRefused>, Failure> {
    if !call.app.has(Function::Validate) {
        return Ok(Ok(()));
    }
    let mut body = snapshot.signed.body();
    if let Some(server_data) = snapshot.additional_server_data {
        body.truncate(body.len() - 1);
        body.push_str(&format!(r#","additionalServerData":{server_data}}}"#));
    }
    let operation = format!(r#"{{"type":"create-snapshot","snapshot":{body}}}"#);
    Ok(match validate(call, transaction, attachment, &operation)? {
        None => Ok(()),
        Some(code) if code == "outdated" => Err(SnapshotRefused::Outdated),
        Some(code) if code == "misses-updates" => Err(SnapshotRefused::MissesUpdates),
        Some(_) => Err(SnapshotRefused::App),
    })
}

/// `createUpdate`: the last word about an update that would be saved, within its transaction.
pub fn create_update(
    call: &Call<'_>,
    transaction: &dyn Transaction,
    attachment: &Attachment,
    update: &UpdateFrame<'_>,
) -> Result<Result<(), UpdateRefused>, Failure> {
    if !call.app.has(Function::Validate) {
        return Ok(Ok(()));
    }
    let operation = format!(r#"{{"type":"create-update","update":{}}}"#, update.signed.body());
    Ok(match validate(call, transaction, attachment, &operation)? {
        None => Ok(()),
        Some(code) if code == "new-snapshot-required" => Err(UpdateRefused::NewSnapshotRequired),
        Some(_) => Err(UpdateRefused::App),
    })
}

/// The code of a refusal; none where the operation may be carried out. To ignore it is to refuse it: what is acknowledged
/// is there.
fn validate(call: &Call<'_>, transaction: &dyn Transaction, attachment: &Attachment, operation: &str) -> Result<Option<String>, Failure> {
    let savepoint = transaction.savepoint()?;
    let refused = match call.imports.app.validate(&caller(call, Some(&attachment.session_key)), operation) {
        Verdict::Accept => None,
        Verdict::Ignore => Some(String::new()),
        Verdict::Reject(failure) => {
            log_fall(call, "validate", &failure);
            Some(failure.code)
        }
    };
    match refused {
        None => transaction.release(savepoint)?,
        Some(_) => transaction.rollback_to(savepoint)?,
    }
    Ok(refused)
}

/// The fields of `publicData` that are to be checked and kept, or that they are not what they should be.
pub fn public_data(
    call: &Call<'_>,
    attachment: &Attachment,
    kind: Kind,
    public_data: Map<String, Value>,
) -> Result<Map<String, Value>, BadShape> {
    if !call.app.has_call(VALIDATE_PUBLIC_DATA) {
        return Ok(public_data);
    }
    let parameters = json!({"kind": kind.name(), "publicData": public_data}).to_string();
    match call.imports.app.call(&caller(call, Some(&attachment.session_key)), VALIDATE_PUBLIC_DATA, &parameters) {
        Ok(reply) => reply.value.map_or(Ok(public_data), |value| serde_json::from_str(&value).map_err(|_| BadShape)),
        Err(failure) => {
            log_fall(call, VALIDATE_PUBLIC_DATA, &failure);
            Err(BadShape)
        }
    }
}

/// What the app says of a document that somebody opens.
#[derive(Debug)]
pub enum AppDocument {
    /// What is stored.
    Stored,
    /// There is none.
    NotFound,
    /// It can never be loaded.
    Error,
    /// This.
    Given(Box<GivenDocument>),
}

/// A document from the app: JSON as it goes over the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenDocument {
    /// The snapshot.
    #[serde(default)]
    pub snapshot: Option<Box<RawValue>>,
    /// The updates on it.
    #[serde(default)]
    pub updates: Vec<Box<RawValue>>,
    /// The chain.
    #[serde(default)]
    pub snapshot_proof_chain: Option<Vec<ChainEntry>>,
}

impl From<Box<GivenDocument>> for DocumentState {
    fn from(given: Box<GivenDocument>) -> Self {
        let text = |raw: Box<RawValue>| String::from(Box::<str>::from(raw));
        Self {
            snapshot: given.snapshot.map(text),
            updates: given.updates.into_iter().map(text).collect(),
            snapshot_proof_chain: given.snapshot_proof_chain,
        }
    }
}

/// `getDocument`.
pub fn get_document(call: &Call<'_>, request: &Request) -> Result<AppDocument, Failure> {
    if !call.app.has_call(GET_DOCUMENT) {
        return Ok(AppDocument::Stored);
    }
    let mut parameters = json!({"documentId": request.doc_id, "mode": if request.delta { "delta" } else { "complete" }});
    if let Some(known) = &request.known_snapshot_id {
        parameters["knownSnapshotId"] = known.as_str().into();
        parameters["knownSnapshotUpdateClocks"] = json!(request.known_snapshot_update_clocks);
    }
    let answer = call.imports.app.call(&caller(call, Some(&request.session_key)), GET_DOCUMENT, &parameters.to_string());
    match answer.map(|reply| reply.value) {
        Ok(None) => Ok(AppDocument::Stored),
        Ok(Some(value)) => match serde_json::from_str::<Option<GivenDocument>>(&value) {
            Ok(Some(document)) => Ok(AppDocument::Given(Box::new(document))),
            Ok(None) => Ok(AppDocument::NotFound),
            Err(error) => Err(Failure::Unexpected(format!("{GET_DOCUMENT}: {error}"))),
        },
        Err(failure) if failure.retriable => Err(Failure::Transient(format!("{GET_DOCUMENT}: {}", failure.message))),
        Err(_) => Ok(AppDocument::Error),
    }
}

fn log_fall(call: &Call<'_>, what: &str, failure: &AppFailure) {
    if fell(failure) {
        call.log_failure(what, &Failure::Transient(format!("the app fell: {}", failure.code)));
    }
}
