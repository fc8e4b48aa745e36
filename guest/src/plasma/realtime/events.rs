//! What is written: events of a stream, and frames of a WebSocket.

use serde_json::{Value as Json, json};

use super::attachment::Transport;
use crate::imports::Frame;

/// A comment: it says nothing, and keeps the line open.
pub const PING: &str = ": ping\n\n";
/// A comment that carries the alarm of a stream of changes to it.
pub const NUDGE: &str = ":\n\n";

/// An event. `id`: what a client names when it comes back.
pub fn event(id: Option<&str>, name: &str, data: &Json) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {name}\ndata: {data}\n\n")
}

/// The first thing on a connection. A stream of changes gets no id here: it has nothing yet.
pub fn hello(transport: Transport, version: u64, ping_interval_ms: u64, retry_ms: u64, of_changes: bool) -> Frame {
    Frame::Text(match transport {
        Transport::Sse => {
            let id = version.to_string();
            let data = json!({"cookie": version, "pingIntervalMs": ping_interval_ms});
            format!("retry: {retry_ms}\n{}", event(Some(&id).filter(|_| !of_changes).map(String::as_str), "hello", &data))
        }
        Transport::Ws => json!({"type": "hello", "protocolVersion": 1, "cookie": version, "pingIntervalMs": ping_interval_ms}).to_string(),
    })
}

/// Something new can be pulled.
pub fn poke(transport: Transport, version: u64) -> String {
    match transport {
        Transport::Sse => event(Some(&version.to_string()), "poke", &json!({ "cookie": version })),
        Transport::Ws => json!({"type": "poke", "cookie": version}).to_string(),
    }
}

/// The next page can be pulled. Without an id: it says nothing of what was seen.
pub fn more(transport: Transport, version: u64) -> String {
    match transport {
        Transport::Sse => event(None, "poke", &json!({"cookie": version, "hasMore": true})),
        Transport::Ws => json!({"type": "poke", "cookie": version, "hasMore": true}).to_string(),
    }
}

/// Bytes of a frame.
pub fn bytes(frame: &Frame) -> u64 {
    match frame {
        Frame::Text(text) => text.len() as u64,
        Frame::Binary(bytes) => bytes.len() as u64,
    }
}

/// The credentials have ended; the response ends with it.
pub fn unauthorized() -> String {
    event(None, "error", &json!({"error": "unauthorized"}))
}

/// The client's state is lost; the response ends with it.
pub fn state_lost() -> Frame {
    Frame::Text(event(None, "reset", &json!({"error": "ClientStateNotFound"})))
}

/// A page of changes. Its id is the cookie after it, so that a client that comes back goes on from there.
pub fn changes(before: &Json, after: &Json, last_mutation_ids: &Json, patch: &str) -> Frame {
    Frame::Text(format!(
        "id: {after}\nevent: patch\ndata: {{\"baseCookie\":{before},\"pullResponse\":{{\"cookie\":{after},\
         \"lastMutationIDChanges\":{last_mutation_ids},\"patch\":{patch}}}}}\n\n"
    ))
}
