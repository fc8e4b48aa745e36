//! What the server sends, by the names of the wire (docs/protocols/secsync.md, sections 2.2, 2.3 and 4.2), and how it closes (2.5).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::frames::push_json_text;
use crate::imports::Frame;

/// The server stops.
pub const GOING_AWAY: u16 = 1001;
/// A close frame without a code: after refusals that were said in a frame.
pub const NO_CODE: u16 = 1005;
/// Too many bad frames.
pub const POLICY_VIOLATION: u16 = 1008;
/// A frame was too large.
pub const TOO_BIG: u16 = 1009;
/// A failure that trying again may not cure.
pub const INTERNAL: u16 = 1011;
/// A failure that passes, or a client that falls behind.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// The client did not say what it must, or the document can never be loaded. Final for the client.
pub const DOCUMENT_ERROR: &str = r#"{"type":"document-error"}"#;
/// The document does not exist and may not be created. Final for the client.
pub const DOCUMENT_NOT_FOUND: &str = r#"{"type":"document-not-found"}"#;
/// The session may not do that. Final for the client.
pub const UNAUTHORIZED: &str = r#"{"type":"unauthorized"}"#;
/// A snapshot is refused and there is nothing to learn from it.
pub const SNAPSHOT_SAVE_FAILED: &str = r#"{"type":"snapshot-save-failed"}"#;

/// A text frame.
pub fn frame(text: impl Into<String>) -> Frame {
    Frame::Text(text.into())
}

/// An entry of `snapshotProofChain`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainEntry {
    /// The snapshot.
    pub snapshot_id: String,
    /// The hash of its ciphertext.
    pub snapshot_ciphertext_hash: String,
    /// Its proof.
    pub parent_snapshot_proof: String,
}

/// The state of a document as `document` and `snapshot-save-failed` carry it; what is absent is left out of the frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DocumentState {
    /// The active snapshot, as stored.
    pub snapshot: Option<String>,
    /// Updates, as stored, in the order of their commits.
    pub updates: Vec<String>,
    /// The chain from the child of what the client knows to the active snapshot.
    pub snapshot_proof_chain: Option<Vec<ChainEntry>>,
}

/// `document`.
pub fn document(state: &DocumentState) -> String {
    with_state("document", state)
}

/// `snapshot-save-failed` with what the client lacks.
pub fn snapshot_save_failed(state: &DocumentState) -> String {
    with_state("snapshot-save-failed", state)
}

fn with_state(message_type: &str, state: &DocumentState) -> String {
    let bodies = state.snapshot.iter().chain(&state.updates).map(|body| body.len() + 1).sum::<usize>();
    let chain_length = state.snapshot_proof_chain.as_ref().map_or(0, Vec::len);
    let mut text = String::with_capacity(bodies + 256 * chain_length + 128);
    text.push_str(r#"{"type":"#);
    push_json_text(&mut text, message_type);
    if let Some(snapshot) = &state.snapshot {
        text.push_str(r#","snapshot":"#);
        text.push_str(snapshot);
    }
    text.push_str(r#","updates":"#);
    push_list(&mut text, &state.updates, |text, update| text.push_str(update));
    if let Some(chain) = &state.snapshot_proof_chain {
        text.push_str(r#","snapshotProofChain":"#);
        push_list(&mut text, chain, push_chain_entry);
    }
    text.push('}');
    text
}

fn push_list<T>(text: &mut String, items: &[T], push: impl Fn(&mut String, &T)) {
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, item);
    }
    text.push(']');
}

fn push_chain_entry(text: &mut String, entry: &ChainEntry) {
    text.push_str(r#"{"snapshotId":"#);
    push_json_text(text, &entry.snapshot_id);
    text.push_str(r#","snapshotCiphertextHash":"#);
    push_json_text(text, &entry.snapshot_ciphertext_hash);
    text.push_str(r#","parentSnapshotProof":"#);
    push_json_text(text, &entry.parent_snapshot_proof);
    text.push('}');
}

/// `snapshot-saved`.
pub fn snapshot_saved(snapshot_id: &str) -> String {
    let mut text = String::from(r#"{"type":"snapshot-saved","snapshotId":"#);
    push_json_text(&mut text, snapshot_id);
    text.push('}');
    text
}

/// `snapshot`, to all others.
pub fn snapshot(body: &str) -> String {
    [r#"{"type":"snapshot","snapshot":"#, body, "}"].concat()
}

/// `update-saved`.
pub fn update_saved(ref_snapshot_id: &str, clock: u64) -> String {
    let mut text = String::from(r#"{"type":"update-saved","snapshotId":"#);
    push_json_text(&mut text, ref_snapshot_id);
    text.push_str(&format!(r#","clock":{clock}}}"#));
    text
}

/// The fields of a refused update that are said back: as they were sent, left out if they were not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefusedUpdate {
    snapshot_id: Option<Value>,
    clock: Option<Value>,
}

impl RefusedUpdate {
    /// From the `publicData` as it was sent.
    pub fn of(public_data: &Map<String, Value>) -> Self {
        Self { snapshot_id: public_data.get("refSnapshotId").cloned(), clock: public_data.get("clock").cloned() }
    }

    /// `update-save-failed`.
    pub fn update_save_failed(&self, requires_new_snapshot: bool) -> String {
        let mut text = String::from(r#"{"type":"update-save-failed""#);
        for (name, value) in [("snapshotId", &self.snapshot_id), ("clock", &self.clock)] {
            if let Some(json) = value.as_ref().and_then(|value| serde_json_canonicalizer::to_string(value).ok()) {
                text.push_str(&format!(",\"{name}\":{json}"));
            }
        }
        text.push_str(&format!(r#","requiresNewSnapshot":{requires_new_snapshot}}}"#));
        text
    }
}

/// `update`, to all others: the stored body with its type in front.
pub fn update(body: &str) -> String {
    typed("update", body)
}

/// `ephemeral-message`, to all others.
pub fn ephemeral_message(body: &str) -> String {
    typed("ephemeral-message", body)
}

fn typed(message_type: &str, body: &str) -> String {
    [r#"{"type":""#, message_type, r#"","#, body.strip_prefix('{').unwrap_or(body)].concat()
}
