//! Opening a document (docs/protocols/secsync.md, section 2).
//!
//! Promise: the `document` frame and the broadcasts after it have no gap and no overlap; the connection is subscribed before
//! the document is read, and what the read covered is cut off by its sequence number.
//! Promise: every upgrade is completed; refusals are frames, because a refused upgrade makes the client reconnect for ever.

use std::collections::BTreeMap;

use serde_json::Value;

use super::attachment::Attachment;
use super::failure::Failure;
use super::frames::{self, ID_BYTES_MAX, is_key_text};
use super::hooks::{self, AppDocument};
use super::plan::close;
use super::policy::{Access, Action};
use super::reading::{ActiveSnapshot, Found, Head, Wanted, lacking};
use super::server_messages::{self as messages, NO_CODE};
use super::store::{Call, DATABASE};
use super::verify;
use crate::contract::exports::syncline::sync::socket::Accept;
use crate::encoding::{percent_decode_or_raw, query_parameter};
use crate::imports::{Mode, Query, RequestHead, Subscription};
use crate::registry::{Outcome, UpgradeResult};

/// Broadcasts wait so long after `document`, or until the client's first frame: a client that gets both in one piece may
/// handle the broadcast first, while it still fetches the key for the snapshot, and gives up for good (its error 200).
const QUIET_MS: u64 = 50;

/// The topic of a document.
pub fn topic(doc_id: &str) -> String {
    format!("ss:{doc_id}")
}

/// The topic of the sessions with a key on a document: what an app says to them alone. Keys may be long and are secret, so
/// the name is a hash.
pub fn session_topic(doc_id: &str, session_key: &str) -> String {
    format!("ss-session:{}", verify::hash(&format!("{}:{doc_id}{session_key}", doc_id.len())))
}

/// The document of a topic.
pub fn doc_id_of(topic: &str) -> &str {
    topic.strip_prefix("ss:").unwrap_or(topic)
}

/// What the URL of an upgrade says.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The document.
    pub doc_id: String,
    /// The session key; any text, also the empty one.
    pub session_key: String,
    /// `mode=delta`.
    pub delta: bool,
    /// The snapshot that the client has.
    pub known_snapshot_id: Option<String>,
    /// The clocks on it that the client has.
    pub known_snapshot_update_clocks: BTreeMap<String, f64>,
}

/// Why an upgrade gets another frame than `document`. Each variant is one row of section 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No session key, or no document id that a database could hold.
    #[error("no session key or no document id")]
    DocumentError,
    /// The session may not read it.
    #[error("no read access")]
    Unauthorized,
    /// It does not exist and may not be created.
    #[error("the document does not exist")]
    DocumentNotFound,
}

impl Refused {
    fn message(self) -> &'static str {
        match self {
            Self::DocumentError => messages::DOCUMENT_ERROR,
            Self::Unauthorized => messages::UNAUTHORIZED,
            Self::DocumentNotFound => messages::DOCUMENT_NOT_FOUND,
        }
    }
}

impl Request {
    /// Reads path and query (section 2.1). `prefix` is the path of the mount.
    pub fn read(prefix: &str, path: &str, query: &str) -> Result<Self, Refused> {
        // The host has matched the prefix already; here its escapes are untouched, so segments are counted.
        let segments = prefix.matches('/').count();
        let raw_id = path.splitn(segments + 2, '/').nth(segments + 1).unwrap_or("");
        let doc_id = percent_decode_or_raw(raw_id);
        let session_key = query_parameter(query, "sessionKey").ok_or(Refused::DocumentError)?;
        if doc_id.is_empty() || !is_key_text(&doc_id, ID_BYTES_MAX) {
            return Err(Refused::DocumentError);
        }
        Ok(Self {
            doc_id,
            session_key,
            delta: query_parameter(query, "mode").as_deref() == Some("delta"),
            known_snapshot_id: raw_parameter(query, "knownSnapshotId").filter(|id| !id.is_empty() && is_key_text(id, ID_BYTES_MAX)),
            known_snapshot_update_clocks: query_parameter(query, "knownSnapshotUpdateClocks")
                .map(|text| known_clocks(&text))
                .unwrap_or_default(),
        })
    }
}

