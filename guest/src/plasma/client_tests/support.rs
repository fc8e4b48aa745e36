//! A mount on a host in memory: requests, streams and sockets as a client has them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::{Value as Json, json};

use crate::contract::exports::syncline::sync::http::{Stored, Upload};
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part};
use crate::gzip;
use crate::imports::*;
use crate::plasma::Plasma;
use crate::registry::{
    Admission, Alarm, BodyFailure, BodyIn, BodyOut, BodyPlan, Connection, Group, Input, Mount, Outcome, Protocol, Request, UpgradeResult,
};
use crate::test_host::{HostInMemory, sha256};

/// The configuration that conformance runs with.
const FIXTURE: &str = include_str!("../../../../tests/conformance/plasma.fixture.json");

/// The fixture with some keys set (or, with null, taken out).
pub fn fixture(changes: Json) -> Json {
    let mut settings: Json = serde_json::from_str(FIXTURE).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Json::Null => drop(settings.as_object_mut().unwrap().remove(key)),
            value => settings[key] = value.clone(),
        }
    }
    settings
}

/// What a client got.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A request under construction.
#[derive(Clone)]
pub struct Ask {
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the size is announced.
    pub sized: bool,
}

impl Ask {
    pub fn get(url: &str) -> Self {
        Self { method: "GET", url: url.into(), headers: Vec::new(), body: Vec::new(), sized: true }
    }

