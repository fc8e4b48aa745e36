//! The outbox of `effects.post`: durable, sent with retries, at least once.
//!
//! A post that a call makes before it commits is a row in the very database that it writes, written in the very transaction:
//! both are durable or neither. What a call posts without a transaction after it goes into a database of the host's own
//! when its effects are released. `delivery` sends what is there, one task for each database that has anything.
//!
//! Which databases have rows is kept in the host's own database too (before the rows are), so that a process that starts
//! finds them all without opening every database.

mod delivery;
mod retry;
mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell, Semaphore};

pub(crate) use self::rows::Post;
use self::rows::Table;
use super::mount::MountCore;
use crate::executor::durable::{DurableDatabase, statement};
use crate::executor::{Database, Executor, ExecutorError, Transaction, Value};
use crate::outbound::HttpClient;

/// Posts of all mounts that are under way at once.
const SENDING_MAX: usize = 32;
/// Databases whose outboxes are opened at the same time after a start.
const OPENING_MAX: usize = 4;

/// When outboxes are looked for again, those of other processes among them.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Where rows of posts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The host's own database.
    Own,
    /// A database of the mount.
    Of(String),
}

/// What the outboxes of all mounts share.
pub(crate) struct Outbox {
    executor: Arc<dyn Executor>,
    http: Arc<HttpClient>,
    own: OnceCell<Own>,
    sending: Semaphore,
    opening: Semaphore,
}

/// The host's own database, opened once a mount may post.
struct Own {
    database: DurableDatabase,
    /// Mount and name of databases that are known to be noted down. Held while one is.
    noted: tokio::sync::Mutex<HashSet<(String, String)>>,
}

/// The outboxes of one mount, in this process.
#[derive(Default)]
pub(crate) struct MountOutbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By database: the last group that brings posts.
    awaited: HashMap<String, u64>,
    /// Who delivers, by place.
    running: HashMap<Place, Running>,
    /// How many posts wait.
    waiting: HashMap<Place, u64>,
}

#[derive(Default)]
struct Running {
    woken: Arc<Notify>,
    /// There may be something new since it looked last.
    dirty: bool,
}

impl Outbox {
    pub(crate) fn new(executor: Arc<dyn Executor>, http: Arc<HttpClient>) -> Self {
        let (sending, opening) = (Semaphore::new(SENDING_MAX), Semaphore::new(OPENING_MAX));
        Self { executor, http, own: OnceCell::new(), sending, opening }
    }

    async fn own(&self) -> Result<&Own, ExecutorError> {
        let open = async {
            let database = DurableDatabase::open(&*self.executor, "outbox").await?;
            let info = database.database().info();
            let places = "CREATE TABLE IF NOT EXISTS {}outboxes (mount TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (mount, name))";
            let mut create = vec![statement(&info, places, Vec::new())];
            create.extend(Table { info: &info, mount: "" }.create());
            database.write(&create).await?;
            Ok(Own { database, noted: tokio::sync::Mutex::default() })
        };
        self.own.get_or_try_init(|| open).await
    }

    /// Notes down, durably, that a database has an outbox.
    async fn note(&self, mount: &str, name: &str) -> Result<(), ExecutorError> {
        let own = self.own().await?;
        let mut noted = own.noted.lock().await;
        let key = (mount.to_owned(), name.to_owned());
        if !noted.contains(&key) {
            let insert = "INSERT INTO {}outboxes (mount, name) VALUES (?, ?) ON CONFLICT (mount, name) DO NOTHING";
            own.write(insert, mount, name).await?;
            noted.insert(key);
        }
        Ok(())
    }

    /// Forgets a database whose outbox was empty after a start, unless somebody posted meanwhile.
    async fn forget(&self, mount: &str, name: &str) -> Result<(), ExecutorError> {
        let own = self.own().await?;
        let noted = own.noted.lock().await;
        // Another process may rely on the note.
        if self.executor.is_shared() || noted.contains(&(mount.to_owned(), name.to_owned())) {
            return Ok(());
        }
        own.write("DELETE FROM {}outboxes WHERE mount = ? AND name = ?", mount, name).await
    }

