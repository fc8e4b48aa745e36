//! How fast somebody may send, and how slow: state machines with the time as a parameter. Times are counted from any
//! fixed moment.

use std::time::Duration;

/// So many units a second on average, and so many seconds' worth of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; at least 1.
    pub per_second: u64,
    /// How much may come at once, in seconds of the rate; at least 1.
    pub burst_seconds: u64,
}

impl Rate {
    /// The time that so many units stand for, rounded up.
    fn time_of(self, units: u64) -> Duration {
        let nanoseconds = (u128::from(units) * 1_000_000_000).div_ceil(u128::from(self.per_second.max(1)));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn burst(self) -> Duration {
        Duration::from_secs(self.burst_seconds.max(1))
    }
}

/// A bucket that fills at a rate and is full at first. What came is always taken, into debt if need be; the debt says how
/// long to wait before reading on, so nothing is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again.
    full_at: Duration,
}

impl Bucket {
    /// Takes so many units.
    pub fn take(&mut self, rate: Rate, now: Duration, units: u64) {
        self.full_at = self.full_at.max(now).saturating_add(rate.time_of(units));
    }

    /// How long until there is room again; zero: now.
    pub fn wait(&self, rate: Rate, now: Duration) -> Duration {
        self.full_at.saturating_sub(rate.burst()).saturating_sub(now)
    }

    /// Whether it is as good as new.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

/// Rates of frames and bytes; none: as many as come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// WebSocket frames (control frames too) and HTTP requests.
    pub frames: Option<Rate>,
    /// Bytes of them.
    pub bytes: Option<Rate>,
}

impl Rates {
    /// Rates of two settings, of which 0 stands for none.
    pub fn new(frames_per_second: u64, bytes_per_second: u64, burst_seconds: u64) -> Self {
        let rate = |per_second| (per_second > 0).then_some(Rate { per_second, burst_seconds });
        Self { frames: rate(frames_per_second), bytes: rate(bytes_per_second) }
    }

    /// Whether there is no limit at all.
    pub fn is_unlimited(&self) -> bool {
        self.frames.is_none() && self.bytes.is_none()
    }
}

/// A bucket of frames beside one of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    frames: Bucket,
    bytes: Bucket,
}

impl Meter {
    /// Takes frames and bytes that came.
    pub fn take(&mut self, rates: &Rates, now: Duration, frames: u64, bytes: u64) {
        if let Some(rate) = rates.frames {
            self.frames.take(rate, now, frames);
        }
        if let Some(rate) = rates.bytes {
            self.bytes.take(rate, now, bytes);
        }
    }

    /// How long until there is room in both.
    pub fn wait(&self, rates: &Rates, now: Duration) -> Duration {
        let frames = rates.frames.map_or(Duration::ZERO, |rate| self.frames.wait(rate, now));
        let bytes = rates.bytes.map_or(Duration::ZERO, |rate| self.bytes.wait(rate, now));
        frames.max(bytes)
    }

    /// Whether both are as good as new.
    pub fn is_full(&self, now: Duration) -> bool {
        self.frames.is_full(now) && self.bytes.is_full(now)
    }
}

/// The least that must come of what has begun: a byte a millisecond, with a grace that is never exceeded in advance.
const MILLISECONDS_PER_BYTE: u64 = 1;

/// Keeps whoever began a body or a message from taking for ever over it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    grace: Duration,
    deadline: Duration,
}

impl Pace {
    /// It begins now.
    pub fn new(now: Duration, grace: Duration) -> Self {
        Self { grace, deadline: now.saturating_add(grace) }
    }

    /// So many bytes came.
    pub fn received(&mut self, now: Duration, bytes: u64) {
        let earned = Duration::from_millis(bytes.saturating_mul(MILLISECONDS_PER_BYTE));
        self.deadline = self.deadline.saturating_add(earned).min(now.saturating_add(self.grace));
    }

    /// The host did not read: nobody is to blame.
    pub fn pause(&mut self, now: Duration) {
        self.deadline = now.saturating_add(self.grace);
    }

    /// The host did not read for so long, because it had to write: the client is not to blame.
    pub fn excuse(&mut self, time: Duration) {
        self.deadline = self.deadline.saturating_add(time);
    }

