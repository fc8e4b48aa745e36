//! Commits of SQLite under the test's control: a COMMIT may be held, and may be lost (the hook turns it into a rollback).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use syncline::executor::sqlite::{OnOpen, SqliteExecutor, SqliteSettings};
use syncline_tests::DEADLINE;
use tokio::sync::watch;

/// What becomes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It becomes durable.
    Kept,
    /// The database rolls it back.
    Lost,
}

type Decide = Box<dyn FnMut() -> (Duration, Fate) + Send>;

/// The commits of the databases of one mount.
pub struct Commits {
    mount: String,
    state: Mutex<State>,
    changed: Condvar,
    /// Commits that began, and those that may go on.
    counts: watch::Sender<(u64, u64)>,
}

struct State {
    held: bool,
    /// Fates of the commits that were let go one by one, oldest first.
    settled: std::collections::VecDeque<Fate>,
    /// Asked where nothing else decides.
    decide: Decide,
}

impl Commits {
    /// Commits of a mount, all kept until the test says otherwise.
    pub fn of(mount: &str) -> Arc<Self> {
        let state = State { held: false, settled: std::collections::VecDeque::new(), decide: Box::new(|| (Duration::ZERO, Fate::Kept)) };
        Arc::new(Self { mount: mount.into(), state: Mutex::new(state), changed: Condvar::new(), counts: watch::Sender::new((0, 0)) })
    }

    /// The hook for [`SqliteSettings::on_open`].
    pub fn on_open(self: &Arc<Self>) -> OnOpen {
        let commits = Arc::clone(self);
        Arc::new(move |connection| {
            let of_mount =
                connection.path().and_then(|path| Path::new(path).parent()?.file_name()).is_some_and(|name| name == commits.mount.as_str());
            if of_mount {
                let commits = Arc::clone(&commits);
                connection.commit_hook(Some(move || commits.commit() == Fate::Lost)).expect("the hook can be set");
            }
        })
    }

    /// An executor whose commits these are.
    pub async fn executor(self: &Arc<Self>, folder: &Path) -> SqliteExecutor {
        let mut settings = SqliteSettings::new(folder);
        settings.on_open = Some(self.on_open());
        // A commit that is held must not look like a writer that takes too long.
        settings.begin_wait_ms_max = 30_000;
        // Which transactions share a group must not hang on how fast they are.
        settings.group_ms_max = 30_000;
        SqliteExecutor::start(settings).await.expect("the executor starts")
    }

    fn commit(&self) -> Fate {
        self.counts.send_modify(|(began, _)| *began += 1);
        let mut state = self.state.lock();
        while state.held && state.settled.is_empty() {
            assert!(!self.changed.wait_for(&mut state, DEADLINE).timed_out(), "a held commit was forgotten");
        }
        if let Some(fate) = state.settled.pop_front() {
            return fate;
        }
        let (delay, fate) = (state.decide)();
        drop(state);
        // A slow disk, not a way to wait for something.
        std::thread::sleep(delay);
        self.counts.send_modify(|(_, passed)| *passed += 1);
        fate
    }

    /// From now on commits wait for [`Commits::settle`] or [`Commits::release`].
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    /// Waits until a commit is held.
    pub async fn held(&self) {
        let mut counts = self.counts.subscribe();
        let waited = tokio::time::timeout(DEADLINE, counts.wait_for(|(began, passed)| began > passed)).await;
        waited.expect("a commit begins within the deadline").expect("the commits live");
    }

    /// Waits until a commit is held, and settles it; later ones are held as before.
    pub async fn settle(&self, fate: Fate) {
        self.held().await;
        self.counts.send_modify(|(_, passed)| *passed += 1);
        self.state.lock().settled.push_back(fate);
        self.changed.notify_all();
    }

    /// No commit is held any more.
    pub fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    /// How long commits take, and what becomes of them.
    pub fn decide(&self, decide: impl FnMut() -> (Duration, Fate) + Send + 'static) {
        self.state.lock().decide = Box::new(decide);
    }
}
