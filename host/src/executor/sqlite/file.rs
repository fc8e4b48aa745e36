//! One database file: its writer, the queue in front of it, the flush of groups, and its readers.
//!
//! Order of a group's end: COMMIT with its fsync on a thread of its own, then the observer is told, then the machine
//! goes on. So no later group can be told of first, and nobody writes while a flush runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use super::SqliteSettings;
use super::connection::Link;
use super::folder::{FolderLock, create_folder};
use super::format::{FileIdentity, named};
use super::snapshot::OpenSnapshots;
use super::space::MountSpace;
use super::statement::{ResultLimits, executor_error};
use super::worker::Threads;
use crate::executor::group::{Ending, Flush, GroupCommit, GroupLimits, Step, Ticket};
use crate::executor::{DatabaseName, ExecutorError, GroupObserver, Hold};

/// What everything that belongs to one file shares.
pub(super) struct DatabaseFile {
    pub(super) name: DatabaseName,
    pub(super) settings: Arc<SqliteSettings>,
    pub(super) path: PathBuf,
    /// The file that was opened first: never write to, or read from, another one.
    identity: FileIdentity,
    observer: Arc<dyn GroupObserver>,
    /// How much the file holds, for the sum of its mount.
    space: Arc<MountSpace>,
    /// Pages of the file that hold nothing, after the last commit.
    pub(super) free_pages: AtomicU64,
    /// The log is to be cut when nobody is in the way.
    pub(super) log_to_cut: AtomicBool,
    /// Why the last commit failed, until one works.
    failure: Mutex<Option<String>>,
    pub(super) snapshots: OpenSnapshots,
    _lock: Arc<FolderLock>,
    /// Where blocking calls go, also from a `drop` outside of any task.
    runtime: Threads,
    epoch: Instant,
    state: Mutex<State>,
    /// Notified whenever the writer comes to rest.
    rested: Notify,
    /// One permit per reader in use.
    pub(super) reader_permits: Arc<Semaphore>,
}

/// What it takes to open a file.
pub(super) struct Opening {
    pub(super) path: PathBuf,
    pub(super) settings: Arc<SqliteSettings>,
    pub(super) observer: Arc<dyn GroupObserver>,
    pub(super) space: Arc<MountSpace>,
    /// Kept as long as the file may be written.
    pub(super) lock: Arc<FolderLock>,
}

struct State {
    machine: GroupCommit<oneshot::Sender<Granted>>,
    /// The writer, while nobody has it. None: to be opened by who is next.
    writer: Option<Link>,
    readers_idle: Vec<Link>,
    used_ms: u64,
    closed: bool,
}

/// What a waiter learns when it is its turn.
#[derive(Debug)]
struct Granted {
    group: u64,
    first: bool,
}

