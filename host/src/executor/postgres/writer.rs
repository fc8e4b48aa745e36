//! The writer of one database: the queue in front of it, the group that is open, and how it goes to disk.
//!
//! A *group* is one transaction of PostgreSQL; the transactions of components are savepoints in it, as with SQLite, and
//! for the same reason: one flush of the server's log for all who wait. An advisory lock makes this process the only
//! writer of the database as long as the group is open, also among several processes.
//!
//! One task a database drives [`GroupCommit`]. Order of a group's end: COMMIT, then the observer is told, then the
//! machine goes on; so no later group can be told of first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::link::{CommitError, Link};
use super::marks::Mark;
use super::pool::Backoff;
use super::statement::executor_error;
use super::{Shared, closed};
use crate::executor::group::{Ending, Flush, GroupCommit, GroupLimits, Step};
use crate::executor::{DatabaseName, ExecutorError, GroupObserver, Hold, TransactionTime};

/// What everything that belongs to one database shares.
pub(super) struct DatabaseParts {
    pub(super) name: DatabaseName,
    pub(super) schema: String,
    pub(super) lock_key: i64,
    pub(super) shared: Arc<Shared>,
    pub(super) observer: Arc<dyn GroupObserver>,
}

/// Asks the writer's task.
#[derive(Clone)]
pub(super) struct Writer {
    events: mpsc::UnboundedSender<Event>,
}

enum Event {
    Request(oneshot::Sender<Turn>),
    /// A turn is over.
    End(Option<Box<Link>>, Ending),
    Hold,
    Unhold,
    /// Answered when the last group is settled.
    Close(oneshot::Sender<()>),
}

/// The turn of a transaction: the connection, until it is given back.
pub(super) struct Turn {
    /// The group that the transaction is in.
    pub(super) group: u64,
    link: Option<Box<Link>>,
    events: mpsc::UnboundedSender<Event>,
    ending: Ending,
}

impl Turn {
    /// The connection of the group.
    pub(super) fn link(&mut self) -> Result<&mut Link, ExecutorError> {
        self.link.as_deref_mut().ok_or_else(|| ExecutorError::Unavailable("no connection".into()))
    }

    /// A transaction begins: dropped from here on without a word, the group is lost, since what was done in it is not
    /// known.
    pub(super) fn begin(&mut self, parts: &DatabaseParts, time: TransactionTime) -> Result<(), ExecutorError> {
        self.link()?.begin_turn(parts, time);
        self.ending = Ending::Lost;
        Ok(())
    }

    /// Gives the turn back.
    pub(super) fn end(mut self, ending: Ending) {
        self.ending = match (&mut self.link, ending) {
            (Some(link), _) if link.is_broken() => Ending::Lost,
            (Some(link), Ending::Committed) => {
                link.keep_turn();
                ending
            }
            (Some(link), Ending::RolledBack) => {
                link.undo_turn();
                ending
            }
            (_, ending) => ending,
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Without a task the host has stopped, and the connection rolls back by being closed.
        let _ = self.events.send(Event::End(self.link.take(), self.ending));
    }
}

impl Writer {
    /// Starts the task of a database.
    pub(super) fn start(parts: Arc<DatabaseParts>) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        let settings = &parts.shared.settings;
        let limits = GroupLimits { transactions_max: settings.group_transactions_max, age_ms_max: settings.group_ms_max };
        let task = Task {
            machine: GroupCommit::new(limits),
            sender: events.downgrade(),
            inbox,
            link: None,
            epoch: Instant::now(),
            linger_until: None,
            closing: Vec::new(),
            parts: Arc::clone(&parts),
        };
        parts.shared.runtime.spawn(task.run());
        Self { events }
    }