    /// The databases of a mount that may have posts.
    async fn noted(&self, mount: &str) -> Result<Vec<String>, ExecutorError> {
        let own = self.own().await?;
        let info = own.database.database().info();
        let select = statement(&info, "SELECT name FROM {}outboxes WHERE mount = ? ORDER BY name", vec![mount.into()]);
        let rows = own.database.read(&select).await?.rows;
        Ok(rows.iter().flatten().filter_map(|name| if let Value::Text(name) = name { Some(name) } else { None }).collect())
    }
}

impl Own {
    async fn write(&self, template: &str, mount: &str, name: &str) -> Result<(), ExecutorError> {
        let info = self.database.database().info();
        self.database.write(&[statement(&info, template, vec![mount.into(), name.into()])]).await.map(drop)
    }
}

impl MountCore {
    /// Writes posts in the transaction that they share their fate with, which is about to be committed.
    pub(crate) async fn write_posts(&self, transaction: &mut dyn Transaction, database: &str, posts: &[Post]) -> Result<(), ExecutorError> {
        self.outbox.note(&self.name, database).await?;
        let info = self.database(database).await?.info();
        let table = Table { info: &info, mount: &self.name };
        let now_ms = self.environment.now_ms();
        let mut statements = Vec::from(table.create());
        statements.extend(posts.iter().map(|post| table.insert(post, now_ms)));
        transaction.execute_batch(&statements).await.map(drop)
    }

    /// A group has taken posts of a database: they are sent once it is durable.
    pub(crate) fn await_posts(&self, database: &str, group: u64) {
        self.posts.state.lock().awaited.insert(database.to_owned(), group);
    }

    /// A group is settled.
    pub(super) fn posts_settled(&self, database: &str, group: u64) {
        let mut state = self.posts.state.lock();
        if state.awaited.get(database).is_some_and(|awaited| *awaited <= group) {
            state.awaited.remove(database);
            drop(state);
            self.deliver_posts(Place::Of(database.to_owned()), false);
        }
    }

    /// Keeps a post of a call that wrote nothing after it; durable when this returns.
    pub(super) async fn keep_post(&self, post: &Post) -> Result<(), ExecutorError> {
        let own = self.outbox.own().await?;
        let info = own.database.database().info();
        let insert = Table { info: &info, mount: &self.name }.insert(post, self.environment.now_ms());
        own.database.write(&[insert]).await?;
        self.deliver_posts(Place::Own, false);
        Ok(())
    }

    /// Goes on with what an earlier process left, if the mount may post; where others share the databases, also with what
    /// they leave.
    pub(super) fn keep_posting(&self) {
        if self.plan().post_targets.is_empty() {
            return;
        }
        let mount = self.myself.clone();
        self.runtime.spawn(async move {
            while let Some(mount) = mount.upgrade().filter(|mount| !mount.is_stopping()) {
                let again = match mount.resume_posts().await {
                    Ok(()) => mount.outbox.executor.is_shared(),
                    Err(error) => {
                        tracing::warn!(mount = mount.name, %error, "outboxes cannot be looked for now");
                        true
                    }
                };
                drop(mount);
                if !again {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
    }

    async fn resume_posts(&self) -> Result<(), ExecutorError> {
        let names = self.outbox.noted(&self.name).await?;
        for place in names.into_iter().map(Place::Of).chain([Place::Own]) {
            self.deliver_posts(place, true);
        }
        Ok(())
    }

    /// Has somebody look at an outbox.
    fn deliver_posts(&self, place: Place, after_start: bool) {
        let mut state = self.posts.state.lock();
        match state.running.get_mut(&place) {
            Some(running) => {
                running.dirty = true;
                running.woken.notify_one();
            }
            None => {
                let running = Running::default();
                let woken = running.woken.clone();
                state.running.insert(place.clone(), running);
                self.runtime.spawn(delivery::run(self.myself.clone(), place, woken, after_start));
            }
        }
    }

    /// How many posts of an outbox wait.
    fn posts_waiting(&self, place: &Place, count: u64) {
        let mut state = self.posts.state.lock();
        match count {
            0 => state.waiting.remove(place),
            count => state.waiting.insert(place.clone(), count),
        };
        self.metrics.posts_waiting(&self.name, state.waiting.values().sum());
    }

    /// The database of a place.
    async fn outbox_database(&self, place: &Place) -> Result<Arc<dyn Database>, ExecutorError> {
        match place {
            Place::Own => Ok(self.outbox.own().await?.database.shared()),
            Place::Of(name) => self.database(name).await,
        }
    }
}
