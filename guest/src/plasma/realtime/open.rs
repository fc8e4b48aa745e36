//! How connections begin (sections 8.1 to 8.3).

use serde_json::Value as Json;

use super::attachment::{Attachment, Changes, Transport};
use super::changes;
use super::events;
use super::live::{self, Live, Subscribed};
use super::topics::{ORDER_KEY, alone_topic, connection_count, group_topic, user_topic};
use crate::contract::exports::syncline::sync::http::StreamStart;
use crate::contract::exports::syncline::sync::socket::Accept;
use crate::encoding::base64url_decode;
use crate::http::{header, header_list, header_text, query_parameter};
use crate::imports::{Frame, Mode, RequestHead, Subscription};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::groups::Ownership;
use crate::plasma::http::{Admitted, Answer, Refusal, Route, admit_caller, caller_of, dress, parse_id, route};
use crate::plasma::settings::Poke;
use crate::registry::{BodyOut, Connection, Outcome, Response, UpgradeResult};

/// The subprotocol of WebSockets.
const SUBPROTOCOL: &str = "plasma.v1";

/// Begins a stream of server-sent events.
pub fn open_stream(call: &Call<'_>, head: &RequestHead, admitted: &Admitted) -> Answer {
    let poke = call.settings.poke.as_ref().ok_or(Refusal::NotFound)?;
    let client_group_id = named_group(head)?;
    let changes = match query_parameter(head, "mode").as_deref() {
        None | Some("hint") => None,
        Some("data") if poke.data_mode => Some(asked_changes(head, admitted, client_group_id.clone())?),
        _ => return Err(Refusal::invalid("mode must be hint, or data where the server has it on")),
    };
    let start = begin(call, poke, admitted, client_group_id, Transport::Sse, changes, header_text(head, "last-event-id"))?;
    Ok(stream(poke, start))
}

fn stream(poke: &Poke, start: Outcome) -> Response {
    let keepalive = Some((poke.ping_interval_ms, events::PING.as_bytes().to_vec()));
    let headers = vec![header("content-type", "text/event-stream"), header("cache-control", "no-cache"), header("x-accel-buffering", "no")];
    Response { status: 200, headers, body: BodyOut::Stream(StreamStart { start, keepalive }) }
}

/// Begins a stream of one query's results (section 8.4).
pub fn open_live(call: &Call<'_>, head: &RequestHead, admitted: &Admitted) -> Answer {
    let poke = call.settings.poke.as_ref().ok_or(Refusal::NotFound)?;
    let malformed = || Refusal::invalid("q must be the base64url of a JSON object with query and params");
    let asked = query_parameter(head, "q").and_then(|asked| base64url_decode(asked.trim_end_matches('=')));
    let asked: Json = asked.and_then(|asked| serde_json::from_slice(&asked).ok()).ok_or_else(malformed)?;
    let asked = asked.as_object().ok_or_else(malformed)?;
    let one = Subscribed::parse(call, String::new(), asked.get("query"), asked.get("params"))?;
    let user_id = caller_of(admitted).user_id;
    check_number(call, poke, &user_id)?;
    subscribe_user(call, &user_id, Transport::Sse);
    let live = Live::of_one(admitted.ctx.clone(), one);
    let mut attachment = Attachment { transport: Transport::Sse, expires_at_ms: admitted.expires_at_ms, changes: None, live: Some(live) };
    let mut start = Outcome { alarm: attachment.alarm(call.imports.now_ms), ..Outcome::default() };
    start.send.push(Frame::Text(format!("retry: {}\n\n", poke.retry_ms)));
    let connection = Connection { id: call.connection, attachment: Vec::new(), cursors: Vec::new(), failure: None };
    live::catch_up(call, &connection, &mut attachment, &mut start, true);
    start.attachment = Some(attachment.encode());
    call.count_connection(Transport::Sse.name(), true);
    Ok(stream(poke, start))
}

/// Listens to the end of the user's credentials, and is counted among the user's connections.
fn subscribe_user(call: &Call<'_>, user_id: &str, transport: Transport) {
    subscribe_forwarded(call, user_topic(transport, user_id), true);
}

/// Gets what is published on a topic as it is. `is_shown`: is found by it.
fn subscribe_forwarded(call: &Call<'_>, topic: String, is_shown: bool) {
    let presence = is_shown.then(Vec::new);
    let subscription = Subscription { topic, mode: Mode::ForwardText, group: String::new(), cursor: None, presence };
    call.imports.pubsub.subscribe(call.connection, subscription);
}

/// Answers a WebSocket handshake.
pub fn open_socket(call: &Call<'_>, head: &RequestHead) -> UpgradeResult {
    match accept_socket(call, head) {
        Ok(accept) => UpgradeResult::Accept(accept),
        Err(refusal) => {
            call.refused(&refusal);
            UpgradeResult::Refuse(dress(call, head, refusal.response()))
        }
    }
}

fn accept_socket(call: &Call<'_>, head: &RequestHead) -> Result<Accept, Refusal> {
    let poke = call.settings.poke.as_ref().ok_or(Refusal::NotFound)?;
    if route(&call.settings.base_path, &head.path) != Some(Route::Socket) {
        return Err(Refusal::NotFound);
    }
    let admitted = admit_caller(call, &Route::Socket, head)?;
    let subprotocol = subprotocol(head)?;
    let start = begin(call, poke, &admitted, named_group(head)?, Transport::Ws, None, None)?;
    Ok(Accept { subprotocol, headers: Vec::new(), start })
}

