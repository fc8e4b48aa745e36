//! What the front stands on, as traits: the logic and the back adapter, which are imports of the component, and the request and the
//! clock, which differ between the two kinds of handlers.

use std::future::Future;

use crate::bindings::syncline::host::executor::Snapshot;
use crate::bindings::syncline::host::pubsub::Publication;
use crate::bindings::syncline::host::storage::{ByteRange, ObjectInfo};
use crate::bindings::syncline::host::types::{Header, RequestHead};
use crate::bindings::syncline::spin::adapter::{Ended, Error, FailedPost, Job, Mount, Published, Settings, Start, Stored, UploadFailure};
use crate::bindings::syncline::sync::http::{Admission, BodyIn, Response};
use crate::bindings::syncline::sync::live::{Connection, Failure, Outcome};
use crate::bindings::syncline::sync::mounts::Plan;
use crate::bindings::syncline::sync::socket::{Deliveries, Group, Input, UpgradeResult};

/// What a step of something long gives: where the next one goes on, or none at the end.
pub type Cursor = Option<Vec<u8>>;
/// Documents by name, and the number that grows when one of them changes.
pub type Documents = (u64, Vec<(String, Vec<u8>)>);

/// The logic (`wit/handler.wit`): there stands what each call means.
pub trait Logic {
    /// `mounts.check`.
    fn check(&self, protocol: &str, settings: &str) -> Result<Plan, Vec<String>>;
    /// `mounts.configure`.
    fn configure(&self, mount: &str, protocol: &str, revision: u64, settings: &str, documents: &[(String, Vec<u8>)]) -> Result<(), String>;
    /// `mounts.start`.
    fn start(&self, mount: &str, cursor: Option<&[u8]>) -> Result<Cursor, String>;
    /// `http.admit`.
    fn admit(&self, mount: &str, connection: u64, head: &RequestHead) -> Admission;
    /// `http.handle`.
    fn handle(
        &self,
        mount: &str,
        connection: u64,
        head: &RequestHead,
        context: Option<&[u8]>,
        body: &BodyIn,
        failure: Option<Failure>,
    ) -> Response;
    /// `http.resume`.
    fn resume(&self, mount: &str, connection: u64, state: &[u8]) -> Response;
    /// `http.generate`.
    fn generate(&self, mount: &str, cursor: &[u8], view: Option<&Snapshot>) -> Result<(Vec<u8>, Cursor), String>;
    /// `socket.upgrade`.
    fn upgrade(&self, mount: &str, connection: u64, head: &RequestHead) -> UpgradeResult;
    /// `socket.receive`.
    fn receive(&self, mount: &str, connection: &Connection, inputs: &[Input]) -> Outcome;
    /// `socket.task`.
    fn task(&self, mount: &str, connection: &Connection, work: &[u8]) -> Vec<u8>;
    /// `socket.closed`.
    fn closed(&self, mount: &str, connection: &Connection, code: u16);
    /// `socket.deliver`.
    fn deliver(&self, mount: &str, publication: &Publication, groups: &[Group]) -> Deliveries;
    /// `socket.refill`.
    fn refill(&self, mount: &str, topic: &str, key: &str, after: u64) -> Vec<Publication>;
    /// `timer.post-failed`.
    fn post_failed(&self, mount: &str, connection: u64, post: &FailedPost);
    /// `timer.fire`.
    fn fire(&self, mount: &str, name: &str, payload: &[u8], cursor: Option<&[u8]>) -> Cursor;
}

