//! Frames of the secsync protocol (docs/protocols/secsync.md), signed as its clients sign them. Contents are not
//! encrypted: the server never looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

/// The proof of a first snapshot.
pub const FIRST_PROOF: &str = "k_CZR7BveaeM7FOc0TYtEtTtTi0ElwG9XrDVLxb9tR0";

/// Somebody who signs.
pub struct Author {
    key: SigningKey,
}

/// A snapshot as its author knows it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The frame.
    pub frame: Value,
    /// Its id.
    pub id: String,
}

/// Bytes as base64 of the protocol.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn canonical(value: &Value) -> String {
    serde_json_canonicalizer::to_string(value).expect("JSON has a canonical form")
}

/// BLAKE2b with 32 bytes of output, in base64.
pub fn hash(text: &str) -> String {
    base64url(Blake2b::<U32>::digest(text.as_bytes()))
}

/// A snapshot id that no other call gives.
pub fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0_u8; 24];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes[8..].copy_from_slice(&rand::random::<[u8; 16]>());
    base64url(bytes)
}

/// The proof of a child of a snapshot frame.
pub fn proof_of_child(parent: &Value) -> String {
    hash(&canonical(&json!({
        "grandParentSnapshotProof": parent["publicData"]["parentSnapshotProof"],
        "parentSnapshotCiphertextHash": hash(parent["ciphertext"].as_str().unwrap_or_default()),
        "parentSnapshotId": parent["publicData"]["snapshotId"],
    })))
}

impl Author {
    /// The author of a seed.
    pub fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]) }
    }

    /// The public key in base64.
    pub fn public_key(&self) -> String {
        base64url(self.key.verifying_key().to_bytes())
    }

    /// A signed frame. `content` stands for the ciphertext.
    pub fn sign(&self, context: &str, public_data: Value, content: &[u8]) -> Value {
        self.sign_fields(context, public_data, &base64url([&[7_u8; 48][..], content].concat()), &base64url([3_u8; 24]))
    }

    /// A frame whose fields may be wrong, with a signature that is right for them.
    pub fn sign_fields(&self, context: &str, public_data: Value, ciphertext: &str, nonce: &str) -> Value {
        let signed = canonical(&json!({
            "ciphertext": ciphertext, "nonce": nonce, "publicData": base64url(canonical(&public_data)),
        }));
        let signature = base64url(self.key.sign(format!("{context}{signed}").as_bytes()).to_bytes());
        json!({"ciphertext": ciphertext, "nonce": nonce, "publicData": public_data, "signature": signature})
    }

    /// A first snapshot of a document.
    pub fn first_snapshot(&self, document: &str, content: &[u8]) -> Snapshot {
        self.first_snapshot_named(fresh_id(), document, content)
    }

    /// The same with an id of the caller's.
    pub fn first_snapshot_named(&self, id: String, document: &str, content: &[u8]) -> Snapshot {
        let public_data = json!({
            "docId": document, "pubKey": self.public_key(), "snapshotId": id,
            "parentSnapshotId": "", "parentSnapshotProof": FIRST_PROOF, "parentSnapshotUpdateClocks": {},
        });
        Snapshot { frame: self.sign("secsync_snapshot", public_data, content), id }
    }

    /// A snapshot on a parent, whose updates were applied up to `clocks`.
    pub fn snapshot_on(&self, parent: &Snapshot, clocks: &BTreeMap<String, u64>, content: &[u8]) -> Snapshot {
        self.snapshot_named_on(fresh_id(), parent, clocks, content)
    }

    /// The same with an id of the caller's.
    pub fn snapshot_named_on(&self, id: String, parent: &Snapshot, clocks: &BTreeMap<String, u64>, content: &[u8]) -> Snapshot {
        let public_data = json!({
            "docId": parent.frame["publicData"]["docId"], "pubKey": self.public_key(), "snapshotId": id,
            "parentSnapshotId": parent.id, "parentSnapshotProof": proof_of_child(&parent.frame),
            "parentSnapshotUpdateClocks": clocks,
        });
        Snapshot { frame: self.sign("secsync_snapshot", public_data, content), id }
    }

    /// An update.
    pub fn update(&self, document: &str, snapshot_id: &str, clock: u64, content: &[u8]) -> Value {
        let public_data = json!({"docId": document, "pubKey": self.public_key(), "refSnapshotId": snapshot_id, "clock": clock});
        self.sign("secsync_update", public_data, content)
    }

    /// An ephemeral message.
    pub fn ephemeral(&self, document: &str, content: &[u8]) -> Value {
        self.sign("secsync_ephemeral_message", json!({"docId": document, "pubKey": self.public_key()}), content)
    }
}

/// The place of a document, as a client without knowledge opens it.
pub fn place(document: &str, session_key: &str) -> String {
    format!("/secsync/{document}?sessionKey={session_key}&mode=complete")
}

/// What an update gets that is saved.
pub fn update_saved(snapshot_id: &str, clock: u64) -> Value {
    json!({"type": "update-saved", "snapshotId": snapshot_id, "clock": clock})
}

/// What an update gets that is refused.
pub fn update_refused(snapshot_id: &str, clock: u64) -> Value {
    json!({"type": "update-save-failed", "snapshotId": snapshot_id, "clock": clock, "requiresNewSnapshot": false})
}

/// What a snapshot gets that is saved.
pub fn snapshot_saved(snapshot: &Snapshot) -> Value {
    json!({"type": "snapshot-saved", "snapshotId": snapshot.id})
}

/// How others see an update or, with `ephemeral-message`, an ephemeral message.
pub fn relayed(kind: &str, frame: &Value) -> Value {
    let mut relayed = frame.clone();
    relayed["type"] = kind.into();
    relayed
}

/// How others see a snapshot.
pub fn relayed_snapshot(snapshot: &Snapshot) -> Value {
    json!({"type": "snapshot", "snapshot": snapshot.frame})
}
