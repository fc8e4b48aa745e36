//! Live select (section 8.4): queries whose results are kept up to date.
//!
//! All subscriptions of a connection are one subscription of the host, whose group is their text and whose cursor says up to which
//! version the client has their results. So `deliver` needs nothing but the groups: it runs each query once for all who have it,
//! whatever their connection is called, and encodes what became of it once. Whatever is not everyday's (a first result, a failure,
//! a frame that is too large, a slow query) a connection does for itself: it is nudged by its alarm.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::attachment::{Attachment, Transport};
use super::events;
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part, Template};
use crate::imports::{Close, Frame, Level, Mode, Publication, Subscription};
use crate::plasma::Call;
use crate::plasma::failure::Failure;
use crate::plasma::http::{Refusal, asked_parameters, asked_query, parse_id};
use crate::plasma::language::Bindings;
use crate::plasma::live::{LiveChange, LiveQuery, LiveView, rows_json};
use crate::plasma::plan::{close, code};
use crate::plasma::query::QueryRefused;
use crate::plasma::settings::Settings;
use crate::registry::{Alarm, Connection, Deliveries, Group, Outcome};

/// Bytes of a query with its parameters: each connection has them in memory.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// The same of all subscriptions of a connection.
const QUERIES_BYTES_MAX: usize = 1 << 20;
/// Frames for one connection that are larger are made by a call of its own, which waits for slow readers.
const SHARED_BYTES_MAX: usize = 256 << 10;
/// A query that takes longer is run by calls of its connections, so that it holds up nobody else.
const SHARED_QUERY: Duration = Duration::from_millis(100);
/// After so long whoever is left in a delivery looks for itself.
const DELIVERY: Duration = Duration::from_millis(1_000);
/// After how long a connection looks again that could not read.
const RETRY_MS: u64 = 1_000;
/// Bytes sent after which nothing follows until the client is known to have taken most of it.
const UNREAD_BYTES_MAX: u64 = 64 << 10;

/// One subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// As the client calls it.
    id: String,
    /// A query, or the name of one.
    query: Json,
    /// What it leaves open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Map<String, Json>>,
    /// Whether calls of the connection run it.
    #[serde(default)]
    slow: bool,
    /// Whether the client has nothing of it yet.
    #[serde(default)]
    fresh: bool,
}

/// What a connection has of live select.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Who that is.
    pub ctx: Map<String, Json>,
    /// The subscriptions, in the order in which they began.
    #[serde(default)]
    pub of: Vec<Subscribed>,
    /// Bytes sent since the client was last known to have taken most of what was sent.
    #[serde(default)]
    unread_bytes: u64,
    /// Whether nothing more is sent until then.
    #[serde(default)]
    waits: bool,
    /// Whether there may be more for it then.
    #[serde(default)]
    more: bool,
}

/// What connections with equal frames have in common.
#[derive(Serialize, Deserialize)]
struct Shared {
    transport: Transport,
    ctx: Map<String, Json>,
    of: Vec<Subscribed>,
}

/// What a publication tells.
#[derive(Serialize, Deserialize)]
struct Told {
    version: u64,
    /// Tables that changed; none: any may have.
    tables: Option<BTreeSet<String>>,
}

/// What became of a result, encoded but for the name of the subscription.
#[derive(Clone)]
enum Encoded {
    Same,
    Changed { kind: &'static str, members: Rc<str> },
}

impl Live {
    /// Nothing is subscribed to.
    pub fn new(ctx: Map<String, Json>) -> Self {
        Self { ctx, ..Self::default() }
    }

    /// One subscription.
    pub fn of_one(ctx: Map<String, Json>, one: Subscribed) -> Self {
        Self { of: vec![one], ..Self::new(ctx) }
    }

    /// Whether anything is subscribed to.
    pub fn is_on(&self) -> bool {
        !self.of.is_empty()
    }

