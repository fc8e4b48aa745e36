//! What the tests stand on.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::bindings::syncline::host::executor::Snapshot;
use crate::bindings::syncline::host::pubsub::{Class, Mode, Order, Publication, Subscription};
use crate::bindings::syncline::host::storage::{ByteRange, ObjectInfo};
use crate::bindings::syncline::host::types::{Close, Frame, Header, RequestHead};
use crate::bindings::syncline::spin::adapter::{
    Change, Ended, Error, FailedPost, Job, Mount, Published, Settings, Start, Stored, UploadFailure,
};
use crate::bindings::syncline::sync::http::{Accept, Admission, BodyIn, BodyOut, BodyPlan, Response, StreamStart, Work};
use crate::bindings::syncline::sync::live::{Alarm, Connection, Failure, Outcome};
use crate::bindings::syncline::sync::mounts::{Closes, Concurrency, Fallback, Fallbacks, Plan, Route, RouteKind, UpgradeAnswer, Upgrades};
use crate::bindings::syncline::sync::socket::{Deliveries, Group, GroupOutcome, Input, Part, Template, UpgradeResult};
use crate::front::Front;
use crate::ports::{Adapter, AnswerHead, Clock, Cursor, Documents, Download, Exchange, Gone, Incoming, Logic, Unread, Upload};

pub(crate) const MOUNT: &str = "notes";

type Event = (u64, Box<dyn FnOnce(&World)>);
type Admit = Box<dyn FnMut(&World, &RequestHead) -> Admission>;
type Resume = Box<dyn FnMut(&World, u64, &[u8]) -> Response>;
type Receive = Box<dyn FnMut(&World, &Connection, &[Input]) -> Outcome>;
type Deliver = Box<dyn FnMut(&Publication, &[Group]) -> Deliveries>;
type Handle = Box<dyn FnMut(&World, u64, &RequestHead, &BodyIn) -> Response>;

/// All that the front does not own.
pub(crate) struct World {
    pub(crate) now_ms: Cell<u64>,
    events: RefCell<Vec<Event>>,
    pub(crate) script: RefCell<Script>,
    pub(crate) kept: RefCell<Kept>,
    /// What was called, in order.
    pub(crate) calls: RefCell<Vec<String>>,
    random: Cell<u64>,
}

/// What the logic does.
pub(crate) struct Script {
    pub(crate) plan: Plan,
    pub(crate) admit: Admit,
    pub(crate) handle: Handle,
    pub(crate) resume: Resume,
    pub(crate) receive: Receive,
    pub(crate) deliver: Deliver,
    pub(crate) pieces: VecDeque<Result<(Vec<u8>, Cursor), String>>,
    pub(crate) fired: VecDeque<Cursor>,
    pub(crate) starts: VecDeque<Result<Cursor, String>>,
}

/// What the adapter keeps.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) publications: Vec<(u64, Publication)>,
    pub(crate) missed: bool,
    pub(crate) places: BTreeMap<(String, String), u64>,
    pub(crate) answers: HashMap<String, Vec<u8>>,
    pub(crate) objects: HashMap<String, Vec<u8>>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) failed_posts: Vec<FailedPost>,
    /// Something is due that another instance takes.
    pub(crate) taken_by_others: bool,
    pub(crate) started: Option<String>,
    pub(crate) busy: u32,
    pub(crate) again: u32,
    pub(crate) end_fails: bool,
    documents: Documents,
    /// Of the call that is under way.
    in_call: bool,
    changes: Vec<Change>,
    published: Vec<Publication>,
}

impl Kept {
    fn newest(&self) -> u64 {
        self.publications.last().map_or(0, |(position, _)| *position)
    }

    pub(crate) fn publish(&mut self, publication: Publication) {
        let position = self.newest() + 1;
        self.publications.push((position, publication));
    }
}

