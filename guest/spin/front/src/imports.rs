//! The traits of [`crate::ports`] over the imports of the component.

use crate::bindings::syncline::host::executor::Snapshot;
use crate::bindings::syncline::host::pubsub::Publication;
use crate::bindings::syncline::host::storage::{ByteRange, ObjectInfo};
use crate::bindings::syncline::host::types::RequestHead;
use crate::bindings::syncline::spin::adapter::{
    self, Ended, Error, FailedPost, Job, Mount, Published, Settings, Start, Stored, UploadFailure,
};
use crate::bindings::syncline::sync::http::{self, Admission, BodyIn, Response};
use crate::bindings::syncline::sync::live::{Connection, Failure, Outcome};
use crate::bindings::syncline::sync::mounts::{self, Plan};
use crate::bindings::syncline::sync::socket::{self, Deliveries, Group, Input, UpgradeResult};
use crate::bindings::syncline::sync::timer;
use crate::ports::{Adapter, Cursor, Documents, Download, Logic, Upload};

/// The Spin variable that holds the configuration.
pub fn config() -> Result<String, String> {
    use crate::bindings::fermyon::spin::variables;

    variables::get("config").map_err(|error| match error {
        variables::Error::Undefined(_) => "the manifest gives the component no variable `config`".into(),
        variables::Error::InvalidName(text) | variables::Error::Provider(text) | variables::Error::Other(text) => text,
    })
}

/// The logic that the component was composed with.
pub struct ImportedLogic;

impl Logic for ImportedLogic {
    fn check(&self, protocol: &str, settings: &str) -> Result<Plan, Vec<String>> {
        mounts::check(protocol, settings)
    }

    fn configure(&self, mount: &str, protocol: &str, revision: u64, settings: &str, documents: &[(String, Vec<u8>)]) -> Result<(), String> {
        mounts::configure(mount, protocol, revision, settings, documents)
    }

    fn start(&self, mount: &str, cursor: Option<&[u8]>) -> Result<Cursor, String> {
        mounts::start(mount, cursor)
    }

    fn admit(&self, mount: &str, connection: u64, head: &RequestHead) -> Admission {
        http::admit(mount, connection, head)
    }

    fn handle(
        &self,
        mount: &str,
        connection: u64,
        head: &RequestHead,
        context: Option<&[u8]>,
        body: &BodyIn,
        failure: Option<Failure>,
    ) -> Response {
        http::handle(mount, connection, head, context, body, failure)
    }

    fn resume(&self, mount: &str, connection: u64, state: &[u8]) -> Response {
        http::resume(mount, connection, state)
    }

    fn generate(&self, mount: &str, cursor: &[u8], view: Option<&Snapshot>) -> Result<(Vec<u8>, Cursor), String> {
        http::generate(mount, cursor, view)
    }

    fn upgrade(&self, mount: &str, connection: u64, head: &RequestHead) -> UpgradeResult {
        socket::upgrade(mount, connection, head)
    }

    fn receive(&self, mount: &str, connection: &Connection, inputs: &[Input]) -> Outcome {
        socket::receive(mount, connection, inputs)
    }

    fn task(&self, mount: &str, connection: &Connection, work: &[u8]) -> Vec<u8> {
        socket::task(mount, connection, work)
    }

    fn closed(&self, mount: &str, connection: &Connection, code: u16) {
        socket::closed(mount, connection, code);
    }

    fn deliver(&self, mount: &str, publication: &Publication, groups: &[Group]) -> Deliveries {
        socket::deliver(mount, publication, groups)
    }

    fn refill(&self, mount: &str, topic: &str, key: &str, after: u64) -> Vec<Publication> {
        socket::refill(mount, topic, key, after)
    }

    fn post_failed(&self, mount: &str, connection: u64, post: &FailedPost) {
        let FailedPost { url, body, attempts, given_up, error, mount: _ } = post.clone();
        timer::post_failed(mount, connection, &timer::FailedPost { url, body, attempts, given_up, error });
    }

