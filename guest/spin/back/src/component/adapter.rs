//! The exports of `syncline:spin`.

use std::cell::RefCell;

use super::{Component, back};
use crate::bindings::exports::syncline::host::storage::{ByteRange, Error as StorageError, ObjectInfo};
use crate::bindings::exports::syncline::spin::{adapter, guard};
use crate::objects::{Download, Upload};
use crate::store::jobs;

/// A body that becomes an object; none where it cannot.
pub(super) struct OpenUpload(RefCell<Option<Upload>>);

/// An object that is read.
pub(super) struct OpenDownload(RefCell<Download>);

fn job(job: adapter::Job) -> jobs::Job {
    jobs::Job { mount: job.mount, name: job.name, payload: job.payload, cursor: job.cursor, id: job.id }
}

impl adapter::Guest for Component {
    type Upload = OpenUpload;
    type Download = OpenDownload;

    fn open(settings: adapter::Settings) -> Result<(), adapter::Error> {
        back(|back| back.open(settings))
    }

    fn know(mount: adapter::Mount) {
        back(|back| back.know(mount));
    }

    fn documents(mount: String) -> Result<(u64, Vec<(String, Vec<u8>)>), adapter::Error> {
        back(|back| back.documents(&mount))
    }

    fn claim_start(mount: String, revision: String) -> Result<adapter::Start, adapter::Error> {
        back(|back| back.claim_start(&mount, &revision))
    }

    fn started(mount: String, revision: String, cursor: Option<Vec<u8>>) -> Result<(), adapter::Error> {
        back(|back| back.started(&mount, &revision, cursor.as_deref()))
    }

    fn start_failed(mount: String) {
        back(|back| back.start_failed(&mount));
    }

    fn begin(mount: String, long: bool) {
        back(|back| back.begin(&mount, long));
    }

    fn end(failed: bool) -> Result<adapter::Ended, adapter::Error> {
        back(|back| back.end(failed))
    }

    fn publications(mount: String, topics: Vec<String>, after: u64, bytes_max: u64) -> Result<adapter::Published, adapter::Error> {
        let found = back(|back| back.publications(&mount, &topics, after, bytes_max))?;
        Ok(adapter::Published { publications: found.publications, next: found.next, missed: found.missed })
    }

    fn positions(mounts: Vec<String>) -> Result<Vec<u64>, adapter::Error> {
        back(|back| back.positions(&mounts))
    }

    fn sent_topic() -> String {
        crate::SENT_TOPIC.to_owned()
    }

    fn renew(mount: String, connections: Vec<u64>) -> Result<(), adapter::Error> {
        back(|back| back.renew(&mount, &connections))
    }

    fn gone(mount: String, connections: Vec<u64>) -> Result<(), adapter::Error> {
        back(|back| back.gone(&mount, &connections))
    }

    fn due_jobs(limit: u32) -> Result<Vec<adapter::Job>, adapter::Error> {
        let found = back(|back| back.due_jobs(limit))?;
        let job = |job: jobs::Job| adapter::Job { mount: job.mount, name: job.name, payload: job.payload, cursor: job.cursor, id: job.id };
        Ok(found.into_iter().map(job).collect())
    }

    fn job_done(done: adapter::Job, cursor: Option<Vec<u8>>) -> Result<(), adapter::Error> {
        back(|back| back.job_done(&job(done), cursor.as_deref()))
    }

    fn job_failed(failed: adapter::Job) -> Result<(), adapter::Error> {
        back(|back| back.job_failed(&job(failed)))
    }

    fn deliver_posts(limit: u32) -> Result<Vec<adapter::FailedPost>, adapter::Error> {
        back(|back| back.deliver_posts(limit))
    }

    fn next_due() -> Result<Option<u64>, adapter::Error> {
        back(|back| back.next_due())
    }

    fn hold(name: String, holder: String, limit: u32, lease_ms: u64) -> Result<bool, adapter::Error> {
        back(|back| back.hold(&name, &holder, limit, lease_ms))
    }

    fn release(name: String, holder: String) -> Result<(), adapter::Error> {
        back(|back| back.release_place(&name, &holder))
    }

    fn recall(key: String) -> Result<Option<Vec<u8>>, adapter::Error> {
        back(|back| back.recall(&key))
    }

    fn remember(key: String, value: Vec<u8>) -> Result<(), adapter::Error> {
        back(|back| back.remember(&key, &value))
    }
}

impl adapter::GuestUpload for OpenUpload {
    fn new(mount: String, key: String, content_type: String, sha256: Option<String>, max_bytes: u64) -> Self {
        let begun = back(|back| match Upload::new(back, mount, key, content_type, sha256, max_bytes) {
            Ok(upload) => Some(upload),
            Err(error) => {
                back.log_own("warn", "a body cannot become an object", &[("error", &format!("{error:?}"))]);
                None
            }
        });
        Self(RefCell::new(begun))
    }

    fn write(&self, bytes: Vec<u8>) -> Result<(), adapter::UploadFailure> {
        match self.0.borrow_mut().as_mut() {
            Some(upload) => back(|back| upload.write(back, &bytes)),
            None => Err(adapter::UploadFailure::Unavailable),
        }
    }

    fn finish(this: adapter::Upload) -> Result<adapter::Stored, adapter::UploadFailure> {
        let open: Self = this.into_inner();
        match open.0.into_inner() {
            Some(upload) => back(|back| upload.finish(back)),
            None => Err(adapter::UploadFailure::Unavailable),
        }
    }
}

fn read_error(error: StorageError) -> adapter::Error {
    adapter::Error::Unavailable(match error {
        StorageError::NotFound => "the object is gone".into(),
        StorageError::Conflict => "the object is another".into(),
        StorageError::Limit(what) | StorageError::Unavailable(what) => what,
    })
}

impl adapter::GuestDownload for OpenDownload {
    fn open(mount: String, key: String, range: Option<ByteRange>) -> Result<Option<adapter::Download>, adapter::Error> {
        let range = range.map(|range| (range.start, range.length));
        let found = back(|back| Download::open(back, mount, key, range)).map_err(read_error)?;
        Ok(found.map(|download| adapter::Download::new(Self(RefCell::new(download)))))
    }

    fn length(&self) -> u64 {
        self.0.borrow().length()
    }

    fn info(&self) -> ObjectInfo {
        self.0.borrow().info().clone()
    }

    fn read(&self) -> Result<Option<Vec<u8>>, adapter::Error> {
        self.0.borrow_mut().read().map_err(read_error)
    }
}

impl guard::Guest for Component {
    fn suspicious(key: String) -> bool {
        back(|back| back.suspicious(&key))
    }

    fn begin_attempt(key: String) -> u32 {
        back(|back| back.begin_attempt(&key))
    }

    fn end_attempt(key: String) {
        back(|back| back.end_attempt(&key));
    }
}