    pub fn post(url: &str, body: &Json) -> Self {
        Self { method: "POST", body: body.to_string().into_bytes(), ..Self::get(url) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn head(&self) -> RequestHead {
        let (path, query) = self.url.split_once('?').map_or((self.url.as_str(), None), |(path, query)| (path, Some(query)));
        let mut headers = self.headers.clone();
        if self.sized && self.method != "GET" {
            headers.push(("content-length".into(), self.body.len().to_string()));
        }
        RequestHead {
            method: self.method.into(),
            path: path.into(),
            query: query.map(str::to_owned),
            headers: headers.into_iter().map(|(name, value)| crate::http::header(&name, value)).collect(),
            remote_address: "127.0.0.1".into(),
            secure: false,
        }
    }
}

/// A connection as the host keeps it.
#[derive(Default)]
struct Line {
    attachment: Vec<u8>,
    frames: Vec<String>,
    close: Option<Close>,
    alarm_ms: Option<u64>,
    paces: bool,
    seen: HashMap<String, u64>,
}

/// A server with one mount.
pub struct Server {
    pub host: HostInMemory,
    mount: Rc<dyn Mount>,
    app: Rc<dyn App>,
    lines: RefCell<BTreeMap<ConnectionId, Line>>,
    ids: Cell<ConnectionId>,
    /// Whether the body was read by the last request.
    pub body_was_read: Cell<bool>,
    /// Whether the store takes no uploads.
    pub store_is_away: Cell<bool>,
}

impl Server {
    /// The fixture.
    pub fn new() -> Self {
        Self::with(json!({}))
    }

    /// The fixture with changes.
    pub fn with(changes: Json) -> Self {
        Self::with_app(changes, Rc::new(NoApp))
    }

    pub fn with_app(changes: Json, app: Rc<dyn App>) -> Self {
        let host = HostInMemory::default();
        let mount = Plasma.configure("m", &fixture(changes).to_string(), Vec::new()).unwrap();
        let server = Self {
            host,
            mount,
            app,
            lines: RefCell::default(),
            ids: Cell::new(100),
            body_was_read: Cell::new(false),
            store_is_away: Cell::new(false),
        };
        assert_eq!(server.mount.start(server.imports(), None), Ok(None));
        server
    }

    pub fn imports(&self) -> Imports<'_> {
        self.host.imports_with(self.app.as_ref())
    }

    pub fn mount(&self) -> &dyn Mount {
        self.mount.as_ref()
    }

    fn new_id(&self) -> ConnectionId {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Sends a request.
    pub fn ask(&self, ask: &Ask) -> Reply {
        let id = self.new_id();
        let (response, _) = self.respond(id, ask);
        let body = match response.body {
            BodyOut::Empty => Vec::new(),
            BodyOut::Bytes(body) => body,
            BodyOut::Object((key, range)) => self.host.storage.read_object(&key, range).unwrap(),
            _ => panic!("a body of another kind"),
        };
        self.settle();
        self.reply(response.status, response.headers, body)
    }

    fn reply(&self, status: u16, headers: Vec<Header>, mut body: Vec<u8>) -> Reply {
        let mut by_name = BTreeMap::new();
        for Header { name, value } in headers {
            let value = String::from_utf8(value).unwrap();
            by_name.entry(name).and_modify(|all: &mut String| *all = format!("{all}, {value}")).or_insert(value);
        }
        if by_name.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            body = gzip::inflate(&body, u64::MAX - 1).unwrap();
        }
        Reply { status, headers: by_name, body }
    }

    fn respond(&self, connection: ConnectionId, ask: &Ask) -> (crate::registry::Response, RequestHead) {
        let head = ask.head();
        self.body_was_read.set(false);
        let accept = match self.mount.admit(self.imports(), connection, head.clone()) {
            Admission::Accept(accept) => accept,
            Admission::Refuse(response) => return (response, head),
        };
        self.body_was_read.set(true);
        let body = match accept.body {
            BodyPlan::Inline(bytes_max) if ask.body.len() as u64 > bytes_max => BodyIn::Failed(BodyFailure::TooLarge),
            BodyPlan::Inline(_) if ask.body.is_empty() => BodyIn::Empty,
            BodyPlan::Inline(_) => BodyIn::Bytes(ask.body.clone()),
            BodyPlan::Object(upload) => self.take(upload, &ask.body),
        };
        let request = Request { connection, head: head.clone(), context: accept.context, body, failure: None };
        (self.mount.handle(self.imports(), request), head)
    }

    /// A body becomes an object.
    fn take(&self, upload: Upload, body: &[u8]) -> BodyIn {
        let hash = sha256(body);
        if self.store_is_away.get() {
            return BodyIn::Failed(BodyFailure::Unavailable);
        }
        if body.len() as u64 > upload.max_bytes {
            return BodyIn::Failed(BodyFailure::TooLarge);
        }
        if upload.sha256.is_some_and(|expected| expected != hash) {
            return BodyIn::Failed(BodyFailure::WrongHash);
        }
        let existed = self.host.storage.objects.borrow_mut().insert(upload.key.clone(), body.to_vec()).is_some();
        BodyIn::Stored(Stored { key: upload.key, size: body.len() as u64, sha256: hash, existed })
    }

    /// A request with a token and a JSON body.
    pub fn post(&self, path: &str, token: &str, body: &Json) -> Reply {
        self.ask(&Ask::post(&format!("/sync{path}"), body).token(token))
    }

    pub fn get(&self, path: &str, token: &str) -> Reply {
        self.ask(&Ask::get(&format!("/sync{path}")).token(token))
    }

    /// A push in the Replicache dialect: name and arguments of mutations, from an id on.
    pub fn push(&self, token: &str, group: &str, client: &str, first_id: u64, mutations: &[(&str, Json)]) -> Reply {
        self.post("/push", token, &push_body(group, client, first_id, mutations))
    }

    pub fn pull(&self, token: &str, group: &str, cookie: &Json) -> Json {
        let reply = self.post("/pull", token, &pull_body(group, cookie));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Opens a stream of events.
    pub fn stream(&self, url: &str, headers: &[(&str, &str)]) -> Result<Peer<'_>, Reply> {
        let id = self.new_id();
        let ask = headers.iter().fold(Ask::get(url), |ask, (name, value)| ask.header(name, value));
        let (response, _) = self.respond(id, &ask);
        match response.body {
            BodyOut::Stream(stream) => {
                assert_eq!(response.status, 200);
                self.lines.borrow_mut().insert(id, Line::default());
                self.apply(id, stream.start);
                Ok(Peer { server: self, id })
            }
            BodyOut::Bytes(body) => Err(self.reply(response.status, response.headers, body)),
            _ => panic!("a body of another kind"),
        }
    }

    /// Opens a WebSocket; gives the subprotocol, too.
    pub fn socket(&self, url: &str, headers: &[(&str, &str)]) -> Result<(Peer<'_>, Option<String>), Reply> {
        let id = self.new_id();
        let ask = headers.iter().fold(Ask::get(url), |ask, (name, value)| ask.header(name, value));
        match self.mount.upgrade(self.imports(), id, ask.head()) {
            UpgradeResult::Accept(accept) => {
                self.lines.borrow_mut().insert(id, Line::default());
                self.apply(id, accept.start);
                Ok((Peer { server: self, id }, accept.subprotocol))
            }
            UpgradeResult::Refuse(response) => {
                let BodyOut::Bytes(body) = response.body else { panic!("a body of another kind") };
                Err(self.reply(response.status, response.headers, body))
            }
        }
    }

    fn apply(&self, id: ConnectionId, outcome: Outcome) {
        {
            let mut lines = self.lines.borrow_mut();
            let line = lines.get_mut(&id).unwrap();
            if let Some(attachment) = outcome.attachment {
                line.attachment = attachment;
            }
            line.seen.extend(outcome.seen);
            line.frames.extend(outcome.send.into_iter().map(text));
            line.paces = outcome.pace;
            match outcome.alarm {
                Alarm::Keep => {}
                Alarm::Stop => line.alarm_ms = None,
                Alarm::AfterMs(after) => line.alarm_ms = Some(after),
            }
            if outcome.close.is_some() {
                line.close = outcome.close;
            }
        }
        let mut subscriptions = self.host.pubsub.subscriptions.borrow_mut();
        for (topic, cursor) in outcome.cursors {
            if let Some(subscription) = subscriptions.get_mut(&(id, topic)) {
                subscription.cursor = Some(cursor);
            }
        }
        drop(subscriptions);
        self.end_if_closed(id);
        self.settle();
    }

    fn end_if_closed(&self, id: ConnectionId) {
        if self.lines.borrow()[&id].close.is_some() {
            self.host.pubsub.subscriptions.borrow_mut().retain(|(connection, _), _| *connection != id);
            let connection = self.connection(id);
            self.mount.closed(self.imports(), connection, 1006);
        }
    }

    fn connection(&self, id: ConnectionId) -> Connection {
        let subscriptions = self.host.pubsub.subscriptions.borrow();
        let cursors = subscriptions.iter().filter(|((connection, _), _)| *connection == id);
        let cursors = cursors.filter_map(|((_, topic), subscription)| Some((topic.clone(), subscription.cursor?))).collect();
        Connection { id, attachment: self.lines.borrow()[&id].attachment.clone(), cursors, failure: None }
    }

    /// What was published or sent goes to whoever is subscribed; those whose alarm is due at once look.
    pub fn settle(&self) {
        for (id, frame) in self.host.pubsub.sent.take() {
            if let Some(line) = self.lines.borrow_mut().get_mut(&id) {
                line.frames.push(text(frame));
            }
        }
        for publication in self.host.pubsub.published.take() {
            self.fan_out(&publication);
        }
        let due: Vec<_> = self.lines.borrow().iter().filter(|(_, line)| line.alarm_ms == Some(0)).map(|(id, _)| *id).collect();
        for id in due {
            self.input(id, Input::Wake);
        }
    }

    fn fan_out(&self, publication: &Publication) {
        let subscriptions = self.host.pubsub.subscriptions.borrow().clone();
        for ((id, _), subscription) in subscriptions.into_iter().filter(|((_, topic), _)| *topic == publication.topic) {
            let covered = |line: &Line| {
                publication.order.as_ref().is_some_and(|order| line.seen.get(&order.key).is_some_and(|seen| order.sequence <= *seen))
            };
            if covered(&self.lines.borrow()[&id]) {
                continue;
            }
            if !publication.message.is_empty() {
                match subscription.mode {
                    Mode::ForwardText => {
                        let text = String::from_utf8(publication.message.clone()).unwrap();
                        self.lines.borrow_mut().get_mut(&id).unwrap().frames.push(text);
                    }
                    _ => self.deliver(id, &subscription, publication),
                }
            }
            if publication.close.is_some() {
                self.lines.borrow_mut().get_mut(&id).unwrap().close = publication.close.clone();
                self.end_if_closed(id);
            }
        }
    }

    fn deliver(&self, id: ConnectionId, subscription: &Subscription, publication: &Publication) {
        let cursor = subscription.cursor.filter(|_| subscription.mode == Mode::DeliverByCursor);
        let groups = vec![Group { name: subscription.group.clone(), cursor }];
        let deliveries = self.mount.deliver(self.imports(), publication.clone(), groups);
        let GroupOutcome::Send(indexes) = &deliveries.outcomes[0] else { return };
        for index in indexes {
            let template = &deliveries.frames[*index as usize];
            let whole: Vec<u8> =
                template.parts.iter().flat_map(|part| if let Part::Bytes(bytes) = part { bytes.clone() } else { Vec::new() }).collect();
            if let Some(after) = template.cursor_after {
                let mut subscriptions = self.host.pubsub.subscriptions.borrow_mut();
                subscriptions.get_mut(&(id, publication.topic.clone())).unwrap().cursor = Some(after);
            }
            let mut lines = self.lines.borrow_mut();
            let line = lines.get_mut(&id).unwrap();
            line.frames.push(String::from_utf8(whole).unwrap());
            if let Some(within) = template.alarm_after_ms {
                line.alarm_ms = Some(line.alarm_ms.map_or(within, |alarm| alarm.min(within)));
            }
        }
    }

    fn input(&self, id: ConnectionId, input: Input) {
        {
            let mut lines = self.lines.borrow_mut();
            let line = lines.get_mut(&id).unwrap();
            match input {
                Input::Wake => line.alarm_ms = None,
                Input::Drained => line.paces = false,
                _ => {}
            }
        }
        let outcome = self.mount.receive(self.imports(), self.connection(id), vec![input]);
        self.apply(id, outcome);
    }
}

fn text(frame: Frame) -> String {
    match frame {
        Frame::Text(text) => text,
        Frame::Binary(_) => panic!("a binary frame"),
    }
}

/// The other end of a connection.
pub struct Peer<'a> {
    server: &'a Server,
    pub id: ConnectionId,
}