/// The subprotocol, where the client offers any. A browser ends a connection whose answer names none of those that it offered, and a
/// credential among them is not one to be named.
fn subprotocol(head: &RequestHead) -> Result<Option<String>, Refusal> {
    let mut offered = header_list(head, "sec-websocket-protocol").filter(|entry| !entry.is_empty()).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let found = offered.find(|entry| *entry == SUBPROTOCOL).map(str::to_owned);
    found.map(Some).ok_or_else(|| Refusal::invalid(format!("of subprotocols {SUBPROTOCOL} must be offered")))
}

/// The client group that the query names.
fn named_group(head: &RequestHead) -> Result<Option<String>, Refusal> {
    query_parameter(head, "clientGroupID").map(|id| parse_id("clientGroupID", Some(&Json::String(id)))).transpose()
}

/// Where a stream of changes begins. A client that comes back says so itself (`Last-Event-ID`).
fn asked_changes(head: &RequestHead, admitted: &Admitted, client_group_id: Option<String>) -> Result<Changes, Refusal> {
    let client_group_id = client_group_id.ok_or_else(|| Refusal::invalid("mode=data needs clientGroupID"))?;
    let malformed = || Refusal::invalid("cookie is malformed");
    let text =
        header_text(head, "last-event-id").filter(|id| !id.is_empty()).map(str::to_owned).or_else(|| query_parameter(head, "cookie"));
    let cookie: Json = text.map_or(Ok(Json::Null), |text| serde_json::from_str(&text).map_err(|_| malformed()))?;
    Cookie::parse(&cookie).ok_or_else(malformed)?;
    Ok(Changes::new(client_group_id, admitted.ctx.clone(), cookie))
}

/// What both transports have in common: ownership, subscriptions, then `hello`.
fn begin(
    call: &Call<'_>,
    poke: &Poke,
    admitted: &Admitted,
    client_group_id: Option<String>,
    transport: Transport,
    changes: Option<Changes>,
    last_event_id: Option<&str>,
) -> Result<Outcome, Refusal> {
    let user_id = caller_of(admitted).user_id;
    admitted.check_ids(client_group_id.as_deref(), None)?;
    if let Some(id) = &client_group_id
        && call.engine.ownership(call.imports, id, &user_id)? == Ownership::Foreign
    {
        return Err(Refusal::Forbidden("client-group-owner"));
    }
    check_number(call, poke, &user_id)?;
    subscribe(call, poke, &user_id, client_group_id.as_deref(), transport, changes.is_some());
    let version = call.engine.version(call.imports)?;
    let live = (transport == Transport::Ws).then(|| Live::new(admitted.ctx.clone()));
    let mut attachment = Attachment { transport, expires_at_ms: admitted.expires_at_ms, changes, live };
    let of_changes = attachment.changes.is_some();
    let mut outcome = Outcome {
        send: vec![events::hello(transport, version, poke.ping_interval_ms, poke.retry_ms, of_changes)],
        alarm: attachment.alarm(call.imports.now_ms),
        ..Outcome::default()
    };
    if of_changes {
        // Its own reading decides what it has, not the version of the hello.
        changes::catch_up(call, &mut attachment, &mut outcome);
    } else {
        outcome.seen = vec![(ORDER_KEY.into(), version)];
        if poke.coalesce_ms > 0 {
            outcome.cursors = vec![(call.throttled_topic(), version)];
        }
        // A version that is not there yet: the server went back to older data, which the client learns when it pulls.
        if last_event_id.and_then(|id| id.parse::<u64>().ok()).is_some_and(|seen| seen != version) {
            outcome.send.push(Frame::Text(events::poke(transport, version)));
        }
    }
    outcome.attachment = Some(attachment.encode());
    call.count_connection(transport.name(), true);
    Ok(outcome)
}

/// A user has so many connections at most.
fn check_number(call: &Call<'_>, poke: &Poke, user_id: &str) -> Result<(), Refusal> {
    match connection_count(call, user_id) as u64 >= poke.connections_per_user_max {
        true => Err(Refusal::Forbidden("too-many-connections")),
        false => Ok(()),
    }
}

/// Everything that a connection listens to. It must come before whatever is read for the client.
fn subscribe(call: &Call<'_>, poke: &Poke, user_id: &str, client_group_id: Option<&str>, transport: Transport, of_changes: bool) {
    let subscribe = |topic: String, mode: Mode, cursor: Option<u64>| {
        let group = transport.name().to_owned();
        call.imports.pubsub.subscribe(call.connection, Subscription { topic, mode, group, cursor, presence: None });
    };
    subscribe_user(call, user_id, transport);
    if of_changes {
        return subscribe(call.changes_topic(), Mode::Deliver, None);
    }
    if poke.coalesce_ms > 0 {
        subscribe(call.throttled_topic(), Mode::DeliverByCursor, Some(0));
    } else {
        subscribe_forwarded(call, call.poke_topic(transport), false);
    }
    match client_group_id {
        Some(id) => subscribe_forwarded(call, group_topic(transport, id), true),
        None => subscribe_forwarded(call, alone_topic(transport, user_id), false),
    }
}
