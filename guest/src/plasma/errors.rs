//! Errors for whoever runs the server (docs/protocols/plasma.md, section 17): logged, counted, kept in a ring, told to webhook and app.
//!
//! The ring has slots in the key-value store, by the id of the request: each holds what that request reported. So no request
//! waits for another, and the newest push out the oldest.

use serde_json::{Map, Value as Json, json};

use super::Call;
use super::hooks::Hook;
use crate::imports::Level;

/// Beginning of the keys of the ring.
const SLOT_PREFIX: &str = "error/";
/// Errors of one request that are kept; a push may have many.
const ERRORS_PER_SLOT_MAX: usize = 200;

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A mutator failed.
    Mutation {
        /// Whose push it was.
        client_group_id: String,
        /// Whose mutation.
        client_id: String,
        /// Which.
        mutation_id: u64,
        /// Its mutator.
        mutation_name: String,
        /// What clients are told: name and message.
        cause: (String, String),
    },
    /// The hook after a push failed.
    OnPushedFailed {
        /// Whose push it was.
        client_group_id: String,
        /// The client of its last mutation.
        client_id: String,
        /// How.
        cause: String,
    },
    /// Another protocol version.
    ProtocolMismatch {
        /// The client's.
        got: i64,
    },
    /// Another schema version.
    SchemaMismatch {
        /// The server's.
        expected: String,
        /// The client's.
        got: String,
    },
    /// Authentication, ownership or permission refused.
    Unauthorized,
    /// A malformed, too large or too long request.
    InvalidRequest {
        /// Why.
        reason: String,
    },
    /// A malformed request for a blob.
    BlobInvalidRequest {
        /// Why.
        reason: String,
    },
    /// A blob that is not there was asked for.
    BlobNotFound {
        /// Which.
        hash: String,
    },
    /// A blob has more references than are looked at, and none of those lets the caller read it.
    BlobReadCapHit {
        /// Which.
        hash: String,
        /// How many are looked at.
        cap: u64,
    },
    /// An upload was not what its hash says.
    BlobHashMismatch {
        /// Which.
        hash: String,
        /// For people.
        reason: String,
    },
    /// The storage did not take an upload.
    BlobUploadFailed {
        /// Which.
        hash: String,
        /// Why.
        cause: String,
    },
}

impl Report {
    /// The kind on the admin surface.
    pub fn kind(&self) -> &'static str {
        match self {
            Report::Mutation { .. } => "mutation-error",
            Report::OnPushedFailed { .. } => "onPushed-failed",
            Report::ProtocolMismatch { .. } => "protocol-mismatch",
            Report::SchemaMismatch { .. } => "schema-mismatch",
            Report::Unauthorized => "unauthorized",
            Report::InvalidRequest { .. } => "invalid-request",
            Report::BlobInvalidRequest { .. } => "blob-invalid-request",
            Report::BlobNotFound { .. } => "blob-not-found",
            Report::BlobReadCapHit { .. } => "blob-read-auth-cap-hit",
            Report::BlobHashMismatch { .. } => "blob-hash-mismatch",
            Report::BlobUploadFailed { .. } => "blob-upload-failed-server",
        }
    }

    fn payload(&self) -> Json {
        match self {
            Report::Mutation { client_group_id, client_id, mutation_id, mutation_name, cause: (name, message) } => json!({
                "clientGroupID": client_group_id, "clientID": client_id, "mutationID": mutation_id,
                "mutationName": mutation_name, "cause": {"name": name, "message": message},
            }),
            Report::OnPushedFailed { client_group_id, client_id, cause } => {
                json!({"clientGroupID": client_group_id, "clientID": client_id, "cause": cause})
            }
            Report::ProtocolMismatch { got } => json!({"expected": 1, "got": got}),
            Report::SchemaMismatch { expected, got } => json!({"expected": expected, "got": got}),
            Report::Unauthorized => json!({}),
            Report::InvalidRequest { reason } | Report::BlobInvalidRequest { reason } => json!({"reason": reason}),
            Report::BlobNotFound { hash } => json!({ "hash": hash }),
            Report::BlobReadCapHit { hash, cap } => json!({"hash": hash, "cap": cap}),
            Report::BlobHashMismatch { hash, reason } => json!({"hash": hash, "reason": reason}),
            Report::BlobUploadFailed { hash, cause } => json!({"hash": hash, "cause": cause}),
        }
    }

    /// With kind and time, as it is kept.
    fn entry(&self, now_ms: u64) -> Json {
        let mut entry = self.payload();
        entry["kind"] = self.kind().into();
        entry["at"] = now_ms.into();
        entry
    }
}