impl Peer<'_> {
    /// What has come since the last look, as text.
    pub fn frames(&self) -> Vec<String> {
        std::mem::take(&mut self.server.lines.borrow_mut().get_mut(&self.id).unwrap().frames)
    }

    /// The events that have come: name, id and data. Comments are left out.
    pub fn events(&self) -> Vec<(String, Option<String>, Json)> {
        let all = self.frames().concat();
        let events = all.split("\n\n").filter(|event| event.lines().any(|line| line.starts_with("event: ")));
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).map(str::to_owned))
        };
        events
            .map(|event| {
                (field(event, "event").unwrap(), field(event, "id"), serde_json::from_str(&field(event, "data").unwrap()).unwrap())
            })
            .collect()
    }

    /// The frames that have come, as JSON.
    pub fn messages(&self) -> Vec<Json> {
        self.frames().iter().map(|frame| serde_json::from_str(frame).unwrap()).collect()
    }

    pub fn send(&self, text: &str) {
        self.server.input(self.id, Input::Frame(Frame::Text(text.into())));
    }

    pub fn send_binary(&self, bytes: &[u8]) {
        self.server.input(self.id, Input::Frame(Frame::Binary(bytes.to_vec())));
    }

    /// When the alarm goes off.
    pub fn alarm_ms(&self) -> Option<u64> {
        self.server.lines.borrow()[&self.id].alarm_ms
    }

    /// The alarm goes off.
    pub fn wake(&self) {
        self.server.input(self.id, Input::Wake);
    }

    /// The client has taken what was sent, as often as it is waited for.
    pub fn drain(&self) {
        while self.server.lines.borrow()[&self.id].paces {
            self.server.input(self.id, Input::Drained);
        }
    }

    pub fn close_code(&self) -> Option<u16> {
        self.server.lines.borrow()[&self.id].close.as_ref().map(|close| close.code)
    }
}

pub fn push_body(group: &str, client: &str, first_id: u64, mutations: &[(&str, Json)]) -> Json {
    let mutation = |(offset, (name, args)): (usize, &(&str, Json))| json!({"id": first_id + offset as u64, "clientID": client, "name": name, "args": args, "timestamp": 910.25});
    let mutations: Vec<_> = mutations.iter().enumerate().map(mutation).collect();
    json!({"pushVersion": 1, "schemaVersion": "7", "profileID": "p", "clientGroupID": group, "mutations": mutations})
}

pub fn pull_body(group: &str, cookie: &Json) -> Json {
    json!({"pullVersion": 1, "schemaVersion": "7", "profileID": "p", "clientGroupID": group, "cookie": cookie})
}

pub fn inc(id: &str) -> (&'static str, Json) {
    ("inc", json!({"id": id, "by": 1}))
}

pub fn todo(id: &str, title: &str) -> (&'static str, Json) {
    ("createTodo", json!({"id": id, "title": title}))
}
