//! What happens on a connection: frames of its client, its alarm, the next page.

use serde_json::{Value as Json, json};

use super::attachment::{Attachment, Transport};
use super::live::{self, Live};
use super::{changes, coalesce, events};
use crate::imports::Frame;
use crate::plasma::Call;
use crate::plasma::plan::{close, code};
use crate::registry::{Connection, Input, Outcome};

/// Handles what happened, in order.
pub fn receive(call: &Call<'_>, connection: &Connection, inputs: Vec<Input>) -> Outcome {
    let mut outcome = Outcome::default();
    let Some(mut attachment) = Attachment::decode(&connection.attachment) else {
        outcome.close = Some(close(code::RESTART));
        return outcome;
    };
    // Live queries are looked at once, whatever came for them.
    let (mut begun, mut look) = (false, false);
    for input in inputs {
        match input {
            Input::Frame(frame) => begun |= answer(call, &frame, &mut attachment, &mut outcome),
            Input::Wake => {
                wake(call, connection, &mut attachment, &mut outcome);
                look = true;
            }
            Input::Drained => {
                changes::drained(call, &mut attachment, &mut outcome);
                look |= attachment.live.as_mut().is_some_and(Live::drained);
            }
            Input::TaskDone(_) | Input::TaskFailed(_) => {}
        }
        if outcome.close.is_some() {
            break;
        }
    }
    let is_on = attachment.live.as_ref().is_some_and(Live::is_on);
    if outcome.close.is_none() && (begun || look && is_on) {
        live::catch_up(call, connection, &mut attachment, &mut outcome, begun);
    }
    if attachment.changes.is_some() || begun || is_on {
        outcome.attachment = Some(attachment.encode());
    }
    outcome
}

/// The connection has gone.
pub fn closed(call: &Call<'_>, connection: &Connection) {
    if let Some(attachment) = Attachment::decode(&connection.attachment) {
        call.count_connection(attachment.transport.name(), false);
    }
}

/// The alarm stands for the end of the credentials, for a coalesced poke, for changes to be read, and for live queries.
fn wake(call: &Call<'_>, connection: &Connection, attachment: &mut Attachment, outcome: &mut Outcome) {
    if attachment.expires_in_ms(call.imports.now_ms) == Some(0) {
        if attachment.transport == Transport::Sse {
            outcome.send.push(Frame::Text(events::unauthorized()));
        }
        outcome.close = Some(close(code::UNAUTHORIZED));
        return;
    }
    outcome.alarm = attachment.alarm(call.imports.now_ms);
    if attachment.changes.is_some() {
        changes::catch_up(call, attachment, outcome);
    } else {
        coalesce::wake(call, connection, attachment, outcome);
    }
}

/// A frame of the client; whether it changed what live queries there are.
fn answer(call: &Call<'_>, frame: &Frame, attachment: &mut Attachment, outcome: &mut Outcome) -> bool {
    let message = match frame {
        Frame::Text(text) => serde_json::from_str::<Json>(text).ok(),
        Frame::Binary(_) => None,
    };
    let kind = message.as_ref().and_then(|message| message.get("type")).and_then(Json::as_str);
    let (Some(message), Some(kind)) = (&message, kind) else {
        outcome.close = Some(close(code::BAD_MESSAGE));
        return false;
    };
    let reply = match kind {
        "ping" => json!({"type": "pong"}),
        "live.start" | "live.stop" => {
            let Some(live) = &mut attachment.live else {
                // It was opened before there was live select.
                outcome.close = Some(close(code::RESTART));
                return false;
            };
            if kind == "live.start" {
                live::start(call, live, message, outcome);
            } else {
                live.remove(message.get("id").and_then(Json::as_str).unwrap_or_default());
                outcome.send.push(Frame::Text(json!({"type": "live.stopped", "id": message.get("id")}).to_string()));
            }
            return true;
        }
        _ => {
            call.report(&[crate::plasma::errors::Report::InvalidRequest { reason: "unknown type of message".into() }]);
            json!({"type": "error", "error": "invalid-request", "reason": "unknown type"})
        }
    };
    outcome.send.push(Frame::Text(reply.to_string()));
    false
}