impl World {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            now_ms: Cell::new(1_000_000),
            events: RefCell::default(),
            script: RefCell::new(Script::default()),
            kept: RefCell::default(),
            calls: RefCell::default(),
            random: Cell::new(0),
        })
    }

    /// Something happens outside after a while.
    pub(crate) fn after(&self, delay_ms: u64, act: impl FnOnce(&World) + 'static) {
        self.events.borrow_mut().push((self.now_ms.get() + delay_ms, Box::new(act)));
    }

    /// Something is published from outside after a while.
    pub(crate) fn publish_after(&self, delay_ms: u64, publication: Publication) {
        self.after(delay_ms, |world| world.kept.borrow_mut().publish(publication));
    }

    /// The logic subscribes, within its call.
    pub(crate) fn subscribe(&self, connection: u64, subscription: Subscription) {
        let mut kept = self.kept.borrow_mut();
        assert!(kept.in_call);
        let position = kept.newest();
        kept.changes.push(Change::Subscribed((connection, subscription, position)));
    }

    /// The logic publishes, within its call.
    pub(crate) fn publish(&self, publication: Publication) {
        self.kept.borrow_mut().published.push(publication);
    }

    fn called(&self, what: impl Into<String>) {
        assert!(self.kept.borrow().in_call, "the logic is called from begin to end");
        self.calls.borrow_mut().push(what.into());
    }

    fn next_random(&self) -> u64 {
        self.random.set(self.random.get() + 1);
        // Ids are a quarter of it.
        self.random.get() * 4
    }

    fn advance(&self, delay_ms: u64) {
        let until_ms = self.now_ms.get() + delay_ms;
        loop {
            let due = {
                let mut events = self.events.borrow_mut();
                events.sort_by_key(|(at_ms, _)| *at_ms);
                if events.first().is_some_and(|(at_ms, _)| *at_ms <= until_ms) { Some(events.remove(0)) } else { None }
            };
            let Some((at_ms, act)) = due else { break };
            self.now_ms.set(self.now_ms.get().max(at_ms));
            act(self);
        }
        self.now_ms.set(until_ms);
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            plan: plan(),
            admit: Box::new(|_, _| Admission::Accept(Accept { body: BodyPlan::Inline(100), context: b"c".to_vec(), work: Work::Usual })),
            handle: Box::new(|_, _, _, _| answer(200, BodyOut::Bytes(b"hello".to_vec()))),
            resume: Box::new(|_, _, state| answer(200, BodyOut::Bytes(state.to_vec()))),
            receive: Box::new(|_, _, _| outcome("")),
            deliver: Box::new(|_, groups| Deliveries { frames: Vec::new(), outcomes: groups.iter().map(|_| GroupOutcome::Skip).collect() }),
            pieces: VecDeque::new(),
            fired: VecDeque::new(),
            starts: VecDeque::from([Ok(None)]),
        }
    }
}

pub(crate) fn answer(status: u16, body: BodyOut) -> Response {
    Response { status, headers: vec![header("x-logic", "1")], body }
}

pub(crate) fn header(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: value.into() }
}

pub(crate) fn outcome(text: &str) -> Outcome {
    Outcome {
        send: if text.is_empty() { Vec::new() } else { vec![Frame::Text(text.into())] },
        attachment: None,
        close: None,
        seen: Vec::new(),
        cursors: Vec::new(),
        alarm: Alarm::Keep,
        pace: false,
        tasks: Vec::new(),
        defer: None,
        quiet_ms: None,
    }
}

pub(crate) fn stream(start: Outcome, keepalive: Option<(u64, &str)>) -> Response {
    let keepalive = keepalive.map(|(after_ms, text)| (after_ms, text.into()));
    answer(200, BodyOut::Stream(StreamStart { start, keepalive }))
}

pub(crate) fn subscription(topic: &str, mode: Mode) -> Subscription {
    Subscription { topic: topic.into(), mode, group: "g".into(), cursor: None, presence: None }
}

pub(crate) fn published(topic: &str, message: &str) -> Publication {
    Publication { topic: topic.into(), message: message.into(), order: None, class: Class::MustDeliver, except: None, close: None }
}

pub(crate) fn ordered(topic: &str, message: &str, key: &str, sequence: u64) -> Publication {
    Publication { order: Some(Order { key: key.into(), after: sequence - 1, sequence }), ..published(topic, message) }
}

pub(crate) fn template(parts: Vec<Part>, cursor_after: Option<u64>) -> Template {
    Template { binary: false, parts, cursor_after, alarm_after_ms: None }
}

pub(crate) fn close(code: u16) -> Close {
    Close { code, reason: String::new() }
}

