//! What the app of a mount may do (`wit/deps/app/secsync.wit`): look at a document, and send messages of its own to the
//! connections on it (docs/protocols/secsync.md, section 10). It runs within the call that called the app.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::connect::{session_topic, topic};
use super::failure::Failure;
use super::frames::{ID_BYTES_MAX, is_key_text};
use super::store::{DATABASE, Row};
use crate::imports::{Class, Imports, Publication, Query};
use crate::sql::{self, Sql};

/// What the protocol says itself: no message of an app may look like it.
const OWN_TYPES: &[&str] = &[
    "document",
    "document-not-found",
    "unauthorized",
    "document-error",
    "snapshot-saved",
    "snapshot-save-failed",
    "snapshot",
    "update-saved",
    "update-save-failed",
    "update",
    "ephemeral-message",
];

/// Why a message of an app is not sent, or a document not looked at.
#[derive(Debug, thiserror::Error)]
pub enum ServiceRefused {
    /// The arguments are wrong.
    #[error("{0}")]
    Invalid(String),
    /// What they ask for cannot be had now.
    #[error(transparent)]
    Failed(#[from] Failure),
}

fn invalid<T>(why: &str) -> Result<T, ServiceRefused> {
    Err(ServiceRefused::Invalid(why.to_owned()))
}

/// Sends a message to all connections on a document, or to those of session keys.
pub fn send(imports: Imports<'_>, doc_id: &str, message: &str, session_keys: Option<&[String]>) -> Result<(), ServiceRefused> {
    if doc_id.is_empty() || !is_key_text(doc_id, ID_BYTES_MAX) {
        return invalid("document-id: not the id of a document");
    }
    let Ok(message) = serde_json::from_str::<Map<String, Value>>(message) else { return invalid("message: not a JSON object") };
    match message.get("type").and_then(Value::as_str) {
        None => return invalid("message: `type` is missing or no text"),
        Some(own) if OWN_TYPES.contains(&own) => return invalid("message: the protocol uses this `type` itself"),
        Some(_) => {}
    }
    let text = Value::Object(message).to_string();
    let publish = |topic: String| {
        let message = text.clone().into_bytes();
        imports.pubsub.publish(Publication { topic, message, order: None, class: Class::MustDeliver, except: None, close: None });
    };
    match session_keys {
        None => publish(topic(doc_id)),
        // A key given twice is one session.
        Some(keys) => keys.iter().collect::<BTreeSet<_>>().into_iter().for_each(|key| publish(session_topic(doc_id, key))),
    }
    Ok(())
}

/// What is known of a document, as JSON; none where there is none.
pub fn document(imports: Imports<'_>, doc_id: &str) -> Result<Option<String>, ServiceRefused> {
    let found = sql::read(imports.executor, DATABASE, |view| look(imports, view, doc_id))?;
    Ok(found.map(|document| document.to_string()))
}

fn look(imports: Imports<'_>, view: &dyn Query, doc_id: &str) -> Result<Option<Value>, Failure> {
    let sql = Sql::of(imports.executor, DATABASE)?;
    let ask = |template: &str, parameter: &str| -> Result<Vec<Row>, Failure> {
        Ok(view.query(sql.statement(template, [parameter.into()]), None)?.rows.into_iter().map(Row::new).collect())
    };
    let found = ask("SELECT active_snapshot_id, seq, update_count FROM {}ss_documents WHERE id = ?", doc_id)?;
    let Some(mut row) = found.into_iter().next() else { return Ok(None) };
    let (active, sequence, update_count) = (row.optional_text()?, row.integer()?, row.integer()?);
    let template = "SELECT pub_key, MAX(clock) FROM {}ss_updates WHERE snapshot_id = ? GROUP BY pub_key";
    let mut clocks = Map::new();
    for mut row in ask(template, active.as_deref().unwrap_or(""))? {
        clocks.insert(row.text()?, row.integer()?.into());
    }
    Ok(Some(json!({"activeSnapshotId": active, "sequence": sequence, "updateCount": update_count, "clocks": clocks})))
}