    /// The client has taken most of what was sent; whether there is more for it.
    pub fn drained(&mut self) -> bool {
        self.waits = false;
        self.unread_bytes = 0;
        std::mem::take(&mut self.more)
    }

    /// Ends a subscription.
    pub fn remove(&mut self, id: &str) {
        self.of.retain(|one| one.id != id);
    }
}

impl Subscribed {
    /// What the client asks for, if there is nothing wrong with it.
    pub fn parse(call: &Call<'_>, id: String, query: Option<&Json>, params: Option<&Json>) -> Result<Self, Refusal> {
        let params = asked_parameters(params)?;
        let source = asked_query(call.settings, query)?;
        call.engine.live_query(call.imports, source)?;
        let query = query.cloned().unwrap_or_default();
        let bytes = query.to_string().len() + json!(params).to_string().len();
        if bytes > QUERY_BYTES_MAX {
            return Err(Refusal::invalid(format!("the query has {bytes} bytes, limit {QUERY_BYTES_MAX}")));
        }
        Ok(Self { id, query, params, slow: false, fresh: true })
    }

    fn live_query(&self, call: &Call<'_>) -> Result<Rc<LiveQuery>, Refusal> {
        Ok(call.engine.live_query(call.imports, asked_query(call.settings, Some(&self.query))?)?)
    }

    fn bytes(&self) -> usize {
        json!(self).to_string().len()
    }
}

impl Call<'_> {
    /// The topic of changes for live select.
    fn live_topic(&self) -> String {
        live_topic(self.settings)
    }
}

/// The topic of changes for live select.
pub fn live_topic(settings: &Settings) -> String {
    format!("{}/live", settings.on_pushed.topic)
}

/// Tells live select which tables a version changed; none: any.
pub fn publish(call: &Call<'_>, version: u64, tables: Option<&BTreeSet<String>>) {
    if call.settings.poke.is_some() {
        call.imports.pubsub.publish(publication(call, version, tables));
    }
}

/// What is told to live select of a version.
pub fn publication(call: &Call<'_>, version: u64, tables: Option<&BTreeSet<String>>) -> Publication {
    let told = json!(Told { version, tables: tables.cloned() });
    Publication {
        topic: call.live_topic(),
        message: told.to_string().into_bytes(),
        // Cursors tell who has it already.
        order: None,
        class: crate::imports::Class::MustDeliver,
        except: None,
        close: None,
    }
}

/// Begins a subscription of a WebSocket; an error ends the one that has its name.
pub fn start(call: &Call<'_>, live: &mut Live, message: &Json, outcome: &mut Outcome) {
    let id = match parse_id("id", message.get("id")) {
        Ok(id) => id,
        Err(refusal) => return outcome.send.push(error_frame(call, message.get("id").unwrap_or(&Json::Null), &refusal)),
    };
    let parsed = Subscribed::parse(call, id.clone(), message.get("query"), message.get("params"));
    live.remove(&id);
    if parsed.is_ok() && live.of.len() as u64 >= call.settings.live.per_connection_max {
        outcome.close = Some(Close { code: code::TOO_SLOW, reason: "too many subscriptions".into() });
        return;
    }
    let bytes: usize = live.of.iter().map(Subscribed::bytes).sum();
    let fits = |one: Subscribed| match bytes + one.bytes() {
        bytes if bytes > QUERIES_BYTES_MAX => Err(Refusal::invalid(format!("subscriptions of {bytes} bytes, limit {QUERIES_BYTES_MAX}"))),
        _ => Ok(one),
    };
    match parsed.and_then(fits) {
        Ok(one) => live.of.push(one),
        Err(refusal) => outcome.send.push(error_frame(call, &json!(id), &refusal)),
    }
}

fn error_frame(call: &Call<'_>, id: &Json, refusal: &Refusal) -> Frame {
    call.refused(refusal);
    let mut body = refusal.body();
    body["type"] = "live.error".into();
    body["id"] = id.clone();
    Frame::Text(body.to_string())
}

