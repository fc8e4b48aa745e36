//! What happens on a connection: frames of its client, its alarm, the next page.

use serde_json::{Value as Json, json};

use super::attachment::{Attachment, Transport};
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
    for input in inputs {
        match input {
            Input::Frame(frame) => answer(call, &frame, &mut outcome),
            Input::Wake => wake(call, connection, &mut attachment, &mut outcome),
            Input::Drained => changes::drained(call, &mut attachment, &mut outcome),
            Input::TaskDone(_) | Input::TaskFailed(_) => {}
        }
        if outcome.close.is_some() {
            break;
        }
    }
    if attachment.changes.is_some() {
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

/// The alarm stands for the end of the credentials, for a coalesced poke, and for changes to be read.
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

/// A frame of the client.
fn answer(call: &Call<'_>, frame: &Frame, outcome: &mut Outcome) {
    let message = match frame {
        Frame::Text(text) => serde_json::from_str::<Json>(text).ok(),
        Frame::Binary(_) => None,
    };
    let kind = message.as_ref().and_then(|message| message.get("type")).and_then(Json::as_str);
    let (Some(message), Some(kind)) = (&message, kind) else {
        outcome.close = Some(close(code::BAD_MESSAGE));
        return;
    };
    let reply = match kind {
        "ping" => json!({"type": "pong"}),
        "live.start" => {
            json!({"type": "live.error", "id": message.get("id"), "error": "not-found", "reason": "this server has no live select"})
        }
        "live.stop" => json!({"type": "live.stopped", "id": message.get("id")}),
        _ => {
            call.report(&[crate::plasma::errors::Report::InvalidRequest { reason: "unknown type of message".into() }]);
            json!({"type": "error", "error": "invalid-request", "reason": "unknown type"})
        }
    };
    outcome.send.push(Frame::Text(reply.to_string()));
}
