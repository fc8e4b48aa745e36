//! What may go wrong in a run. Each seed draws its own mixture: many runs with few kinds of faults find more than the
//! same mixture every time, since faults hide each other.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// What may go wrong. Shares are probabilities; times without a suffix are the longest, and drawn evenly below.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long it takes until a group is written.
    pub flush_ms: u64,
    /// How long it takes from there until those who rest on it are told.
    pub settle_ms: u64,
    /// Groups that the database rolls back at their COMMIT.
    pub lost_groups: f64,
    /// Groups at whose end the process dies: before they are written, in the middle (the disk has written some sectors
    /// of what the sync was to bring to it), or after.
    pub crashing_groups: f64,
    /// Mean time between crashes at any moment; none if zero.
    pub crash_mean_ms: u64,
    /// Mean time between stops in order; none if zero.
    pub stop_mean_ms: u64,
    /// Transactions that wait before they begin, and how long.
    pub slow_begins: f64,
    /// The longest such wait.
    pub begin_ms: u64,
    /// Transactions, statements, commits or views that the database refuses and asks to be run again.
    pub aborts: f64,
    /// Those that fail because the database is away or full.
    pub failures: f64,
    /// Reads and writes of objects that fail.
    pub object_failures: f64,
    /// How long an object takes.
    pub object_ms: u64,
    /// The way of a frame in one direction.
    pub latency_ms: u64,
    /// Bytes under way to a client before the host must wait.
    pub window_bytes: usize,
    /// Mean time until a line is cut; none if zero.
    pub cut_mean_ms: u64,
    /// Cut lines of which the server learns late.
    pub half_open: f64,
    /// How late.
    pub half_open_ms: u64,
    /// Clients that go away while their connection is being made.
    pub lost_upgrades: f64,
    /// Mean time until a client stops reading; none if zero.
    pub stall_mean_ms: u64,
    /// How long it does not read.
    pub stall_ms: u64,
    /// Mean time between two acts of a client.
    pub act_mean_ms: u64,
    /// Requests that are lost on their way, on the way back, or given up meanwhile.
    pub lost_requests: f64,
    /// Requests that arrive twice, the second one perhaps much later.
    pub doubled_requests: f64,
    /// How much later.
    pub doubled_ms: u64,
    /// Deliberate breach, for tests of the oracle: a crash takes the disk back to an earlier state, as if it had lied
    /// about its syncs.
    pub lying_disk: bool,
    /// Deliberate breach: frames to clients that vanish without a trace.
    pub lost_frames: f64,
    /// Deliberate breach: frames to clients that arrive twice.
    pub doubled_frames: f64,
    /// Deliberate breach: rows that are left out of what a client is told.
    pub omitted_rows: f64,
    /// Deliberate breach: requests that never arrive and are answered as if they had been carried out.
    pub forged_answers: f64,
}

fn one_of<T: Copy>(random: &mut StdRng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

impl Faults {
    /// Only what never goes wrong: everything takes its time, a little.
    pub fn none() -> Self {
        Self { flush_ms: 2, latency_ms: 5, window_bytes: 64 << 10, act_mean_ms: 40, ..Self::default() }
    }

    /// The mixture of a seed.
    pub fn draw(random: &mut StdRng) -> Self {
        let kind = |random: &mut StdRng, share: f64, choices: &[f64]| if random.random_bool(share) { one_of(random, choices) } else { 0.0 };
        let time = |random: &mut StdRng, share: f64, choices: &[u64]| if random.random_bool(share) { one_of(random, choices) } else { 0 };
        Self {
            flush_ms: one_of(random, &[0, 2, 10, 60]),
            settle_ms: time(random, 0.4, &[3, 20, 100]),
            lost_groups: kind(random, 0.4, &[0.02, 0.1, 0.3]),
            crashing_groups: kind(random, 0.35, &[0.005, 0.02]),
            crash_mean_ms: time(random, 0.3, &[2_000, 8_000]),
            stop_mean_ms: time(random, 0.2, &[3_000, 10_000]),
            slow_begins: kind(random, 0.3, &[0.05, 0.5]),
            begin_ms: one_of(random, &[3, 50, 1_500]),
            aborts: kind(random, 0.35, &[0.005, 0.03, 0.1]),
            failures: kind(random, 0.25, &[0.002, 0.02]),
            object_failures: kind(random, 0.3, &[0.05, 0.3]),
            object_ms: one_of(random, &[0, 10, 100]),
            latency_ms: one_of(random, &[0, 3, 30, 200]),
            window_bytes: one_of(random, &[2 << 10, 64 << 10, 1 << 20]),
            cut_mean_ms: time(random, 0.6, &[1_500, 6_000]),
            half_open: one_of(random, &[0.0, 0.3, 1.0]),
            half_open_ms: one_of(random, &[200, 5_000, 40_000]),
            lost_upgrades: kind(random, 0.3, &[0.1, 0.4]),
            stall_mean_ms: time(random, 0.3, &[1_000, 5_000]),
            stall_ms: one_of(random, &[100, 2_000, 10_000]),
            act_mean_ms: one_of(random, &[4, 30, 150]),
            lost_requests: kind(random, 0.5, &[0.02, 0.1, 0.3]),
            doubled_requests: kind(random, 0.3, &[0.02, 0.2]),
            doubled_ms: one_of(random, &[5, 300, 3_000]),
            ..Self::default()
        }
    }
}

/// A time up to a longest one, in milliseconds.
pub fn up_to_ms(random: &mut StdRng, longest_ms: u64) -> Duration {
    Duration::from_micros(random.random_range(0..=longest_ms.saturating_mul(1000)))
}

/// A time with a mean, as between events that do not know of each other; none if the mean is zero.
pub fn around_ms(random: &mut StdRng, mean_ms: u64) -> Option<Duration> {
    // 1 - [0, 1) is never zero.
    let share = -(1.0 - random.random::<f64>()).ln();
    (mean_ms > 0).then(|| Duration::from_secs_f64(share * 0.001 * u32::try_from(mean_ms).map_or(f64::MAX, f64::from)))
}