/// The back adapter (`wit/deps/spin/adapter.wit`): there stands what each call means.
pub trait Adapter {
    /// `open`.
    fn open(&self, settings: &Settings) -> Result<(), Error>;
    /// `know`.
    fn know(&self, mount: &Mount);
    /// `documents`.
    fn documents(&self, mount: &str) -> Result<Documents, Error>;
    /// `claim-start`.
    fn claim_start(&self, mount: &str, revision: &str) -> Result<Start, Error>;
    /// `started`.
    fn started(&self, mount: &str, revision: &str, cursor: Option<&[u8]>) -> Result<(), Error>;
    /// `start-failed`.
    fn start_failed(&self, mount: &str);
    /// `begin`.
    fn begin(&self, mount: &str, long: bool);
    /// `end`.
    fn end(&self, failed: bool) -> Result<Ended, Error>;
    /// `publications`.
    fn publications(&self, mount: &str, topics: &[String], after: u64, bytes_max: u64) -> Result<Published, Error>;
    /// `positions`.
    fn positions(&self, mounts: &[String]) -> Result<Vec<u64>, Error>;
    /// `sent-topic`.
    fn sent_topic(&self) -> String;
    /// `renew`.
    fn renew(&self, mount: &str, connections: &[u64]) -> Result<(), Error>;
    /// `gone`.
    fn gone(&self, mount: &str, connections: &[u64]) -> Result<(), Error>;
    /// `due-jobs`.
    fn due_jobs(&self, limit: u32) -> Result<Vec<Job>, Error>;
    /// `job-done`.
    fn job_done(&self, job: &Job, cursor: Option<&[u8]>) -> Result<(), Error>;
    /// `job-failed`.
    fn job_failed(&self, job: &Job) -> Result<(), Error>;
    /// `deliver-posts`.
    fn deliver_posts(&self, limit: u32) -> Result<Vec<FailedPost>, Error>;
    /// `next-due`.
    fn next_due(&self) -> Result<Option<u64>, Error>;
    /// The resource `upload`.
    fn upload(&self, mount: &str, key: &str, content_type: &str, sha256: Option<&str>, bytes_max: u64) -> Box<dyn Upload>;
    /// The resource `download`; none where there is no such object.
    fn download(&self, mount: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Box<dyn Download>>, Error>;
    /// `hold`.
    fn hold(&self, name: &str, holder: &str, limit: u32, lease_ms: u64) -> Result<bool, Error>;
    /// `release`.
    fn release(&self, name: &str, holder: &str) -> Result<(), Error>;
    /// `recall`.
    fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// `remember`.
    fn remember(&self, key: &str, value: &[u8]) -> Result<(), Error>;
}

/// A body that becomes an object.
pub trait Upload {
    /// Takes the next bytes.
    fn write(&self, bytes: &[u8]) -> Result<(), UploadFailure>;
    /// Makes it visible.
    fn finish(self: Box<Self>) -> Result<Stored, UploadFailure>;
}

/// An object that is read piece by piece.
pub trait Download {
    /// How many bytes will come.
    fn length(&self) -> u64;
    /// What the object is.
    fn info(&self) -> ObjectInfo;
    /// The next bytes; none at the end.
    fn read(&self) -> Result<Option<Vec<u8>>, Error>;
}

/// Time and randomness of an instance.
pub trait Clock {
    /// Milliseconds of a clock that only goes forward.
    fn now_ms(&self) -> u64;
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// Any number.
    fn random(&self) -> u64;
    /// Waits.
    fn sleep(&self, delay_ms: u64) -> impl Future<Output = ()>;
}

/// The head of a request as Spin gives it.
#[derive(Clone)]
pub struct Incoming {
    /// In upper case.
    pub method: String,
    /// As received.
    pub path_with_query: String,
    /// Where it was sent to.
    pub authority: Option<String>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// In order, those that Spin adds among them.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The head of an answer.
pub struct AnswerHead {
    /// As in HTTP.
    pub status: u16,
    /// In order, `content-length` among them where it is known.
    pub headers: Vec<Header>,
    /// Whether a body follows. Where none does (HEAD, 204, 304) `content-length` says what would.
    pub has_body: bool,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Nothing came for too long.
    #[error("the body came too slowly")]
    TooSlow,
    /// It broke off.
    #[error("the body broke off")]
    Broken,
}

/// The client has gone, or takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// A request, and the way of its answer. Answered exactly once: by [`Exchange::answer`], or by [`Exchange::begin`] and what follows.
pub trait Exchange {
    /// The next bytes of the body; none at the end.
    fn read(&mut self, patience_ms: u64) -> impl Future<Output = Result<Option<Vec<u8>>, Unread>>;
    /// The whole answer.
    fn answer(&mut self, head: AnswerHead, body: Vec<u8>) -> impl Future<Output = ()>;
    /// The beginning of an answer, with the first bytes of its body (perhaps none yet).
    fn begin(&mut self, head: AnswerHead, first: Vec<u8>) -> impl Future<Output = Result<(), Gone>>;
    /// The next bytes. Returns when they are taken.
    fn write(&mut self, bytes: Vec<u8>) -> impl Future<Output = Result<(), Gone>>;
    /// The end; where the body is not whole the client sees it broken off.
    fn finish(&mut self, whole: bool) -> impl Future<Output = ()>;
}