    /// Waits for the writer.
    pub(super) async fn turn(&self, wait_ms_max: u64) -> Result<Turn, ExecutorError> {
        let (sender, granted) = oneshot::channel();
        self.events.send(Event::Request(sender)).map_err(|_| closed())?;
        match timeout(Duration::from_millis(wait_ms_max), granted).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(ExecutorError::Unavailable("the database takes no transactions right now".into())),
            Err(_) => Err(ExecutorError::Unavailable(format!("no turn to write within {wait_ms_max} ms"))),
        }
    }

    /// Lets a group linger for more, until the hold is dropped.
    pub(super) fn hold(&self) -> Hold {
        // Without a task there is no group to hold.
        let _ = self.events.send(Event::Hold);
        let events = self.events.clone();
        Hold::new(move || {
            let _ = events.send(Event::Unhold);
        })
    }

    /// Takes no more transactions, and waits until the last group is settled.
    pub(super) async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.events.send(Event::Close(sender)).is_ok() {
            // An error means that the task has ended, and everything is settled.
            let _ = closed.await;
        }
    }
}

struct Task {
    machine: GroupCommit<oneshot::Sender<Turn>>,
    /// For the turns; weak, so that the task ends with the last handle.
    sender: mpsc::WeakUnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    /// That of the open group, while no turn has it.
    link: Option<Box<Link>>,
    epoch: Instant,
    linger_until: Option<Instant>,
    closing: Vec<oneshot::Sender<()>>,
    parts: Arc<DatabaseParts>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let step = match self.next().await {
                Some(Event::Request(waiter)) if self.closing.is_empty() => self.machine.request(self.now_ms(), waiter).1,
                // The waiter learns it from the sender that is dropped.
                Some(Event::Request(_)) => Step::Rest,
                Some(Event::End(link, ending)) => {
                    self.link = link;
                    let lost = self.link.is_none() && ending != Ending::NeverBegan;
                    self.machine.end(self.now_ms(), if lost { Ending::Lost } else { ending })
                }
                Some(Event::Hold) => {
                    self.machine.hold();
                    Step::Rest
                }
                Some(Event::Unhold) => self.machine.unhold(self.now_ms()),
                Some(Event::Close(closed)) => {
                    drop(self.machine.cancel_all());
                    self.closing.push(closed);
                    Step::Rest
                }
                None if self.inbox.is_closed() => return,
                None => {
                    self.linger_until = None;
                    self.machine.tick(self.now_ms())
                }
            };
            self.take(step).await;
            if !self.closing.is_empty() && self.machine.is_idle() {
                self.closing.drain(..).for_each(|closed| {
                    // Whoever waited may have gone.
                    let _ = closed.send(());
                });
            }
        }
    }

    /// The next event; none when a group has lingered long enough, or nobody is left.
    async fn next(&mut self) -> Option<Event> {
        match self.linger_until {
            None => self.inbox.recv().await,
            Some(until) => tokio::select! {
                biased;
                event = self.inbox.recv() => event,
                () = sleep_until(until) => None,
            },
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does what the machine said, until it has nothing more to say.
    async fn take(&mut self, mut step: Step<oneshot::Sender<Turn>>) {
        loop {
            step = match step {
                Step::Rest => {
                    if self.machine.is_idle() {
                        // Whoever was to open the group has gone before anything was sent.
                        self.link = None;
                    }
                    return;
                }
                Step::Linger { until_ms } => {
                    self.linger_until = Some(self.epoch + Duration::from_millis(until_ms));
                    return;
                }
                Step::Grant { waiter, group, .. } => match self.grant(waiter, group).await {
                    Ok(()) => return,
                    Err(ending) => self.machine.end(self.now_ms(), ending),
                },
                Step::Flush { group, flush } => {
                    let durable = self.flush(flush).await;
                    self.tell(group, durable);
                    self.machine.flushed(self.now_ms())
                }
            };
        }
    }

    /// Hands the connection to a waiter.
    async fn grant(&mut self, waiter: oneshot::Sender<Turn>, group: u64) -> Result<(), Ending> {
        self.linger_until = None;
        if waiter.is_closed() {
            return Err(Ending::NeverBegan);
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => match self.parts.shared.pool.get().await {
                Ok(connection) => Box::new(Link::new(connection)),
                Err(error) => {
                    let name = &self.parts.name;
                    tracing::warn!(mount = name.mount, database = name.name, %error, "no group can be opened");
                    return Err(Ending::NeverBegan);
                }
            },
        };
        let Some(events) = self.sender.upgrade() else { return Err(Ending::NeverBegan) };
        let turn = Turn { group, link: Some(link), events, ending: Ending::NeverBegan };
        // A waiter that has gone meanwhile drops the turn, which ends as one that never began.
        drop(waiter.send(turn));
        Ok(())
    }

    /// Brings the group to its end; whether it is durable.
    async fn flush(&mut self, flush: Flush) -> bool {
        self.linger_until = None;
        let Some(link) = self.link.take() else { return flush == Flush::Nothing };
        let id = link.transaction_id().map(str::to_owned);
        let (marks, lock_key) = (&self.parts.shared.marks, self.parts.lock_key);
        let mark = marks.next(lock_key);
        let Err(failed) = link.finish(flush, &marks.statement(&mark)).await else { return flush != Flush::Lost };
        let name = &self.parts.name;
        let (durable, error) = match (flush, failed) {
            (Flush::Nothing, CommitError::Refused(error) | CommitError::Unknown(error)) => (true, error),
            (Flush::Lost, CommitError::Refused(error) | CommitError::Unknown(error)) | (Flush::Commit, CommitError::Refused(error)) => {
                (false, error)
            }
            (Flush::Commit, CommitError::Unknown(error)) => {
                tracing::warn!(mount = name.mount, database = name.name, %error, "the answer to a COMMIT is missing: the server is asked");
                (self.was_committed(id.as_deref(), &mark).await, error)
            }
        };
        if flush == Flush::Commit && !durable {
            tracing::error!(mount = name.mount, database = name.name, %error, "a group was not committed and is lost");
        } else if flush != Flush::Commit {
            tracing::warn!(mount = name.mount, database = name.name, %error, "a broken connection is dropped");
        }
        durable
    }

    /// Whether the group was committed although its COMMIT brought no answer. Asks until the server knows, because a
    /// group that was told as lost and is there would be missed by every reader; only a host that stops gives up.
    async fn was_committed(&self, id: Option<&str>, mark: &Mark) -> bool {
        let Some(id) = id else { return false };
        let shared = &self.parts.shared;
        let end = Instant::now() + Duration::from_millis(shared.settings.fate_ms_max);
        let mut backoff = Backoff::default();
        loop {
            match self.status_of(id).await {
                // It may be somebody else's by now: then ours is over too.
                Ok(Some(status)) if status == "in progress" => {}
                Ok(_) => match shared.is_marked(mark).await {
                    Ok(is_marked) => return is_marked,
                    Err(error) => tracing::warn!(%error, "the fate of a group is not known yet"),
                },
                Err(ExecutorError::Unavailable(error)) => tracing::warn!(error, "the fate of a group is not known yet"),
                // The server does not know the number: it is another one, or an older state of it.
                Err(error) => {
                    tracing::error!(transaction = id, %error, "the server does not know a group");
                    return false;
                }
            }
            if shared.is_closed() && Instant::now() >= end {
                tracing::error!(transaction = id, "the fate of a group stays unknown: it is told as lost and may be there");
                return false;
            }
            sleep(backoff.next()).await;
        }
    }

    async fn status_of(&self, id: &str) -> Result<Option<String>, ExecutorError> {
        let connection = self.parts.shared.pool.get().await?;
        let row = connection.query_one("SELECT pg_xact_status($1::text::xid8)", &[&id]).await.map_err(executor_error)?;
        row.try_get(0).map_err(executor_error)
    }

    fn tell(&self, group: u64, durable: bool) {
        let name = &self.parts.name;
        let tell = || self.parts.observer.settled(name, group, durable);
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            tracing::error!(mount = name.mount, database = name.name, group, "the observer of a group panicked");
        }
    }
}
