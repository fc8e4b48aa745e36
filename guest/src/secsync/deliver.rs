//! Broadcasts: who gets them, and how a hole between machines is filled (docs/protocols/secsync.md, sections 6.2 and 8).

use super::connect::{doc_id_of, sequence, topic};
use super::failure::Failure;
use super::hooks;
use super::plan::close;
use super::server_messages::{self as messages, NO_CODE, TRY_AGAIN_LATER};
use super::store::{Call, DATABASE};
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part, Template};
use crate::imports::{Class, Order, Publication, Query};
use crate::registry::{Deliveries, Group};

/// Above this many commits a reconnect with a delta is the better way to fill a hole.
const REFILL_MAX: usize = 256;

/// Publishes what was committed as number `seq` of a document.
pub fn publish_saved(call: &Call<'_>, doc_id: &str, seq: u64, message: String) {
    let topic = topic(doc_id);
    let order = Some(Order { key: topic.clone(), after: seq.saturating_sub(1), sequence: seq });
    let except = Some(call.connection);
    call.imports.pubsub.publish(Publication {
        topic,
        message: message.into_bytes(),
        order,
        class: Class::MustDeliver,
        except,
        close: None,
    });
}

/// Publishes what need not arrive.
pub fn publish_ephemeral(call: &Call<'_>, doc_id: &str, message: String) {
    let (topic, except) = (topic(doc_id), Some(call.connection));
    call.imports.pubsub.publish(Publication {
        topic,
        message: message.into_bytes(),
        order: None,
        class: Class::Droppable,
        except,
        close: None,
    });
}

/// `hasBroadcastAccess` for each session key: a session without it is not subscribed any more, and with
/// `on_broadcast_denied = "close"` not connected either. Where the app falls nobody gets the message.
pub fn deliver(call: &Call<'_>, publication: &Publication, groups: &[Group]) -> Deliveries {
    if publication.message.is_empty() {
        // Only a close (see `refill`).
        return skip(groups);
    }
    let doc_id = doc_id_of(&publication.topic);
    let session_keys: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    let Ok(allowed) = hooks::has_broadcast_access(call, doc_id, &session_keys) else {
        call.log_failure("broadcast", &Failure::Transient("the app fell: nobody got a message".into()));
        return skip(groups);
    };
    let outcome = |allowed: bool| {
        if allowed {
            GroupOutcome::Send(vec![0])
        } else if call.settings.close_on_broadcast_denied {
            GroupOutcome::Leave(Some((messages::frame(messages::UNAUTHORIZED), close(NO_CODE))))
        } else {
            GroupOutcome::Leave(None)
        }
    };
    let outcomes = allowed.into_iter().map(outcome).collect();
    let parts = vec![Part::Bytes(publication.message.clone())];
    Deliveries { frames: vec![Template { binary: false, parts, cursor_after: None, alarm_after_ms: None }], outcomes }
}

/// Nobody gets anything.
pub fn skip(groups: &[Group]) -> Deliveries {
    Deliveries { frames: Vec::new(), outcomes: groups.iter().map(|_| GroupOutcome::Skip).collect() }
}

/// The publications of a document after a sequence number, from the database. Where they cannot be had any more, the
/// connections are closed: their next delta has everything.
pub fn refill(call: &Call<'_>, topic: &str, key: &str, after: u64) -> Vec<Publication> {
    match missed(call, doc_id_of(topic), after) {
        Ok(Missed::Messages(messages)) => messages
            .into_iter()
            .map(|(seq, message)| Publication {
                topic: topic.to_owned(),
                message: message.into_bytes(),
                order: Some(Order { key: key.to_owned(), after: seq.saturating_sub(1), sequence: seq }),
                class: Class::MustDeliver,
                except: None,
                close: None,
            })
            .collect(),
        Ok(Missed::TooMuch) => vec![reconnect(topic)],
        Err(failure) => {
            call.log_failure("refill", &failure);
            vec![reconnect(topic)]
        }
    }
}

/// Closes everybody on a document. It has no order, so nothing that was seen keeps it away.
pub fn reconnect(topic: &str) -> Publication {
    let close = Some(close(TRY_AGAIN_LATER));
    Publication { topic: topic.to_owned(), message: Vec::new(), order: None, class: Class::MustDeliver, except: None, close }
}

enum Missed {
    Messages(Vec<(u64, String)>),
    TooMuch,
}

fn missed(call: &Call<'_>, doc_id: &str, after: u64) -> Result<Missed, Failure> {
    let view = call.imports.executor.snapshot(DATABASE)?;
    let view: &dyn Query = view.as_ref();
    let Some(head) = call.head(view, doc_id, None, "")? else { return Ok(Missed::Messages(Vec::new())) };
    let seq = sequence(head.seq);
    let expected = usize::try_from(seq.saturating_sub(after)).unwrap_or(usize::MAX);
    if expected > REFILL_MAX {
        return Ok(Missed::TooMuch);
    }
    let from = i64::try_from(after).unwrap_or(i64::MAX);
    let snapshots = "SELECT seq, body, object_key FROM {}ss_snapshots WHERE doc_id = ? AND seq > ?";
    let updates = "SELECT u.seq, u.body, u.object_key FROM {}ss_snapshots s JOIN {}ss_updates u ON u.snapshot_id = s.id \
         WHERE s.doc_id = ? AND u.seq > ?";
    let mut found = Vec::new();
    for (template, is_snapshot) in [(snapshots, true), (updates, false)] {
        for mut row in call.rows(view, template, [doc_id.into(), from.into()])? {
            found.push((sequence(row.integer()?), is_snapshot, row.content()?));
        }
    }
    found.sort_by_key(|(seq, ..)| *seq);
    if found.len() != expected || found.iter().any(|(_, _, content)| *content == super::store::Content::Dropped) {
        return Ok(Missed::TooMuch);
    }
    let load = |(seq, is_snapshot, content)| {
        let body = call.load(content)?;
        Ok((seq, if is_snapshot { messages::snapshot(&body) } else { messages::update(&body) }))
    };
    Ok(Missed::Messages(found.into_iter().map(load).collect::<Result<_, Failure>>()?))
}