fn plan() -> Plan {
    let fallback = |text: &str| Fallback { headers: vec![header("content-type", "application/json")], body: text.into() };
    let route = |path: &str, prefix, kind| Route { path: path.into(), prefix, kind };
    Plan {
        routes: vec![route("/sync", true, RouteKind::Http), route("/sync/socket", false, RouteKind::Socket)],
        documents: Vec::new(),
        folders: Vec::new(),
        post_targets: Vec::new(),
        max_body_bytes: 1000,
        max_frame_bytes: 1000,
        max_frame_bytes_before_auth: 1000,
        ping_ms: None,
        idle_ms: None,
        queue_bytes: 1000,
        max_tasks: 1,
        inputs_per_call: 0,
        call_deadline_ms: 5000,
        drain_ms: None,
        upgrades: Upgrades {
            max_connections: None,
            deadline_ms: 1000,
            full: UpgradeAnswer::Status(503),
            failed: UpgradeAnswer::Status(500),
            timed_out: UpgradeAnswer::Status(504),
        },
        closes: Closes { slow: close(4001), idle: close(4002), too_large: close(4003), failed: close(4004), shutdown: close(4005) },
        fallbacks: Some(Fallbacks { failed: fallback("failed"), unavailable: fallback("unavailable") }),
        concurrency: Concurrency::Shared,
        app_limits: None,
        direct: None,
        object_cache_bytes: 0,
        auto_replies: Vec::new(),
        watch: None,
        warnings: Vec::new(),
    }
}

pub(crate) struct TestLogic(Rc<World>);

impl Logic for TestLogic {
    fn check(&self, protocol: &str, _settings: &str) -> Result<Plan, Vec<String>> {
        if protocol == "plasma" { Ok(self.0.script.borrow().plan.clone()) } else { Err(vec!["protocol: there is no such".into()]) }
    }
    fn configure(
        &self,
        _mount: &str,
        _protocol: &str,
        revision: u64,
        _settings: &str,
        _documents: &[(String, Vec<u8>)],
    ) -> Result<(), String> {
        self.0.calls.borrow_mut().push(format!("configure {revision}"));
        Ok(())
    }
    fn start(&self, _mount: &str, cursor: Option<&[u8]>) -> Result<Cursor, String> {
        self.0.called(format!("start {cursor:?}"));
        self.0.script.borrow_mut().starts.pop_front().expect("a start that was foreseen")
    }
    fn admit(&self, _mount: &str, _connection: u64, head: &RequestHead) -> Admission {
        self.0.called("admit");
        (self.0.script.borrow_mut().admit)(&self.0, head)
    }
    fn handle(&self, _: &str, connection: u64, head: &RequestHead, context: Option<&[u8]>, body: &BodyIn, _: Option<Failure>) -> Response {
        self.0.called(format!("handle {}", context.map_or("directly", |_| "admitted")));
        (self.0.script.borrow_mut().handle)(&self.0, connection, head, body)
    }
    fn resume(&self, _mount: &str, connection: u64, state: &[u8]) -> Response {
        self.0.called("resume");
        (self.0.script.borrow_mut().resume)(&self.0, connection, state)
    }
    fn generate(&self, _mount: &str, cursor: &[u8], _view: Option<&Snapshot>) -> Result<(Vec<u8>, Cursor), String> {
        self.0.called(format!("generate {}", String::from_utf8_lossy(cursor)));
        self.0.script.borrow_mut().pieces.pop_front().expect("a piece that was foreseen")
    }
    fn upgrade(&self, _mount: &str, connection: u64, _head: &RequestHead) -> UpgradeResult {
        self.0.called("upgrade");
        self.0.subscribe(connection, subscription("t", Mode::ForwardText));
        UpgradeResult::Refuse(answer(403, BodyOut::Bytes(b"no".to_vec())))
    }
    fn receive(&self, _mount: &str, connection: &Connection, inputs: &[Input]) -> Outcome {
        self.0.called(format!("receive {inputs:?}"));
        (self.0.script.borrow_mut().receive)(&self.0, connection, inputs)
    }
    fn task(&self, _mount: &str, _connection: &Connection, work: &[u8]) -> Vec<u8> {
        self.0.called("task");
        [work, b" done"].concat()
    }
    fn closed(&self, _mount: &str, _connection: &Connection, code: u16) {
        self.0.called(format!("closed {code}"));
    }
    fn deliver(&self, _mount: &str, publication: &Publication, groups: &[Group]) -> Deliveries {
        self.0.called("deliver");
        (self.0.script.borrow_mut().deliver)(publication, groups)
    }
    fn refill(&self, _mount: &str, _topic: &str, _key: &str, after: u64) -> Vec<Publication> {
        self.0.called(format!("refill {after}"));
        Vec::new()
    }
    fn post_failed(&self, _mount: &str, _connection: u64, post: &FailedPost) {
        self.0.called(format!("post-failed {}", post.url));
    }
    fn fire(&self, _mount: &str, name: &str, _payload: &[u8], cursor: Option<&[u8]>) -> Cursor {
        self.0.called(format!("fire {name} {cursor:?}"));
        self.0.script.borrow_mut().fired.pop_front().flatten()
    }
}

