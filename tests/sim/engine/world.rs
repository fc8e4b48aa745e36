//! What everything in a run shares: the seed's random numbers, the simulated clock, the faults, and the trace.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use syncline::runtime::environment::Environment;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::Faults;

/// Simulated time begins here, in milliseconds since 1970.
const FIRST_MS: u64 = 1_750_000_000_000;
/// Lines of the trace that are kept for a report.
const LINES_KEPT: usize = 300;

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once: what the files hold is what the next life finds.
    Crash,
    /// In order: what was received is answered.
    Stop,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The seed of the run.
    pub seed: u64,
    /// What may go wrong, and how likely.
    pub faults: Faults,
    state: Mutex<State>,
    /// Somebody decided how this life ends.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    /// Simulated time when this life began.
    before: Duration,
    /// When this life began by the runtime's paused clock; none between two lives.
    begun: Option<Instant>,
    end: Option<End>,
    calm: bool,
    environment: StdRng,
    trace: Trace,
    violations: Vec<String>,
}

/// Everything that happened, as a hash, and the last of it in words.
#[derive(Debug, Default)]
struct Trace {
    hash: Sha256,
    count: u64,
    last: VecDeque<String>,
    printed: bool,
}

impl World {
    /// The world of a seed, before anything happened.
    pub fn new(seed: u64, faults: Faults, printed: bool) -> Arc<Self> {
        let state = State {
            before: Duration::ZERO,
            begun: None,
            end: None,
            calm: false,
            environment: StdRng::seed_from_u64(seed ^ 0x00e7_0000_0000_0000),
            trace: Trace { printed, ..Trace::default() },
            violations: Vec::new(),
        };
        let world = Arc::new(Self { seed, faults, state: Mutex::new(state), ended: Notify::new() });
        world.note(format_args!("{:?}", world.faults));
        world
    }

    /// Random numbers of the seed for one purpose: what one part draws does not change what another draws.
    pub fn random(&self, purpose: u64) -> StdRng {
        let mut mixed = StdRng::seed_from_u64(self.seed);
        StdRng::seed_from_u64(mixed.random::<u64>() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Simulated time since the run began.
    pub fn elapsed(&self) -> Duration {
        let state = self.state.lock();
        state.before + state.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// A life of the server begins, with a clock of its own.
    pub fn begin_life(&self) {
        let mut state = self.state.lock();
        (state.begun, state.end) = (Some(Instant::now()), None);
    }

    /// A life is over; simulated time stands still, then goes on after a pause.
    pub fn end_life(&self, pause: Duration) {
        let now = self.elapsed();
        let mut state = self.state.lock();
        (state.begun, state.before) = (None, now + pause);
    }

    /// Ends this life. The first word counts.
    pub fn end(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.ended.notify_one();
    }

    /// Waits until somebody ends this life.
    pub async fn ended(&self) -> End {
        loop {
            if let Some(end) = self.state.lock().end {
                return end;
            }
            self.ended.notified().await;
        }
    }

    /// Whether the process has died: what it still says, nobody hears.
    pub fn is_dead(&self) -> bool {
        self.state.lock().end == Some(End::Crash)
    }

    /// Waits for ever if the process has died.
    pub async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether faults are over and everybody finishes what is begun.
    pub fn is_calm(&self) -> bool {
        self.state.lock().calm
    }

    /// Ends all faults.
    pub fn calm_down(&self) {
        self.state.lock().calm = true;
        self.note(format_args!("calm"));
    }

    /// Puts down what happened. The same seed gives the same notes.
    pub fn note(&self, what: Arguments<'_>) {
        let line = format!("{:>12.3} {what}", self.elapsed().as_secs_f64() * 1000.0);
        let trace = &mut self.state.lock().trace;
        trace.hash.update(line.as_bytes());
        trace.hash.update(b"\n");
        trace.count += 1;
        if trace.printed {
            println!("{line}");
        }
        if trace.last.len() == LINES_KEPT {
            trace.last.pop_front();
        }
        trace.last.push_back(line);
    }

    /// Something happened that must not.
    pub fn violated(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.state.lock().violations.push(what);
    }

    /// What must not have happened and did.
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// How many notes there are, and their hash.
    pub fn trace_hash(&self) -> (u64, String) {
        let state = self.state.lock();
        let hash = state.trace.hash.clone().finalize();
        (state.trace.count, hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The last notes.
    pub fn last_notes(&self) -> Vec<String> {
        self.state.lock().trace.last.iter().cloned().collect()
    }
}

/// The world as the host sees it.
impl Environment for World {
    fn since_1970(&self) -> Duration {
        Duration::from_millis(FIRST_MS) + self.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.elapsed()
    }

    fn random(&self) -> u64 {
        self.state.lock().environment.random()
    }
}