impl Call<'_> {
    /// Reports what went wrong in this call.
    pub fn report(&self, reports: &[Report]) {
        if reports.is_empty() {
            return;
        }
        let rules = &self.settings.on_error;
        let entries: Vec<Json> = reports.iter().map(|report| report.entry(self.imports.now_ms)).collect();
        for (report, entry) in reports.iter().zip(&entries) {
            self.count("plasma_errors_total", &[("kind", report.kind())], 1.0);
            if rules.log {
                self.imports.effects.log(Level::Warn, "plasma error", &entry.to_string());
            }
        }
        self.keep(&entries);
        for entry in entries {
            if let Some(url) = &rules.webhook {
                self.post(url, &entry);
            }
            self.tell_app(Hook::Error, &entry, None);
        }
    }

    /// Puts entries into the slot of this request. A slot of an older request is overwritten.
    fn keep(&self, entries: &[Json]) {
        let ring = self.settings.on_error.ring;
        if ring == 0 {
            return;
        }
        let storage = self.imports.storage;
        let key = format!("{SLOT_PREFIX}{:05}", self.connection % ring);
        let before = storage.get(&key).ok().flatten().and_then(|slot| serde_json::from_slice::<Slot>(&slot).ok());
        let mut kept = before.filter(|slot| slot.connection == self.connection).map(|slot| slot.errors).unwrap_or_default();
        kept.extend_from_slice(entries);
        kept.drain(..kept.len().saturating_sub(ERRORS_PER_SLOT_MAX));
        let slot = Slot { connection: self.connection, errors: kept };
        let written = serde_json::to_vec(&slot).map_err(|error| error.to_string());
        if let Err(problem) = written.and_then(|slot| storage.set(&key, slot, None).map_err(|error| format!("{error:?}"))) {
            self.imports.effects.log(Level::Warn, "an error could not be kept in the ring", &json!({"problem": problem}).to_string());
        }
    }

    /// The newest errors, oldest first. None: the store failed.
    pub fn kept_errors(&self) -> Option<Vec<Json>> {
        let ring = u32::try_from(self.settings.on_error.ring).unwrap_or(u32::MAX);
        let storage = self.imports.storage;
        let mut errors = Vec::new();
        for key in storage.keys(SLOT_PREFIX, None, ring).ok()? {
            let slot = storage.get(&key).ok()?.and_then(|slot| serde_json::from_slice::<Slot>(&slot).ok());
            errors.extend(slot.into_iter().flat_map(|slot| slot.errors));
        }
        errors.sort_by_key(|entry| entry["at"].as_u64());
        errors.drain(..errors.len().saturating_sub(ring as usize));
        Some(errors)
    }
}

/// What one request reported.
#[derive(serde::Serialize, serde::Deserialize)]
struct Slot {
    connection: u64,
    errors: Vec<Json>,
}

/// An error body: `{"error":kind}` and what belongs to it.
pub fn error_body(kind: &str, payload: Json) -> Json {
    let mut body = Map::new();
    body.insert("error".into(), kind.into());
    if let Json::Object(payload) = payload {
        body.extend(payload);
    }
    Json::Object(body)
}
