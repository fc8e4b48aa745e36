//! Every way in which a request is refused, and what the client then reads (sections 5.4 and 17).

use serde_json::{Value as Json, json};

use crate::http::{header, json_response};
use crate::imports::Level;
use crate::plasma::Call;
use crate::plasma::engine::Dialect;
use crate::plasma::errors::{Report, error_body};
use crate::plasma::failure::Failure;
use crate::registry::Response;

/// What is wrong with another coding.
const CODINGS: &str = "bodies come as they are or in gzip";
/// The same of a blob.
const BLOB_CODINGS: &str = "a blob comes as it is: its hash is that of the bytes that are sent";

/// Why a request was refused. Each variant is one reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// There is no such path.
    NotFound,
    /// The path does not take the method; these it takes.
    MethodNotAllowed(&'static [&'static str]),
    /// The body is too large.
    PayloadTooLarge {
        /// Bytes that are allowed.
        limit: u64,
        /// Bytes that came, or more than that.
        got: u64,
    },
    /// The body came in a coding that is not undone here.
    UnsupportedContentEncoding,
    /// A blob came in a coding.
    UnsupportedBlobEncoding,
    /// No good credentials.
    Unauthorized(String),
    /// Not this user's.
    Forbidden(&'static str),
    /// Malformed.
    InvalidRequest(String),
    /// A malformed request for a blob.
    BlobInvalidRequest(String),
    /// There is no such blob.
    BlobNotFound {
        /// As in the path.
        hash: String,
    },
    /// The newest references do not let the caller read a blob, and older ones were not looked at.
    BlobReadCapHit {
        /// As in the path.
        hash: String,
        /// How many were looked at.
        cap: u64,
    },
    /// The bytes are not those of the hash.
    BlobHashMismatch {
        /// As in the path.
        hash: String,
        /// For people.
        reason: String,
    },
    /// The storage did not take the bytes; the text is for whoever runs the server.
    BlobUploadFailed {
        /// As in the path.
        hash: String,
        /// Why.
        cause: String,
    },
    /// Another protocol version.
    ProtocolMismatch {
        /// Whose words.
        dialect: Dialect,
        /// `push`, `pull`, `query` or `snapshot`.
        request: &'static str,
        /// The client's.
        got: i64,
    },
    /// Another schema version.
    SchemaMismatch {
        /// Whose words.
        dialect: Dialect,
        /// The server's.
        expected: String,
        /// The client's.
        got: String,
    },
    /// More mutations than a push may have.
    TooManyMutations {
        /// How many are allowed.
        limit: usize,
        /// How many came.
        got: usize,
    },
    /// What the client had is gone.
    ClientStateNotFound(Dialect),
    /// The log does not reach back so far; the least version that it knows.
    SnapshotCompacted(u64),
    /// A migration was refused.
    MigrationRefused(Json),
    /// A write of the server's side was denied.
    WriteDenied {
        /// Where.
        table: String,
        /// What.
        action: &'static str,
    },
    /// A write of the server's side failed.
    WriteFailed(String),
    /// The database has this call run again; nobody gets to read this.
    Aborted,
    /// It passes; the text is for the log.
    Unavailable(String),
    /// It does not pass; the text is for the log.
    Internal(String),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Aborted => Refusal::Aborted,
            Failure::Unavailable(_) | Failure::Limit(_) => Refusal::Unavailable(failure.to_string()),
            Failure::Unexpected(what) => Refusal::Internal(what),
        }
    }
}

