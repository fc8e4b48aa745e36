//! Paths below the mount (section 5.1).

use crate::encoding::percent_decode_or_raw;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/push`
    Push,
    /// `/pull`
    Pull,
    /// `/poke`
    Poke,
    /// `/ws`
    Socket,
    /// `/query`
    Query,
    /// `/snapshot`
    Snapshot,
    /// `/live`
    Live,
    /// `/blob/{hash}` and what is below it.
    Blob {
        /// As in the path.
        hash: String,
        /// Which of both.
        part: BlobPart,
    },
    /// `/admin/{name}`
    Admin(String),
    /// `/health`
    Health,
}

/// What is asked about a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobPart {
    /// `/blob/{hash}`
    Bytes,
    /// `/blob/{hash}/upload-url`
    UploadUrl,
    /// `/blob/{hash}/download-url`
    DownloadUrl,
}

/// Surfaces of whoever runs the server that are read.
pub const ADMIN_READS: [&str; 4] = ["errors", "metrics", "schema", "stats"];
/// Those that do something.
pub const ADMIN_WRITES: [&str; 8] = ["db", "compact", "migrate", "reserve", "forget", "revoke", "gc", "reconcile"];

/// The route of a path; none: there is no such thing.
pub fn route(base_path: &str, raw_path: &str) -> Option<Route> {
    let path = percent_decode_or_raw(raw_path);
    let below = path.strip_prefix(base_path)?.strip_prefix('/')?;
    let mut segments = below.split('/');
    let found = match (segments.next()?, segments.next(), segments.next()) {
        ("push", None, None) => Route::Push,
        ("pull", None, None) => Route::Pull,
        ("poke", None, None) => Route::Poke,
        ("ws", None, None) => Route::Socket,
        ("query", None, None) => Route::Query,
        ("snapshot", None, None) => Route::Snapshot,
        ("live", None, None) => Route::Live,
        ("health", None, None) => Route::Health,
        ("blob", Some(hash), None) => Route::Blob { hash: hash.into(), part: BlobPart::Bytes },
        ("blob", Some(hash), Some("upload-url")) => Route::Blob { hash: hash.into(), part: BlobPart::UploadUrl },
        ("blob", Some(hash), Some("download-url")) => Route::Blob { hash: hash.into(), part: BlobPart::DownloadUrl },
        ("admin", Some(name), None) => Route::Admin(name.into()),
        _ => return None,
    };
    segments.next().is_none().then_some(found)
}

impl Route {
    /// The methods that it takes, as in `Allow`.
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Route::Push | Route::Pull | Route::Query | Route::Snapshot => &["POST"],
            Route::Poke | Route::Socket | Route::Live => &["GET"],
            Route::Health => &["GET", "HEAD"],
            Route::Blob { part: BlobPart::Bytes, .. } => &["GET", "HEAD", "PUT"],
            Route::Blob { .. } => &["POST"],
            Route::Admin(name) if ADMIN_READS.contains(&name.as_str()) => &["GET"],
            Route::Admin(_) => &["POST"],
        }
    }

    /// Whether a token may stand in the query: where clients cannot set headers.
    pub fn takes_query_token(&self, method: &str) -> bool {
        match self {
            Route::Poke | Route::Socket | Route::Live => true,
            Route::Blob { part: BlobPart::Bytes, .. } => method != "PUT",
            _ => false,
        }
    }

    /// As which its requests are counted.
    pub fn metric(&self, method: &str) -> Option<&'static str> {
        match self {
            Route::Push => Some("push"),
            Route::Pull => Some("pull"),
            Route::Blob { part: BlobPart::Bytes, .. } => Some(if method == "PUT" { "blob-put" } else { "blob-get" }),
            _ => None,
        }
    }
}