/// The first value of a parameter that the client pastes in raw: `+` is a plus.
fn raw_parameter(query: &str, name: &str) -> Option<String> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_decode_or_raw(raw))
}

/// Clocks from JSON, encoded once more or not. Anything but an object of numbers counts as absent.
fn known_clocks(text: &str) -> BTreeMap<String, f64> {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok().as_ref().and_then(frames::clocks);
    read(text).or_else(|| read(&percent_decode_or_raw(text))).unwrap_or_default()
}

/// What goes into `document` (the table of section 2.3).
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// There is no snapshot.
    Empty,
    /// Nothing is known: the snapshot and all on it.
    Everything,
    /// The active snapshot is known; it is sent again in mode `complete`.
    Updates { with_snapshot: bool },
    /// An ancestor is known: the snapshot, all on it, and the chain after this place.
    Chain { after: i64 },
}

fn answer(head: &Head, request: &Request) -> Answer {
    let Some(active) = &head.active else { return Answer::Empty };
    match head.known_ordinal {
        None => Answer::Everything,
        Some(known) if known == active.ordinal => Answer::Updates { with_snapshot: !request.delta },
        Some(known) => Answer::Chain { after: known },
    }
}

/// Answers an upgrade.
pub fn upgrade(call: &Call<'_>, head: &RequestHead) -> UpgradeResult {
    let start = match Request::read(&call.settings.path, &head.path, head.query.as_deref().unwrap_or("")) {
        Err(refused) => refusal(call, head, refused),
        Ok(request) => match open(call, &request) {
            Ok(Ok((document, seq))) => {
                call.log_debug(&request.doc_id, "document");
                let Request { doc_id, session_key, .. } = request;
                let seen = vec![(topic(&doc_id), seq)];
                let attachment = Some(Attachment::new(doc_id, session_key).encode());
                Outcome { send: vec![messages::frame(document)], attachment, seen, quiet_ms: Some(QUIET_MS), ..Outcome::default() }
            }
            Ok(Err(refused)) => refusal(call, head, refused),
            Err(failure) => {
                call.log_failure(&format!("upgrade of {}", head.path), &failure);
                Outcome { close: Some(close(failure.close_code())), ..Outcome::default() }
            }
        },
    };
    accept(start)
}

/// An upgrade that ends without a frame, so that the client tries again.
pub fn failed(failure: &Failure) -> UpgradeResult {
    accept(Outcome { close: Some(close(failure.close_code())), ..Outcome::default() })
}

fn accept(start: Outcome) -> UpgradeResult {
    UpgradeResult::Accept(Accept { subprotocol: None, headers: Vec::new(), start })
}

fn refusal(call: &Call<'_>, head: &RequestHead, refused: Refused) -> Outcome {
    let origin = head.headers.iter().find(|header| header.name == "origin").map(|header| String::from_utf8_lossy(&header.value));
    let place = format!("upgrade of {} from origin {}", head.path, origin.as_deref().unwrap_or("(none)"));
    call.log_refusal("", &place, &refused);
    Outcome { send: vec![messages::frame(refused.message())], close: Some(close(NO_CODE)), ..Outcome::default() }
}

/// Subscribes, reads, and gives the `document` frame with the sequence number that it covers.
fn open(call: &Call<'_>, request: &Request) -> Result<Result<(String, u64), Refused>, Failure> {
    match hooks::has_access(call, Action::Read, &request.session_key, &request.doc_id, None) {
        Ok(true) => {}
        Ok(false) => return Ok(Err(Refused::Unauthorized)),
        Err(fell) => return Err(Failure::Transient(fell.to_string())),
    }
    subscribe(call, request);
    match hooks::get_document(call, request)? {
        AppDocument::Stored => stored(call, request),
        AppDocument::NotFound => Ok(Err(leave(call, request, Refused::DocumentNotFound))),
        AppDocument::Error => Ok(Err(leave(call, request, Refused::DocumentError))),
        AppDocument::Given(document) => {
            // What is saved needs a document; what was saved before the app was asked may come once more, which harms nobody.
            create(call, &request.doc_id)?;
            Ok(Ok((messages::document(&document.into()), 0)))
        }
    }
}