pub(crate) struct TestAdapter(Rc<World>);

impl Adapter for TestAdapter {
    fn open(&self, _settings: &Settings) -> Result<(), Error> {
        Ok(())
    }
    fn know(&self, _mount: &Mount) {}
    fn documents(&self, _mount: &str) -> Result<Documents, Error> {
        Ok(self.0.kept.borrow().documents.clone())
    }
    fn claim_start(&self, _mount: &str, revision: &str) -> Result<Start, Error> {
        let mut kept = self.0.kept.borrow_mut();
        if kept.busy > 0 {
            kept.busy -= 1;
            return Ok(Start::Busy);
        }
        Ok(if kept.started.as_deref() == Some(revision) { Start::Done } else { Start::Step(None) })
    }
    fn started(&self, _mount: &str, revision: &str, cursor: Option<&[u8]>) -> Result<(), Error> {
        if cursor.is_none() {
            self.0.kept.borrow_mut().started = Some(revision.to_owned());
        }
        Ok(())
    }
    fn start_failed(&self, _mount: &str) {
        self.0.calls.borrow_mut().push("start-failed".into());
    }
    fn begin(&self, _mount: &str, _long: bool) {
        let mut kept = self.0.kept.borrow_mut();
        assert!(!std::mem::replace(&mut kept.in_call, true), "one call at a time");
    }
    fn end(&self, _failed: bool) -> Result<Ended, Error> {
        let mut kept = self.0.kept.borrow_mut();
        assert!(std::mem::replace(&mut kept.in_call, false));
        let (changes, published) = (std::mem::take(&mut kept.changes), std::mem::take(&mut kept.published));
        if kept.end_fails {
            return Err(Error::Unavailable("disk".into()));
        }
        if kept.again > 0 {
            kept.again -= 1;
            return Ok(Ended { changes: Vec::new(), published: None, saw: None, again: true, refreshed: false });
        }
        let any = !published.is_empty();
        published.into_iter().for_each(|publication| kept.publish(publication));
        Ok(Ended { changes, published: any.then(|| kept.newest()), saw: None, again: false, refreshed: false })
    }
    fn publications(&self, _mount: &str, topics: &[String], after: u64, _bytes_max: u64) -> Result<Published, Error> {
        let kept = self.0.kept.borrow();
        let is_wanted =
            |(position, publication): &&(u64, Publication)| *position > after && (topics.is_empty() || topics.contains(&publication.topic));
        let publications = kept.publications.iter().filter(is_wanted).cloned().collect();
        Ok(Published { publications, next: kept.newest().max(after), missed: kept.missed })
    }
    fn positions(&self, mounts: &[String]) -> Result<Vec<u64>, Error> {
        Ok(mounts.iter().map(|_| self.0.kept.borrow().newest()).collect())
    }
    fn sent_topic(&self) -> String {
        "sent".into()
    }
    fn renew(&self, _mount: &str, connections: &[u64]) -> Result<(), Error> {
        self.0.calls.borrow_mut().push(format!("renew {connections:?}"));
        Ok(())
    }
    fn gone(&self, _mount: &str, connections: &[u64]) -> Result<(), Error> {
        self.0.calls.borrow_mut().push(format!("gone {connections:?}"));
        Ok(())
    }
    fn due_jobs(&self, limit: u32) -> Result<Vec<Job>, Error> {
        let mut kept = self.0.kept.borrow_mut();
        let count = kept.jobs.len().min(usize::try_from(limit).unwrap());
        Ok(kept.jobs.drain(..count).collect())
    }
    fn job_done(&self, job: &Job, cursor: Option<&[u8]>) -> Result<(), Error> {
        self.0.calls.borrow_mut().push(format!("job-done {} {cursor:?}", job.name));
        Ok(())
    }
    fn job_failed(&self, job: &Job) -> Result<(), Error> {
        self.0.calls.borrow_mut().push(format!("job-failed {}", job.name));
        Ok(())
    }
    fn deliver_posts(&self, _limit: u32) -> Result<Vec<FailedPost>, Error> {
        Ok(std::mem::take(&mut self.0.kept.borrow_mut().failed_posts))
    }
    fn next_due(&self) -> Result<Option<u64>, Error> {
        let kept = self.0.kept.borrow();
        Ok((!kept.jobs.is_empty() || !kept.failed_posts.is_empty() || kept.taken_by_others).then_some(0))
    }
    fn upload(&self, _mount: &str, key: &str, _type: &str, sha256: Option<&str>, bytes_max: u64) -> Box<dyn Upload> {
        Box::new(TestUpload {
            world: self.0.clone(),
            key: key.into(),
            sha256: sha256.map(Into::into),
            bytes_max,
            bytes: RefCell::default(),
        })
    }
    fn download(&self, _mount: &str, key: &str, _range: Option<ByteRange>) -> Result<Option<Box<dyn Download>>, Error> {
        let found = self.0.kept.borrow().objects.get(key).cloned();
        Ok(found.map(|content| Box::new(TestDownload { content, at: Cell::new(0) }) as Box<dyn Download>))
    }
    fn hold(&self, name: &str, holder: &str, limit: u32, lease_ms: u64) -> Result<bool, Error> {
        let now_ms = self.0.now_ms.get();
        let places = &mut self.0.kept.borrow_mut().places;
        places.retain(|_, until_ms| *until_ms > now_ms);
        let mine = (name.to_owned(), holder.to_owned());
        let taken = places.keys().filter(|place| place.0 == name && **place != mine).count();
        let free = taken < usize::try_from(limit).unwrap();
        if free {
            places.insert(mine, now_ms + lease_ms);
        }
        Ok(free)
    }
    fn release(&self, name: &str, holder: &str) -> Result<(), Error> {
        self.0.kept.borrow_mut().places.remove(&(name.to_owned(), holder.to_owned()));
        Ok(())
    }
    fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.kept.borrow().answers.get(key).cloned())
    }
    fn remember(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.0.kept.borrow_mut().answers.insert(key.into(), value.to_vec());
        Ok(())
    }
}