/// Brings everything that a connection subscribed to up to date. `begun`: subscriptions were added or taken away.
///
/// It subscribes before it reads, and sets the cursor when it has read: while a call of a connection runs, the host gives it no
/// frames by cursor.
pub fn catch_up(call: &Call<'_>, connection: &Connection, attachment: &mut Attachment, outcome: &mut Outcome, begun: bool) {
    let expires_in_ms = attachment.expires_in_ms(call.imports.now_ms);
    let transport = attachment.transport;
    let Some(live) = &mut attachment.live else { return };
    if !live.is_on() {
        call.imports.pubsub.unsubscribe(connection.id, &call.live_topic());
        return;
    }
    if live.waits && !begun {
        live.more = true;
        return;
    }
    let topic = call.live_topic();
    let cursor = connection.cursors.iter().find(|(name, _)| *name == topic).map(|(_, cursor)| *cursor);
    if begun {
        // With something fresh among them there is nothing that frames by cursor could build on.
        let whole = live.of.iter().any(|one| one.fresh);
        subscribe(call, connection.id, transport, live, cursor.filter(|_| !whole).unwrap_or(0));
    }
    match bring_up_to_date(call, transport, live, cursor.and_then(|cursor| cursor.checked_sub(1)), outcome) {
        Ok(cursor) if live.is_on() => subscribe(call, connection.id, transport, live, cursor),
        Ok(_) => {
            call.imports.pubsub.unsubscribe(connection.id, &topic);
            if transport == Transport::Sse {
                outcome.close = Some(close(code::GOING_AWAY));
            }
        }
        Err(failure) => {
            let retry_ms = if failure == Failure::Aborted { 0 } else { RETRY_MS };
            let fields = json!({"problem": failure.to_string()}).to_string();
            call.imports.effects.log(Level::Warn, "plasma: live queries could not be read; the connection looks again", &fields);
            outcome.alarm = Alarm::AfterMs(expires_in_ms.map_or(retry_ms, |end_ms| end_ms.min(retry_ms)));
        }
    }
    outcome.pace |= live.waits;
}

/// Subscribes with all that stands in the text of the group. The cursor is one more than the version that the client has; 0: it has
/// nothing that could be built on.
fn subscribe(call: &Call<'_>, connection: u64, transport: Transport, live: &Live, cursor: u64) {
    let queries: Vec<_> = live.of.iter().filter_map(|one| one.live_query(call).ok()).collect();
    let tables: BTreeSet<&str> = queries.iter().flat_map(|query| query.tables()).map(String::as_str).collect();
    let of = live.of.iter().map(|one| Subscribed { fresh: false, ..one.clone() }).collect();
    let shared = json!(Shared { transport, ctx: live.ctx.clone(), of });
    let tables: Vec<&str> = tables.into_iter().collect();
    call.imports.pubsub.subscribe(
        connection,
        Subscription {
            topic: call.live_topic(),
            mode: Mode::DeliverByCursor,
            group: format!("{}|{shared}", tables.join(",")),
            cursor: Some(cursor),
            presence: None,
        },
    );
}

