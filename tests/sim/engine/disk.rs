//! The simulated disk: the real SQLite executor on real files, whose COMMITs come when the simulation says so, fail when
//! it says so, and are cut short when the process dies.
//!
//! What the files hold when a process dies is copied before anything of it is dropped: closing a connection would tidy
//! up. A process that dies within a COMMIT leaves some sectors of what the sync was to bring to the disk and not the
//! others. Whatever was reported as durable before is there: only a disk that lies ([`Faults::lying_disk`]) forgets it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use syncline::executor::sqlite::worker::{Flush, Work, Worker};
use syncline::executor::sqlite::{OnOpen, SqliteExecutor, SqliteSettings};
use syncline::executor::{DatabaseName, ExecutorError};
use syncline_tests::faulty_executor::{FaultyExecutor, Point, Verdict};
use tempfile::TempDir;
use tokio::runtime::Handle;

#[cfg(doc)]
use super::faults::Faults;
use super::faults::up_to_ms;
use super::model::Observer;
use super::world::{End, World};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The header of a write-ahead log.
const LOG_HEADER_BYTES: usize = 32;
/// Far beyond what a run takes, by the clock of the machine: how long a statement may run must not depend on it.
const STATEMENT_MS_MAX: u64 = 3_600_000;

/// Content by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The disk of a run. It outlives the processes that use it.
pub struct Disk {
    world: Arc<World>,
    folder: TempDir,
    /// The COMMIT that runs now becomes a rollback.
    losing: Arc<AtomicBool>,
    observer: Mutex<Option<Observer>>,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    /// Files as they were when the process died.
    left: Option<Files>,
    /// Files as they were some time ago, for a disk that lies.
    earlier: Option<Files>,
    flushes: u64,
}

/// How a group ends.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    CrashBefore,
    CrashWithin,
    CrashAfter,
}

impl Disk {
    /// An empty disk; in memory where the system has a folder for that, since nothing here survives the test.
    pub fn new(world: Arc<World>, observer: Option<Observer>) -> io::Result<Arc<Self>> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let random = world.random(0xd15c);
        let state = State { random, left: None, earlier: None, flushes: 0 };
        Ok(Arc::new(Self { world, folder, losing: Arc::default(), observer: Mutex::new(observer), state: Mutex::new(state) }))
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the executor of a new life on what the disk holds.
    pub async fn executor(self: &Arc<Self>) -> anyhow::Result<FaultyExecutor> {
        let mut settings = SqliteSettings::new(self.folder());
        settings.statement_ms_max = STATEMENT_MS_MAX;
        settings.on_open = Some(self.on_open());
        settings.worker = Some(Arc::new(DiskWorker { disk: self.clone(), runtime: Handle::current() }));
        let executor = SqliteExecutor::start(settings).await?;
        let disk = self.clone();
        Ok(FaultyExecutor::new(executor, move |point| disk.judge(&point)).with_holds())
    }

    fn on_open(&self) -> OnOpen {
        let losing = self.losing.clone();
        Arc::new(move |connection| {
            let losing = losing.clone();
            connection.commit_hook(Some(move || losing.load(Ordering::Relaxed))).expect("the hook can be set");
        })
    }

    /// Faults of the database that are no matter of groups.
    fn judge(&self, point: &Point<'_>) -> Verdict {
        if self.world.is_calm() {
            return Verdict::Pass;
        }
        let faults = &self.world.faults;
        let random = &mut self.state.lock().random;
        let error = if faults.aborts > 0.0 && random.random_bool(faults.aborts) {
            Some(ExecutorError::Aborted)
        } else if faults.failures > 0.0 && random.random_bool(faults.failures) {
            let full = random.random_bool(0.5);
            Some(if full { ExecutorError::Limit("disk".into()) } else { ExecutorError::Unavailable("simulated".into()) })
        } else {
            None
        };
        let name = match point {
            Point::Begin => "begin",
            Point::Execute(_) => "statement",
            Point::Commit => "commit",
            Point::Snapshot => "snapshot",
        };
        let slow = faults.slow_begins > 0.0 && matches!(point, Point::Begin) && random.random_bool(faults.slow_begins);
        let delay = slow.then(|| up_to_ms(random, faults.begin_ms));
        if let Some(error) = &error {
            self.world.note(format_args!("{name}: {error}"));
        }
        match (delay, error) {
            (Some(delay), error) => Verdict::Later(delay, error),
            (None, Some(error)) => Verdict::Fail(error),
            (None, None) => Verdict::Pass,
        }
    }

    fn fate(&self) -> Fate {
        if self.world.is_calm() {
            return Fate::Kept;
        }
        let faults = &self.world.faults;
        let random = &mut self.state.lock().random;
        if faults.crashing_groups > 0.0 && random.random_bool(faults.crashing_groups) {
            return match random.random_range(0..4) {
                0 => Fate::CrashBefore,
                1 => Fate::CrashAfter,
                _ => Fate::CrashWithin,
            };
        }
        let lost = faults.lost_groups > 0.0 && random.random_bool(faults.lost_groups);
        if lost { Fate::Lost } else { Fate::Kept }
    }