impl Refusal {
    /// A malformed request.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Refusal::InvalidRequest(reason.into())
    }

    /// What the client reads.
    pub fn response(&self) -> Response {
        let (status, body) = self.status_and_body();
        let mut response = json_response(status, body.to_string());
        match self {
            Refusal::MethodNotAllowed(methods) => response.headers.push(header("allow", format!("{}, OPTIONS", methods.join(", ")))),
            Refusal::Unauthorized(_) => response.headers.push(header("www-authenticate", "Bearer")),
            // RFC 9110, section 15.5.16.
            Refusal::UnsupportedContentEncoding => response.headers.push(header("accept-encoding", "gzip")),
            Refusal::UnsupportedBlobEncoding => response.headers.push(header("accept-encoding", "identity")),
            Refusal::Aborted | Refusal::Unavailable(_) => response.headers.push(header("retry-after", "1")),
            _ => {}
        }
        response
    }

    /// The same where there is no status, as on a connection.
    pub fn body(&self) -> Json {
        self.status_and_body().1
    }

    fn status_and_body(&self) -> (u16, Json) {
        let native = |dialect: &Dialect| *dialect == Dialect::Native;
        let reason = |kind: &str, reason: &str| error_body(kind, json!({ "reason": reason }));
        // A Replicache client reads bodies of status 200 only.
        let replicache = |kind: &str, payload: Json| (200, error_body(kind, payload));
        match self {
            Refusal::NotFound => (404, error_body("not-found", Json::Null)),
            Refusal::MethodNotAllowed(_) => (405, error_body("method-not-allowed", Json::Null)),
            Refusal::PayloadTooLarge { limit, got } => (413, error_body("payload-too-large", json!({"limit": limit, "got": got}))),
            Refusal::UnsupportedContentEncoding => (415, reason("unsupported-content-encoding", CODINGS)),
            Refusal::UnsupportedBlobEncoding => (415, reason("unsupported-content-encoding", BLOB_CODINGS)),
            Refusal::Unauthorized(why) => (401, reason("unauthorized", why)),
            Refusal::Forbidden(why) => (403, reason("forbidden", why)),
            Refusal::InvalidRequest(why) => (400, reason("invalid-request", why)),
            Refusal::BlobInvalidRequest(why) => (400, reason("blob-invalid-request", why)),
            Refusal::BlobNotFound { hash } => (404, error_body("blob-not-found", json!({ "hash": hash }))),
            Refusal::BlobReadCapHit { hash, cap } => (403, error_body("blob-read-auth-cap-hit", json!({"hash": hash, "cap": cap}))),
            Refusal::BlobHashMismatch { hash, reason } => (422, error_body("blob-hash-mismatch", json!({"hash": hash, "reason": reason}))),
            Refusal::BlobUploadFailed { hash, .. } => (502, error_body("blob-upload-failed-server", json!({ "hash": hash }))),
            Refusal::ProtocolMismatch { dialect, got, .. } if native(dialect) => {
                (409, error_body("protocol-mismatch", json!({"expected": 1, "got": got})))
            }
            Refusal::ProtocolMismatch { request, .. } => replicache("VersionNotSupported", json!({ "versionType": request })),
            Refusal::SchemaMismatch { dialect, expected, got } if native(dialect) => {
                (409, error_body("schema-mismatch", json!({"expected": expected, "got": got})))
            }
            Refusal::SchemaMismatch { .. } => replicache("VersionNotSupported", json!({"versionType": "schema"})),
            Refusal::TooManyMutations { limit, got } => (413, error_body("too-many-mutations", json!({"limit": limit, "got": got}))),
            Refusal::ClientStateNotFound(dialect) if native(dialect) => (410, error_body("client-state-not-found", Json::Null)),
            Refusal::ClientStateNotFound(_) => replicache("ClientStateNotFound", Json::Null),
            Refusal::SnapshotCompacted(version) => (410, error_body("snapshot-compacted", json!({ "minVersion": version }))),
            Refusal::MigrationRefused(payload) => (409, error_body("migration-refused", payload.clone())),
            Refusal::WriteDenied { table, action } => (403, error_body("plasma-authorization", json!({"table": table, "action": action}))),
            Refusal::WriteFailed(why) => (422, reason("db-error", why)),
            Refusal::Aborted | Refusal::Unavailable(_) => (503, error_body("unavailable", Json::Null)),
            Refusal::Internal(_) => (500, error_body("internal", Json::Null)),
        }
    }

    /// What whoever runs the server is told.
    fn report(&self) -> Option<Report> {
        let invalid = |reason: String| Some(Report::InvalidRequest { reason });
        match self {
            Refusal::Unauthorized(_) | Refusal::Forbidden(_) => Some(Report::Unauthorized),
            Refusal::InvalidRequest(reason) => invalid(reason.clone()),
            Refusal::PayloadTooLarge { limit, got } => invalid(format!("a body of {got} bytes, limit {limit}")),
            Refusal::UnsupportedContentEncoding => invalid(CODINGS.into()),
            Refusal::UnsupportedBlobEncoding => Some(Report::BlobInvalidRequest { reason: BLOB_CODINGS.into() }),
            Refusal::TooManyMutations { limit, got } => invalid(format!("{got} mutations, limit {limit}")),
            Refusal::BlobInvalidRequest(reason) => Some(Report::BlobInvalidRequest { reason: reason.clone() }),
            Refusal::BlobNotFound { hash } => Some(Report::BlobNotFound { hash: hash.clone() }),
            Refusal::BlobReadCapHit { hash, cap } => Some(Report::BlobReadCapHit { hash: hash.clone(), cap: *cap }),
            Refusal::BlobHashMismatch { hash, reason } => Some(Report::BlobHashMismatch { hash: hash.clone(), reason: reason.clone() }),
            Refusal::BlobUploadFailed { hash, cause } => Some(Report::BlobUploadFailed { hash: hash.clone(), cause: cause.clone() }),
            Refusal::ProtocolMismatch { got, .. } => Some(Report::ProtocolMismatch { got: *got }),
            Refusal::SchemaMismatch { expected, got, .. } => Some(Report::SchemaMismatch { expected: expected.clone(), got: got.clone() }),
            _ => None,
        }
    }
}

impl Call<'_> {
    /// Reports a refusal where it is one of those that are reported, and logs what is the server's own trouble.
    pub fn refused(&self, refusal: &Refusal) {
        if let Some(report) = refusal.report() {
            self.report(&[report]);
        }
        if let Refusal::Unavailable(problem) | Refusal::Internal(problem) = refusal {
            let fields = json!({ "problem": problem }).to_string();
            self.imports.effects.log(Level::Error, "plasma: a request could not be served", &fields);
        }
    }
}