/// Sends what became of each result since a version (none: all of it), and gives the cursor of what the client then has. What cannot
/// be answered any more ends with an error.
fn bring_up_to_date(
    call: &Call<'_>,
    transport: Transport,
    live: &mut Live,
    base: Option<u64>,
    outcome: &mut Outcome,
) -> Result<u64, Failure> {
    let view = LiveView::open(call.engine, call.imports, call.settings.live.rows_max)?;
    let mut send = Vec::new();
    let mut ended = Vec::new();
    for one in &mut live.of {
        let begun = Instant::now();
        let base = base.filter(|_| !one.fresh);
        match encoded(call, &view, &live.ctx, one, base) {
            Ok(Encoded::Same) => {}
            Ok(Encoded::Changed { kind, members }) => send.push(Frame::Text(frame(transport, &one.id, kind, &members))),
            Err(LiveRefused::Failure(failure)) => return Err(failure),
            Err(LiveRefused::Refusal(refusal)) => {
                ended.push(one.id.clone());
                send.push(match transport {
                    Transport::Ws => error_frame(call, &json!(one.id), &refusal),
                    Transport::Sse => {
                        call.refused(&refusal);
                        Frame::Text(events::event(None, "error", &refusal.body()))
                    }
                });
            }
        }
        one.slow |= begun.elapsed() > SHARED_QUERY;
    }
    live.of.retain(|one| !ended.contains(&one.id));
    live.of.iter_mut().for_each(|one| one.fresh = false);
    live.unread_bytes += send.iter().map(events::bytes).sum::<u64>();
    live.waits = live.unread_bytes > UNREAD_BYTES_MAX;
    outcome.send.extend(send);
    Ok(if view.is_held() { 0 } else { view.version() + 1 })
}

/// Why there is nothing to be sent.
enum LiveRefused {
    /// The subscription ends.
    Refusal(Refusal),
    /// It passes.
    Failure(Failure),
}

fn encoded(
    call: &Call<'_>,
    view: &LiveView<'_>,
    ctx: &Map<String, Json>,
    one: &Subscribed,
    base: Option<u64>,
) -> Result<Encoded, LiveRefused> {
    let query = one.live_query(call).map_err(LiveRefused::Refusal)?;
    let bindings = Bindings { parameters: one.params.as_ref(), ..Bindings::of_context(ctx) };
    let change = view.since(&query, &bindings, base).map_err(|refused| match refused {
        QueryRefused::Failure(failure) => LiveRefused::Failure(failure),
        other => LiveRefused::Refusal(other.into()),
    })?;
    let version = view.version();
    Ok(match change {
        LiveChange::Same => Encoded::Same,
        LiveChange::Rows(rows) => {
            Encoded::Changed { kind: "rows", members: format!("\"version\":{version},\"rows\":{}", rows_json(&rows)).into() }
        }
        LiveChange::Diff(diff) => Encoded::Changed { kind: "diff", members: format!("\"version\":{version},{}", diff.to_members()).into() },
    })
}

fn frame(transport: Transport, id: &str, kind: &str, members: &str) -> String {
    match transport {
        Transport::Ws => format!("{{\"type\":\"live.{kind}\",\"id\":{},{members}}}", json!(id)),
        Transport::Sse => format!("event: {kind}\ndata: {{{members}}}\n\n"),
    }
}

/// Whether a publication is one for live select.
pub fn is_topic(call: &Call<'_>, topic: &str) -> bool {
    call.live_topic() == topic
}

/// What a publication becomes for the groups that listen.
pub fn deliver(call: &Call<'_>, publication: &Publication, groups: &[Group]) -> Deliveries {
    let mut delivery = Delivery { call, frames: Vec::new(), frame_of: HashMap::new(), results: HashMap::new(), nudge: None };
    let Ok(told) = serde_json::from_slice::<Told>(&publication.message) else {
        return Deliveries { frames: Vec::new(), outcomes: groups.iter().map(|_| GroupOutcome::Skip).collect() };
    };
    let concerned: Vec<bool> = groups.iter().map(|group| is_concerned(group, &told)).collect();
    let begun = Instant::now();
    let view = match concerned.contains(&true) {
        true => LiveView::open(call.engine, call.imports, call.settings.live.rows_max).map(Some),
        false => Ok(None),
    };
    let view = view.unwrap_or_else(|failure| {
        let fields = json!({"problem": failure.to_string()}).to_string();
        call.imports.effects.log(Level::Warn, "plasma: live queries could not be read together; each connection looks for itself", &fields);
        None
    });
    let outcome = |(group, concerned): (&Group, bool)| match &view {
        _ if !concerned => GroupOutcome::Skip,
        // Whoever closes the range tells of everything above it.
        Some(view) if view.is_held() => GroupOutcome::Skip,
        Some(view) if begun.elapsed() < DELIVERY => delivery.group(view, group),
        _ => delivery.nudged(),
    };
    let outcomes = groups.iter().zip(concerned).map(outcome).collect();
    Deliveries { frames: delivery.frames, outcomes }
}