    fn fire(&self, mount: &str, name: &str, payload: &[u8], cursor: Option<&[u8]>) -> Cursor {
        timer::fire(mount, name, payload, cursor)
    }
}

/// The back adapter that the component was composed with.
pub struct ImportedAdapter;

impl Adapter for ImportedAdapter {
    fn open(&self, settings: &Settings) -> Result<(), Error> {
        adapter::open(settings)
    }

    fn know(&self, mount: &Mount) {
        adapter::know(mount);
    }

    fn documents(&self, mount: &str) -> Result<Documents, Error> {
        adapter::documents(mount)
    }

    fn claim_start(&self, mount: &str, revision: &str) -> Result<Start, Error> {
        adapter::claim_start(mount, revision)
    }

    fn started(&self, mount: &str, revision: &str, cursor: Option<&[u8]>) -> Result<(), Error> {
        adapter::started(mount, revision, cursor)
    }

    fn start_failed(&self, mount: &str) {
        adapter::start_failed(mount);
    }

    fn begin(&self, mount: &str, long: bool) {
        adapter::begin(mount, long);
    }

    fn end(&self, failed: bool) -> Result<Ended, Error> {
        adapter::end(failed)
    }

    fn publications(&self, mount: &str, topics: &[String], after: u64, bytes_max: u64) -> Result<Published, Error> {
        adapter::publications(mount, topics, after, bytes_max)
    }

    fn positions(&self, mounts: &[String]) -> Result<Vec<u64>, Error> {
        adapter::positions(mounts)
    }

    fn sent_topic(&self) -> String {
        adapter::sent_topic()
    }

    fn renew(&self, mount: &str, connections: &[u64]) -> Result<(), Error> {
        adapter::renew(mount, connections)
    }

    fn gone(&self, mount: &str, connections: &[u64]) -> Result<(), Error> {
        adapter::gone(mount, connections)
    }

    fn due_jobs(&self, limit: u32) -> Result<Vec<Job>, Error> {
        adapter::due_jobs(limit)
    }

    fn job_done(&self, job: &Job, cursor: Option<&[u8]>) -> Result<(), Error> {
        adapter::job_done(job, cursor)
    }

    fn job_failed(&self, job: &Job) -> Result<(), Error> {
        adapter::job_failed(job)
    }

    fn deliver_posts(&self, limit: u32) -> Result<Vec<FailedPost>, Error> {
        adapter::deliver_posts(limit)
    }

    fn next_due(&self) -> Result<Option<u64>, Error> {
        adapter::next_due()
    }

    fn upload(&self, mount: &str, key: &str, content_type: &str, sha256: Option<&str>, bytes_max: u64) -> Box<dyn Upload> {
        Box::new(adapter::Upload::new(mount, key, content_type, sha256, bytes_max))
    }

    fn download(&self, mount: &str, key: &str, range: Option<ByteRange>) -> Result<Option<Box<dyn Download>>, Error> {
        let download = adapter::Download::open(mount, key, range)?;
        Ok(download.map(|download| Box::new(download) as Box<dyn Download>))
    }

    fn hold(&self, name: &str, holder: &str, limit: u32, lease_ms: u64) -> Result<bool, Error> {
        adapter::hold(name, holder, limit, lease_ms)
    }

    fn release(&self, name: &str, holder: &str) -> Result<(), Error> {
        adapter::release(name, holder)
    }

    fn recall(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        adapter::recall(key)
    }

    fn remember(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        adapter::remember(key, value)
    }
}

impl Upload for adapter::Upload {
    fn write(&self, bytes: &[u8]) -> Result<(), UploadFailure> {
        adapter::Upload::write(self, bytes)
    }

    fn finish(self: Box<Self>) -> Result<Stored, UploadFailure> {
        adapter::Upload::finish(*self)
    }
}

impl Download for adapter::Download {
    fn length(&self) -> u64 {
        adapter::Download::length(self)
    }

    fn info(&self) -> ObjectInfo {
        adapter::Download::info(self)
    }

    fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        adapter::Download::read(self)
    }
}