    /// Brings a group to its end at a time of the simulation.
    async fn flush(self: Arc<Self>, database: DatabaseName, flush: Flush) {
        let (wait, settle) = {
            let (faults, random) = (&self.world.faults, &mut self.state.lock().random);
            (up_to_ms(random, faults.flush_ms), up_to_ms(random, faults.settle_ms))
        };
        tokio::time::sleep(wait).await;
        let fate = self.fate();
        self.world.note(format_args!("group of {}/{}: {fate:?}", database.mount, database.name));
        if fate == Fate::CrashBefore {
            return self.die(self.files()).await;
        }
        let before = if fate == Fate::CrashWithin { self.files() } else { Files::new() };
        self.losing.store(fate == Fate::Lost, Ordering::Relaxed);
        let tell = flush();
        self.losing.store(false, Ordering::Relaxed);
        match fate {
            Fate::CrashAfter => return self.die(self.files()).await,
            Fate::CrashWithin => {
                let torn = torn(&before, &self.files(), &mut self.state.lock().random);
                return self.die(torn).await;
            }
            Fate::Kept => self.observe(),
            Fate::Lost | Fate::CrashBefore => {}
        }
        tokio::time::sleep(settle).await;
        tell();
        self.remember();
    }

    /// The process ends here; `left` is what the disk has.
    async fn die(&self, left: Files) {
        self.state.lock().left.get_or_insert(left);
        self.world.end(End::Crash);
        std::future::pending().await
    }

    /// Shows what is durable to whoever follows it.
    pub fn observe(&self) {
        let Some(observer) = &mut *self.observer.lock() else { return };
        observer(self.folder()).into_iter().for_each(|wrong| self.world.violated(wrong));
    }

    /// Takes the copy that a disk that lies goes back to.
    fn remember(&self) {
        if !self.world.faults.lying_disk {
            return;
        }
        let now = {
            let mut state = self.state.lock();
            state.flushes += 1;
            state.flushes % 16 == 1
        };
        if now {
            let files = self.files();
            self.state.lock().earlier = Some(files);
        }
    }

    /// The process dies between two events: what the files hold stays. To be called before anything of it is dropped.
    pub fn crash(&self) {
        let files = self.files();
        let mut state = self.state.lock();
        state.left.get_or_insert(files);
        if self.world.faults.lying_disk && state.earlier.is_some() {
            state.left = state.earlier.clone();
        }
    }

    /// Puts back what a crash left. To be called when nothing of the process is there any more.
    pub fn restore(&self) -> io::Result<()> {
        let Some(left) = self.state.lock().left.take() else { return Ok(()) };
        for path in self.files().into_keys() {
            std::fs::remove_file(path)?;
        }
        // The index of a log is memory of the process.
        for path in paths(self.folder(), &|name| name.ends_with("-shm")) {
            std::fs::remove_file(path)?;
        }
        for (path, content) in left {
            std::fs::write(path, content)?;
        }
        Ok(())
    }

    /// The databases and their logs.
    fn files(&self) -> Files {
        let paths = paths(self.folder(), &|name| name.ends_with(".sqlite") || name.ends_with("-wal"));
        paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file of the disk can be read"))).collect()
    }
}

fn paths(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(paths(&path, wanted));
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(wanted) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What a power cut leaves while files are on their way from one state to another: of each sector the old or the new
/// content. A log is synced before the database file is touched, so only the last of the two is torn; and where a log
/// begins anew, its header is synced before anything follows.
fn torn(before: &Files, after: &Files, random: &mut StdRng) -> Files {
    let changed: Vec<&PathBuf> = after.iter().filter(|(path, content)| before.get(*path) != Some(content)).map(|(path, _)| path).collect();
    let databases = changed.iter().any(|path| path.extension().is_some_and(|extension| extension == "sqlite"));
    let mut left = after.clone();
    for (path, content) in &mut left {
        let is_log = path.extension().is_none_or(|extension| extension != "sqlite");
        if !changed.contains(&path) || databases && is_log {
            continue;
        }
        let empty = Vec::new();
        let old = before.get(path).unwrap_or(&empty);
        let share = random.random_range(0.0..=1.0);
        let mut length = content.len();
        let begins_anew = is_log && content.get(..LOG_HEADER_BYTES) != old.get(..LOG_HEADER_BYTES);
        for (index, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
            if random.random_bool(share) || index == 0 && begins_anew {
                continue;
            }
            let start = index * SECTOR_BYTES;
            for (offset, byte) in sector.iter_mut().enumerate() {
                *byte = old.get(start + offset).copied().unwrap_or(0);
            }
            if start >= old.len() && random.random_bool(0.3) {
                // The file may have been made longer later than its sectors were written.
                length = length.min(start);
            }
        }
        content.truncate(length.max(old.len()));
    }
    left
}

/// The blocking work of one life.
struct DiskWorker {
    disk: Arc<Disk>,
    runtime: Handle,
}

impl Worker for DiskWorker {
    fn run(&self, work: Work) {
        // At once and here: no thread of its own decides when it is done.
        work();
    }

    fn flush(&self, database: &DatabaseName, flush: Flush) {
        // After the end of the life nothing is spawned any more, and so nothing is committed.
        drop(self.runtime.spawn(self.disk.clone().flush(database.clone(), flush)));
    }
}