/// Whether a group reads a table that changed, and does not have the version yet.
fn is_concerned(group: &Group, told: &Told) -> bool {
    let tables = group.name.split_once('|').map_or("", |(tables, _)| tables);
    let reads = |changed: &BTreeSet<String>| tables.split(',').any(|table| changed.contains(table));
    group.cursor.unwrap_or(0) <= told.version && told.tables.as_ref().is_none_or(reads)
}

/// What one publication becomes.
struct Delivery<'a> {
    call: &'a Call<'a>,
    frames: Vec<Template>,
    /// Frames by what is in them and for whom.
    frame_of: HashMap<String, u32>,
    /// Results by query, parameters, context and version; none: each connection looks for itself.
    results: HashMap<String, Option<Encoded>>,
    /// The frame that only sets the alarm off.
    nudge: Option<u32>,
}

impl Delivery<'_> {
    /// The group's connections look for themselves.
    fn nudged(&mut self) -> GroupOutcome {
        let index = match self.nudge {
            Some(index) => index,
            None => {
                let index = self.add(Template { binary: false, parts: Vec::new(), cursor_after: None, alarm_after_ms: Some(0) });
                *self.nudge.insert(index)
            }
        };
        GroupOutcome::Send(vec![index])
    }

    fn add(&mut self, template: Template) -> u32 {
        self.frames.push(template);
        u32::try_from(self.frames.len() - 1).unwrap_or(u32::MAX)
    }

    /// What a group gets that is concerned.
    fn group(&mut self, view: &LiveView<'_>, group: &Group) -> GroupOutcome {
        let shared = group.name.split_once('|').and_then(|(_, shared)| serde_json::from_str::<Shared>(shared).ok());
        let Some(shared) = shared else { return self.nudged() };
        let base = group.cursor.and_then(|cursor| cursor.checked_sub(1));
        let who = format!("{base:?} {}", json!(shared.ctx));
        let after = view.version() + 1;
        let (mut indexes, mut bytes) = (Vec::new(), 0);
        for one in &shared.of {
            let which = format!("{who} {} {}", one.query, json!(one.params));
            match self.result(view, &shared.ctx, one, base, &which) {
                None => return self.nudged(),
                Some(Encoded::Same) => {}
                Some(Encoded::Changed { kind, members }) => {
                    bytes += members.len();
                    if bytes > SHARED_BYTES_MAX {
                        return self.nudged();
                    }
                    let key = format!("{} {} {which}", shared.transport.name(), json!(one.id));
                    let index = match self.frame_of.get(&key) {
                        Some(index) => *index,
                        None => {
                            let text = frame(shared.transport, &one.id, kind, &members);
                            let parts = vec![Part::Bytes(text.into_bytes())];
                            let index = self.add(Template { binary: false, parts, cursor_after: Some(after), alarm_after_ms: None });
                            self.frame_of.insert(key, index);
                            index
                        }
                    };
                    indexes.push(index);
                }
            }
        }
        if indexes.is_empty() { GroupOutcome::Advance(after) } else { GroupOutcome::Send(indexes) }
    }

    /// What became of one result, found out once.
    fn result(
        &mut self,
        view: &LiveView<'_>,
        ctx: &Map<String, Json>,
        one: &Subscribed,
        base: Option<u64>,
        which: &str,
    ) -> Option<Encoded> {
        if one.slow {
            return None;
        }
        if let Some(known) = self.results.get(which) {
            return known.clone();
        }
        let found = encoded(self.call, view, ctx, one, base).ok();
        self.results.insert(which.to_owned(), found.clone());
        found
    }
}