impl DatabaseFile {
    /// Opens a file, making it and its folder where there is none. Blocks.
    pub(super) fn open(name: DatabaseName, opening: Opening, runtime: Threads) -> Result<Self, ExecutorError> {
        let Opening { path, settings, observer, space, lock } = opening;
        let writer = open_first(&path, &settings)?;
        let identity = FileIdentity::of(&path).map_err(|error| ExecutorError::Unavailable(format!("{}: {error}", path.display())))?;
        let limits = GroupLimits { transactions_max: settings.group_transactions_max, age_ms_max: settings.group_ms_max };
        let state = State { machine: GroupCommit::new(limits), writer: Some(writer), readers_idle: Vec::new(), used_ms: 0, closed: false };
        let reader_permits = Arc::new(Semaphore::new(settings.readers_max.max(1) as usize));
        let file = Self {
            name,
            settings,
            path,
            identity,
            observer,
            space,
            free_pages: AtomicU64::new(0),
            log_to_cut: AtomicBool::new(false),
            failure: Mutex::default(),
            snapshots: OpenSnapshots::default(),
            _lock: lock,
            runtime,
            epoch: Instant::now(),
            state: Mutex::new(state),
            rested: Notify::new(),
            reader_permits,
        };
        if let Some(writer) = &file.state.lock().writer {
            file.measure(writer);
        }
        Ok(file)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn result_limits(&self) -> ResultLimits {
        ResultLimits { rows_max: self.settings.rows_max, bytes_max: self.settings.result_bytes_max }
    }

    /// Does what the machine said. Called with the state locked, so that steps are taken in the order they were given;
    /// none of it blocks.
    fn take(self: &Arc<Self>, state: &mut State, step: Step<oneshot::Sender<Granted>>) {
        match step {
            Step::Rest => self.rested.notify_waiters(),
            Step::Linger { until_ms } => {
                let file = Arc::clone(self);
                let wait = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
                self.runtime.spawn(async move {
                    tokio::time::sleep(wait).await;
                    let mut state = file.state.lock();
                    let step = state.machine.tick(file.now_ms());
                    file.take(&mut state, step);
                });
            }
            Step::Grant { waiter, group, first, .. } => {
                // If nobody listens any more, the waiter's `Turn` is about to be dropped, and ends what it was given.
                let _ = waiter.send(Granted { group, first });
            }
            Step::Flush { group, flush } => {
                let writer = state.writer.take();
                let file = Arc::clone(self);
                self.runtime.flush(&self.name, move || file.flush(writer, group, flush));
            }
        }
    }

    /// Brings a group to its end. Blocks. What comes back tells those who rest on it, then lets the next one begin.
    fn flush(self: Arc<Self>, writer: Option<Link>, group: u64, flush: Flush) -> impl FnOnce() + Send {
        let (durable, writer) = match (flush, writer) {
            (Flush::Commit, Some(writer)) => self.commit(writer, group),
            (Flush::Commit, None) => (false, None),
            (Flush::Nothing, writer) => (true, writer.and_then(|writer| self.clear(writer))),
            (Flush::Lost, writer) => (false, writer.and_then(|writer| self.clear(writer))),
        };
        move || self.flushed(writer, group, durable)
    }

    fn flushed(self: Arc<Self>, writer: Option<Link>, group: u64, durable: bool) {
        let tell = || self.observer.settled(&self.name, group, durable);
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            tracing::error!(mount = self.name.mount, database = self.name.name, group, "the observer of a group panicked");
        }
        let mut state = self.state.lock();
        state.writer = writer;
        let step = state.machine.flushed(self.now_ms());
        self.take(&mut state, step);
    }

    fn commit(&self, writer: Link, group: u64) -> (bool, Option<Link>) {
        let Err(error) = self.try_commit(&writer) else {
            self.measure(&writer);
            self.failure.lock().take();
            return (true, Some(writer));
        };
        self.failed(&error);
        tracing::error!(mount = self.name.mount, database = self.name.name, group, error, "a group was not committed and is lost");
        // Whether the connection can still be trusted after a failed fsync is not for us to find out: a new one starts
        // from what is on disk.
        let _ = self.clear(writer);
        (false, None)
    }

    fn try_commit(&self, writer: &Link) -> Result<(), String> {
        if writer.is_autocommit() {
            // COMMIT would be no more than an error; the group is gone.
            return Err("no transaction was open".to_owned());
        }
        self.identity.check(&self.path).map_err(|error| error.to_string())?;
        writer.own("COMMIT").map_err(|error| self.named(executor_error(error)).to_string())
    }

    /// Notes how much the file holds, and how much of it is free.
    fn measure(&self, writer: &Link) {
        let numbers = ["PRAGMA page_size", "PRAGMA page_count", "PRAGMA freelist_count"].map(|sql| writer.own_number(sql));
        let [Ok(page_bytes), Ok(page_count), Ok(free_pages)] = numbers else {
            tracing::warn!(mount = self.name.mount, database = self.name.name, "the size of a database cannot be told");
            return;
        };
        self.free_pages.store(free_pages, Ordering::Relaxed);
        self.space.set(&self.path, page_bytes * page_count.saturating_sub(free_pages));
    }

    /// Remembers that something could not be written, for whoever asks whether the file works.
    pub(super) fn failed(&self, error: &str) {
        *self.failure.lock() = Some(error.to_owned());
    }