struct TestUpload {
    world: Rc<World>,
    key: String,
    sha256: Option<String>,
    bytes_max: u64,
    bytes: RefCell<Vec<u8>>,
}

impl Upload for TestUpload {
    fn write(&self, bytes: &[u8]) -> Result<(), UploadFailure> {
        self.bytes.borrow_mut().extend_from_slice(bytes);
        if self.bytes.borrow().len() as u64 > self.bytes_max { Err(UploadFailure::TooLarge) } else { Ok(()) }
    }
    fn finish(self: Box<Self>) -> Result<Stored, UploadFailure> {
        if self.sha256.is_some_and(|expected| expected != "right") {
            return Err(UploadFailure::WrongHash);
        }
        let bytes = self.bytes.take();
        let size = bytes.len() as u64;
        let existed = self.world.kept.borrow_mut().objects.insert(self.key, bytes).is_some();
        Ok(Stored { size, sha256: "right".into(), existed })
    }
}

struct TestDownload {
    content: Vec<u8>,
    at: Cell<usize>,
}

impl Download for TestDownload {
    fn length(&self) -> u64 {
        self.content.len() as u64
    }
    fn info(&self) -> ObjectInfo {
        ObjectInfo { size: self.length(), content_type: String::new(), sha256: None, created: 0, etag: String::new() }
    }
    fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let (start, end) = (self.at.get(), (self.at.get() + 4).min(self.content.len()));
        self.at.set(end);
        Ok((start < end).then(|| self.content[start..end].to_vec()))
    }
}