/// The connection gets no broadcasts of what it may not open.
fn leave(call: &Call<'_>, request: &Request, refused: Refused) -> Refused {
    call.imports.pubsub.unsubscribe(call.connection, &topic(&request.doc_id));
    call.imports.pubsub.unsubscribe(call.connection, &session_topic(&request.doc_id, &request.session_key));
    refused
}

/// The document as it is stored.
fn stored(call: &Call<'_>, request: &Request) -> Result<Result<(String, u64), Refused>, Failure> {
    if let Some((found, seq)) = read(call, request)? {
        return Ok(Ok((messages::document(&found.load(call)?), seq)));
    }
    if !call.settings.auto_create.allows(&request.doc_id) {
        return Ok(Err(leave(call, request, Refused::DocumentNotFound)));
    }
    let created = create(call, &request.doc_id)?;
    // Somebody else may have been quicker, and may have written to it since.
    let read = if created { None } else { read(call, request)? };
    let (found, seq) = read.unwrap_or_else(|| (Found::empty(), 0));
    Ok(Ok((messages::document(&found.load(call)?), seq)))
}

fn subscribe(call: &Call<'_>, request: &Request) {
    // With equal rights for all the message is the frame; otherwise `deliver` is asked for each session key.
    let (mode, group) = match call.settings.broadcast_access {
        Access::AllowAll => (Mode::ForwardText, String::new()),
        Access::Policy(_) | Access::App => (Mode::Deliver, request.session_key.clone()),
    };
    let subscribe = |topic, mode, group| {
        call.imports.pubsub.subscribe(call.connection, Subscription { topic, mode, group, cursor: None, presence: None });
    };
    subscribe(topic(&request.doc_id), mode, group);
    if !call.app.is_empty() {
        subscribe(session_topic(&request.doc_id, &request.session_key), Mode::ForwardText, String::new());
    }
}

/// Creates a document. False if it exists already.
fn create(call: &Call<'_>, doc_id: &str) -> Result<bool, Failure> {
    let transaction = call.begin()?;
    let template = "INSERT INTO {}ss_documents (id, active_snapshot_id, ordinal, seq, update_count, grace_author, grace_until, created_at) \
         VALUES (?, NULL, 0, 0, 0, NULL, NULL, ?) ON CONFLICT (id) DO NOTHING";
    let created = transaction.execute(call.statement(template, [doc_id.into(), call.now_ms().into()]))?.changed > 0;
    transaction.commit()?;
    Ok(created)
}

/// Reads all of the answer from one view.
fn read(call: &Call<'_>, request: &Request) -> Result<Option<(Found, u64)>, Failure> {
    let view = call.imports.executor.snapshot(DATABASE)?;
    let view: &dyn Query = view.as_ref();
    let known = request.known_snapshot_id.as_deref();
    let unwanted = if request.delta { known.unwrap_or("") } else { "" };
    let Some(mut head) = call.head(view, &request.doc_id, known, unwanted)? else { return Ok(None) };
    let answer = answer(&head, request);
    let Some(active) = head.active.take() else {
        return Ok(Some((Found::empty(), sequence(head.seq))));
    };
    let found = gather(call, view, request, active, &answer)?;
    Ok(Some((found, sequence(head.seq))))
}

fn gather(call: &Call<'_>, view: &dyn Query, request: &Request, active: ActiveSnapshot, answer: &Answer) -> Result<Found, Failure> {
    let ActiveSnapshot { id, ordinal, content } = active;
    Ok(match answer {
        Answer::Empty | Answer::Everything => {
            let updates = call.updates(view, &id, &Wanted::All)?;
            Found { snapshot: Some(content), updates, snapshot_proof_chain: Some(Vec::new()) }
        }
        Answer::Updates { with_snapshot } => {
            let wanted = lacking(&call.clocks(view, &id)?, &request.known_snapshot_update_clocks);
            let updates = call.updates(view, &id, &wanted)?;
            Found { snapshot: with_snapshot.then_some(content), updates, snapshot_proof_chain: with_snapshot.then(Vec::new) }
        }
        Answer::Chain { after } => {
            let updates = call.updates(view, &id, &Wanted::All)?;
            let chain = call.snapshot_proof_chain(view, &request.doc_id, *after, ordinal)?;
            Found { snapshot: Some(content), updates, snapshot_proof_chain: Some(chain) }
        }
    })
}

/// A sequence number for the host; it is never negative.
pub fn sequence(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