    /// Why the last commit failed; none where it worked.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// An error with the name of the file, where it is about the file.
    pub(super) fn named(&self, error: ExecutorError) -> ExecutorError {
        named(&self.path, error)
    }

    /// Waits until no group is open and nothing is being written.
    pub(super) async fn rest(&self) {
        loop {
            let rested = self.rested.notified();
            tokio::pin!(rested);
            // Registered before the look at the state, so that a rest in between is not missed.
            rested.as_mut().enable();
            if self.state.lock().machine.is_idle() {
                return;
            }
            rested.await;
        }
    }

    /// Undoes what is open. None if the connection is no use any more.
    fn clear(&self, writer: Link) -> Option<Link> {
        if writer.is_autocommit() {
            return Some(writer);
        }
        match writer.own("ROLLBACK") {
            Ok(()) => Some(writer),
            Err(error) => {
                tracing::warn!(mount = self.name.mount, database = self.name.name, %error, "a broken connection is dropped");
                None
            }
        }
    }

    fn refuse_if_closed(&self, state: &State) -> Result<(), ExecutorError> {
        if state.closed { Err(closed()) } else { Ok(()) }
    }

    /// Lets a group linger for more, until the hold is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.state.lock().machine.hold();
        let file = Arc::clone(self);
        Hold::new(move || {
            let mut state = file.state.lock();
            let step = state.machine.unhold(file.now_ms());
            file.take(&mut state, step);
        })
    }

    /// An idle reader, or a new one.
    pub(super) async fn reader(&self) -> Result<Link, ExecutorError> {
        let idle = {
            let mut state = self.state.lock();
            self.refuse_if_closed(&state)?;
            state.used_ms = self.now_ms();
            state.readers_idle.pop()
        };
        match idle {
            Some(reader) => Ok(reader),
            None => {
                let (path, identity) = (self.path.clone(), self.identity);
                self.blocking(move || identity.check(&path).and_then(|()| Link::open_reader(&path))).await?
            }
        }
    }

    /// Takes a reader back, at rest.
    pub(super) fn return_reader(&self, reader: Link) {
        let mut state = self.state.lock();
        state.used_ms = self.now_ms();
        if !state.closed && state.readers_idle.len() < self.settings.readers_idle_max as usize {
            state.readers_idle.push(reader);
            return;
        }
        drop(state);
        self.drop_links(vec![reader]);
    }

    /// Closes connections. The last one of a file copies its log back, which takes a while.
    pub(super) fn drop_links(&self, links: Vec<Link>) {
        if !links.is_empty() {
            drop(self.runtime.spawn_blocking(move || drop(links)));
        }
    }

    pub(super) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ExecutorError> {
        let joined = self.runtime.spawn_blocking(work).await;
        joined.map_err(|error| ExecutorError::Unavailable(format!("the host is stopping: {error}")))
    }

    /// Closes the connections if nobody has used them for a while; whether it did.
    pub(super) fn close_if_idle(&self) -> bool {
        let mut state = self.state.lock();
        let idle = self.now_ms().saturating_sub(state.used_ms) >= self.settings.idle_close_ms;
        if !idle || !state.machine.is_idle() {
            return false;
        }
        let links: Vec<Link> = state.writer.take().into_iter().chain(state.readers_idle.drain(..)).collect();
        drop(state);
        let closed = !links.is_empty();
        self.drop_links(links);
        closed
    }

    /// Takes no more work, waits until the last group is settled and closes the connections.
    pub(super) async fn close(&self) {
        self.state.lock().closed = true;
        loop {
            let rested = self.rested.notified();
            tokio::pin!(rested);
            // Registered before the look at the state, so that a rest in between is not missed.
            rested.as_mut().enable();
            let refused = {
                let mut state = self.state.lock();
                if state.machine.is_idle() {
                    break;
                }
                state.machine.cancel_all()
            };
            drop(refused);
            rested.await;
        }
        let links: Vec<Link> = {
            let mut state = self.state.lock();
            state.writer.take().into_iter().chain(state.readers_idle.drain(..)).collect()
        };
        // An error means that the runtime is going away, and the connections with it.
        let _ = self.blocking(move || drop(links)).await;
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let links = state.writer.take().into_iter().chain(state.readers_idle.drain(..)).collect();
        self.drop_links(links);
    }
}