pub(crate) struct TestClock(Rc<World>);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.get()
    }
    fn unix_ms(&self) -> u64 {
        self.0.now_ms.get()
    }
    fn random(&self) -> u64 {
        self.0.next_random()
    }
    async fn sleep(&self, delay_ms: u64) {
        self.0.advance(delay_ms.max(1));
    }
}

/// A client.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) body: VecDeque<Result<Vec<u8>, Unread>>,
    pub(crate) head: Option<AnswerHead>,
    /// What came, and when.
    pub(crate) pieces: Vec<(u64, String)>,
    /// All of it as it came.
    pub(crate) raw: Vec<u8>,
    /// None: it is not over. Else whether the body was whole.
    pub(crate) finished: Option<bool>,
    /// It is gone after so many pieces.
    pub(crate) gone_after: Option<usize>,
    pub(crate) world: Option<Rc<World>>,
}

impl Client {
    pub(crate) fn status(&self) -> u16 {
        self.head.as_ref().expect("an answer").status
    }

    pub(crate) fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let headers = &self.head.as_ref().expect("an answer").headers;
        let header = headers.iter().find(|header| header.name == name)?;
        Some(String::from_utf8(header.value.clone()).unwrap())
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        if self.gone_after == Some(self.pieces.len()) {
            return Err(Gone);
        }
        self.raw.extend_from_slice(&bytes);
        if !bytes.is_empty() {
            let now_ms = self.world.as_ref().map_or(0, |world| world.now_ms.get());
            self.pieces.push((now_ms, String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(())
    }
}

impl Exchange for Client {
    async fn read(&mut self, _patience_ms: u64) -> Result<Option<Vec<u8>>, Unread> {
        self.body.pop_front().transpose()
    }
    async fn answer(&mut self, head: AnswerHead, body: Vec<u8>) {
        assert!(self.head.replace(head).is_none(), "answered once");
        self.finished = Some(self.take(body).is_ok());
    }
    async fn begin(&mut self, head: AnswerHead, first: Vec<u8>) -> Result<(), Gone> {
        assert!(self.head.replace(head).is_none(), "answered once");
        self.take(first)
    }
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.take(bytes)
    }
    async fn finish(&mut self, whole: bool) {
        assert!(self.finished.replace(whole).is_none());
    }
}

/// A front over a world.
pub(crate) fn front(world: &Rc<World>, config: &str) -> Front<TestClock> {
    Front::new(TestClock(world.clone()), Box::new(TestLogic(world.clone())), Box::new(TestAdapter(world.clone())), Ok(config.into()))
}

/// The configuration of most tests.
pub(crate) const CONFIG: &str =
    r#"{"mount": [{"name": "notes", "protocol": "plasma"}], "gateway": {"secret": "g"}, "tick_token": "t", "limits": {"streams": 2}}"#;

pub(crate) fn incoming(method: &str, path: &str, headers: &[(&str, &str)]) -> Incoming {
    Incoming {
        method: method.into(),
        path_with_query: path.into(),
        authority: Some("here".into()),
        secure: false,
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    }
}

/// A request to its end.
pub(crate) fn served(world: &Rc<World>, request: Incoming, client: Client) -> Client {
    served_by(&front(world, CONFIG), world, request, client)
}

/// A request to the end of its instance.
pub(crate) fn served_by(front: &Front<TestClock>, world: &Rc<World>, request: Incoming, mut client: Client) -> Client {
    client.world = Some(world.clone());
    run(front.serve(request, &mut client));
    client
}

/// A request by GET.
pub(crate) fn get(world: &Rc<World>, path: &str) -> Client {
    served(world, incoming("GET", path, &[]), Client::default())
}

/// A request with a body.
pub(crate) fn post(world: &Rc<World>, path: &str, headers: &[(&str, &str)], pieces: &[&[u8]]) -> Client {
    let body = pieces.iter().map(|piece| Ok(piece.to_vec())).collect();
    served(world, incoming("POST", path, headers), Client { body, ..Client::default() })
}

/// Runs what waits for nothing but the clock of the world.
fn run(future: impl Future<Output = ()>) {
    let ready = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(ready, Poll::Ready(()));
}