    /// When it is too slow.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate { per_second: 10, burst_seconds: 2 };
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            assert_eq!(bucket.wait(rate, seconds(5)), Duration::ZERO);
            bucket.take(rate, seconds(5), 1);
        }
        assert_eq!(bucket.wait(rate, seconds(5)), Duration::ZERO, "exactly empty is no debt");
        bucket.take(rate, seconds(5), 1);
        assert_eq!(bucket.wait(rate, seconds(5)), Duration::from_millis(100));
        assert_eq!(bucket.wait(rate, Duration::from_millis(5099)), Duration::from_millis(1));
        assert_eq!(bucket.wait(rate, Duration::from_millis(5100)), Duration::ZERO);
        assert!(!bucket.is_full(seconds(7)));
        assert!(bucket.is_full(seconds(8)));
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_taken_and_waited_for() {
        let rate = Rate { per_second: 1000, burst_seconds: 1 };
        let mut bucket = Bucket::default();
        bucket.take(rate, seconds(0), 16_000);
        assert_eq!(bucket.wait(rate, seconds(0)), seconds(15));
        bucket.take(rate, seconds(0), u64::MAX);
        assert!(bucket.wait(rate, seconds(0)) > seconds(1 << 30));
    }

    #[test]
    fn both_buckets_must_have_room() {
        let rates = Rates::new(10, 1000, 1);
        let mut meter = Meter::default();
        meter.take(&rates, seconds(1), 1, 3000);
        assert_eq!(meter.wait(&rates, seconds(1)), seconds(2));
        let mut meter = Meter::default();
        meter.take(&rates, seconds(1), 30, 3);
        assert_eq!(meter.wait(&rates, seconds(1)), seconds(2));
        assert!(!meter.is_full(seconds(3)));
        assert!(meter.is_full(seconds(4)));
        meter.take(&Rates::new(0, 0, 1), seconds(1), u64::MAX, u64::MAX);
        assert_eq!(meter.wait(&Rates::default(), seconds(1)), Duration::ZERO);
    }

    #[test]
    fn a_pace_ends_for_who_sends_too_little_and_never_for_who_sends_enough() {
        let mut drip = Pace::new(seconds(0), seconds(30));
        for second in 0..30 {
            assert!(drip.deadline() > seconds(second));
            drip.received(seconds(second), 1);
        }
        assert!(drip.deadline() < seconds(31));
        let mut steady = Pace::new(seconds(0), seconds(30));
        for second in 0..10_000 {
            assert!(steady.deadline() > seconds(second));
            steady.received(seconds(second), 1000);
        }
        steady.received(seconds(10_000), 1 << 40);
        assert_eq!(steady.deadline(), seconds(10_030), "no credit beyond the grace");
        steady.pause(seconds(20_000));
        assert_eq!(steady.deadline(), seconds(20_030));
    }

    proptest! {
        /// Whoever reads only when there is room never gets more than the burst, the rate's share of the time, and the
        /// one piece that went into debt; and is never kept waiting for longer than what it took stands for.
        #[test]
        fn a_reader_that_waits_gets_what_the_rate_gives(
            per_second in 1_u64..1_000_000,
            burst_seconds in 1_u64..10,
            pieces in proptest::collection::vec((0_u64..100_000, 0_u64..2_000_000_000), 1..200),
        ) {
            let rate = Rate { per_second, burst_seconds };
            let (mut bucket, mut now, mut taken, mut largest) = (Bucket::default(), Duration::ZERO, 0_u128, 0);
            for (units, pause_ns) in pieces {
                now += Duration::from_nanos(pause_ns);
                let wait = bucket.wait(rate, now);
                now += wait;
                prop_assert_eq!(bucket.wait(rate, now), Duration::ZERO, "the wait is enough");
                bucket.take(rate, now, units);
                taken += u128::from(units);
                largest = largest.max(units);
                let allowed = u128::from(per_second) * (u128::from(burst_seconds) * 1_000_000_000 + now.as_nanos()) / 1_000_000_000;
                prop_assert!(taken <= allowed + u128::from(largest) + 1);
                let owed = rate.time_of(units).saturating_add(Duration::from_nanos(1));
                prop_assert!(bucket.wait(rate, now) <= owed, "debts do not pile up");
            }
        }
    }
}