pub(super) fn closed() -> ExecutorError {
    ExecutorError::Unavailable("the host is stopping".to_owned())
}

/// Opens the writer of a file, making the file and its folder where there is none.
fn open_first(path: &Path, settings: &SqliteSettings) -> Result<Link, ExecutorError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| ExecutorError::Unavailable(format!("{}: {error}", folder.display()));
    if !settings.data_folder.is_dir() {
        // Made anew it would hide that all data is gone.
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    create_folder(folder).map_err(failed)?;
    Link::open_writer(path, true, settings.synchronous, settings.on_open.as_ref())
}

/// A place in the queue, then the writer itself. Dropping it passes the writer on.
pub(super) struct Turn {
    pub(super) file: Arc<DatabaseFile>,
    ticket: Ticket,
    /// The group that this turn is in, once it has begun.
    pub(super) group: u64,
    /// The connection, once the turn has begun.
    pub(super) link: Option<Link>,
    /// What is said of the turn when it is dropped.
    pub(super) ending: Ending,
}

impl Turn {
    /// Waits for the writer and opens the group where this turn is its first.
    pub(super) async fn begin(file: &Arc<DatabaseFile>) -> Result<Self, ExecutorError> {
        Self::begin_within(file, file.settings.begin_wait_ms_max).await
    }

    /// The same, for so many milliseconds at most.
    pub(super) async fn begin_within(file: &Arc<DatabaseFile>, wait_ms_max: u64) -> Result<Self, ExecutorError> {
        let (sender, granted) = oneshot::channel();
        let mut turn = {
            let mut state = file.state.lock();
            file.refuse_if_closed(&state)?;
            let (ticket, step) = state.machine.request(file.now_ms(), sender);
            file.take(&mut state, step);
            Self { file: Arc::clone(file), ticket, group: 0, link: None, ending: Ending::NeverBegan }
        };
        let granted = match timeout(Duration::from_millis(wait_ms_max), granted).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) => return Err(closed()),
            Err(_) => return Err(ExecutorError::Unavailable(format!("no turn to write within {wait_ms_max} ms"))),
        };
        turn.group = granted.group;
        turn.connect(granted.first).await?;
        Ok(turn)
    }

    async fn connect(&mut self, first: bool) -> Result<(), ExecutorError> {
        self.link = self.file.state.lock().writer.take();
        if first {
            if self.link.is_none() {
                let file = Arc::clone(&self.file);
                let again = move || {
                    file.identity.check(&file.path)?;
                    Link::open_writer(&file.path, false, file.settings.synchronous, file.settings.on_open.as_ref())
                };
                let opened = self.file.blocking(again).await?;
                self.link = Some(opened?);
            }
            let begun = self.link.as_ref().map(|link| link.own("BEGIN IMMEDIATE"));
            if let Some(Err(error)) = begun {
                // Opened anew by the next, whatever was wrong with it.
                let link = self.link.take();
                self.file.drop_links(link.into_iter().collect());
                return Err(self.file.named(executor_error(error)));
            }
        } else if self.link.as_ref().is_none_or(Link::is_autocommit) {
            self.ending = Ending::Lost;
            return Err(ExecutorError::Unavailable("the group was lost".to_owned()));
        }
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let file = Arc::clone(&self.file);
        let mut state = file.state.lock();
        if state.machine.cancel(self.ticket).is_some() || !state.machine.holds(self.ticket) {
            return;
        }
        if let Some(link) = self.link.take() {
            state.writer = Some(link);
        }
        let now_ms = file.now_ms();
        state.used_ms = now_ms;
        let step = state.machine.end(now_ms, self.ending);
        file.take(&mut state, step);
    }
}
