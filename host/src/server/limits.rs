//! What clients may take: settings, and the book of who has how much. The book is a state machine with the time as a
//! parameter.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use super::address::AddressKey;
use super::rate::{Meter, Rates};

/// Connections of one public address where nothing else is set.
const CONNECTIONS_PER_ADDRESS_DEFAULT: u64 = 1000;
/// Failed logins of one public address in a window where nothing else is set.
const FAILED_LOGINS_PER_ADDRESS_DEFAULT: u64 = 100;
/// Addresses with failed logins that are remembered, in each of two windows.
const FAILURES_REMEMBERED_MAX: usize = 16_384;
/// Addresses without a connection that are remembered until their buckets are full again.
const ABSENT_REMEMBERED_MAX: usize = 16_384;

/// The `[limits]` of the configuration. 0 stands for no limit everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections of the process. File descriptors bound it too.
    pub connections: u64,
    /// Open connections of one address. None: 1000 for public addresses.
    pub connections_per_address: Option<u64>,
    /// Refused logins of one address in a window. None: 100 for public addresses.
    pub failed_logins_per_address: Option<u64>,
    /// The window of failed logins, in seconds.
    pub failed_login_window_seconds: u64,
    /// WebSocket frames and HTTP requests a second, of one connection.
    pub frames_per_second: u64,
    /// Bytes of them a second, of one connection.
    pub bytes_per_second: u64,
    /// The same of all connections of one address.
    pub frames_per_second_per_address: u64,
    /// The same of all connections of one address.
    pub bytes_per_second_per_address: u64,
    /// How many seconds' worth may come at once.
    pub burst_seconds: u64,
    /// Time for the first byte of a connection, and for the head of a request, in milliseconds.
    pub head_timeout_ms: u64,
    /// Time without enough progress in a body, a message or a write, in milliseconds.
    pub stall_timeout_ms: u64,
    /// Bytes that may wait in the queues of all connections of one mount.
    pub mount_queue_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_address: None,
            failed_logins_per_address: None,
            failed_login_window_seconds: 60,
            frames_per_second: 0,
            bytes_per_second: 0,
            frames_per_second_per_address: 0,
            bytes_per_second_per_address: 0,
            burst_seconds: 10,
            head_timeout_ms: 30_000,
            stall_timeout_ms: 60_000,
            mount_queue_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// What is wrong: the key and why.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let at_least_one = [
            ("failed_login_window_seconds", self.failed_login_window_seconds),
            ("burst_seconds", self.burst_seconds),
            ("head_timeout_ms", self.head_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
        ];
        at_least_one.into_iter().find(|(_, value)| *value == 0).map(|(key, _)| (key, "must be at least 1"))
    }

    /// The rates of one connection.
    pub fn connection_rates(&self) -> Rates {
        Rates::new(self.frames_per_second, self.bytes_per_second, self.burst_seconds)
    }

    /// Time for a head.
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    /// Time without progress.
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms)
    }

    fn address_rates(&self) -> Rates {
        Rates::new(self.frames_per_second_per_address, self.bytes_per_second_per_address, self.burst_seconds)
    }
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process has as many as it may.
    Full,
    /// The address has as many as it may.
    AddressFull,
}

/// A limit of one address. Local addresses, behind which a proxy may stand for everybody, have one only if it was set.
#[derive(Clone, Copy, Debug)]
struct PerAddress {
    set: Option<u64>,
    default: u64,
}

impl PerAddress {
    fn of(self, key: AddressKey) -> u64 {
        let limit = self.set.unwrap_or(if key.is_local() { 0 } else { self.default });
        if limit == 0 { u64::MAX } else { limit }
    }
}

#[derive(Debug, Default)]
struct Entry {
    connections: u64,
    meter: Meter,
}

/// Who has how many connections, how much room, and how many failed logins.
#[derive(Debug)]
pub struct AddressBook {
    connections_max: u64,
    per_address: PerAddress,
    rates: Rates,
    connections: u64,
    entries: HashMap<AddressKey, Entry>,
    /// The number of entries at which absent ones are forgotten.
    sweep_at: usize,
    failures: Failures,
}

impl AddressBook {
    /// An empty book. `connections_possible` is what the process could hold at all.
    pub fn new(limits: &Limits, connections_possible: u64) -> Self {
        let configured = if limits.connections == 0 { u64::MAX } else { limits.connections };
        Self {
            connections_max: configured.min(connections_possible),
            per_address: PerAddress { set: limits.connections_per_address, default: CONNECTIONS_PER_ADDRESS_DEFAULT },
            rates: limits.address_rates(),
            connections: 0,
            entries: HashMap::new(),
            sweep_at: ABSENT_REMEMBERED_MAX,
            failures: Failures {
                limit: PerAddress { set: limits.failed_logins_per_address, default: FAILED_LOGINS_PER_ADDRESS_DEFAULT },
                window: Duration::from_secs(limits.failed_login_window_seconds),
                ..Failures::default()
            },
        }
    }

    /// A connection of the process, before anybody knows whom it is for.
    pub fn open(&mut self) -> Result<(), Refusal> {
        if self.connections >= self.connections_max {
            return Err(Refusal::Full);
        }
        self.connections += 1;
        Ok(())
    }

    /// It is gone.
    pub fn close(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// A connection of an address.
    pub fn enter(&mut self, key: AddressKey, now: Duration) -> Result<(), Refusal> {
        let limit = self.per_address.of(key);
        self.sweep(now);
        let entry = self.entries.entry(key).or_default();
        if entry.connections >= limit {
            return Err(Refusal::AddressFull);
        }
        entry.connections += 1;
        Ok(())
    }

    /// It is gone.
    pub fn leave(&mut self, key: AddressKey, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.connections = entry.connections.saturating_sub(1);
            // The buckets of an address outlive its connections: else a new connection would be a new bucket.
            if entry.connections == 0 && entry.meter.is_full(now) {
                self.entries.remove(&key);
            }
        }
    }

    /// Whether addresses have buckets.
    pub fn has_rates(&self) -> bool {
        !self.rates.is_unlimited()
    }

    /// Frames and bytes of an address came; how long until there is room for more.
    pub fn take(&mut self, key: AddressKey, now: Duration, frames: u64, bytes: u64) -> Duration {
        self.sweep(now);
        let rates = self.rates;
        let entry = self.entries.entry(key).or_default();
        entry.meter.take(&rates, now, frames, bytes);
        entry.meter.wait(&rates, now)
    }

    /// How long until there is room for more of an address.
    pub fn wait(&self, key: AddressKey, now: Duration) -> Duration {
        self.entries.get(&key).map_or(Duration::ZERO, |entry| entry.meter.wait(&self.rates, now))
    }

    /// A login of an address failed.
    pub fn failed_login(&mut self, key: AddressKey, now: Duration) {
        self.failures.add(key, now);
    }

    /// How long an address may not try again, if it may not.
    pub fn locked_out(&mut self, key: AddressKey, now: Duration) -> Option<Duration> {
        self.failures.locked_out(key, now)
    }

    /// Forgets addresses without connections, now and then: those with full buckets, or all if there are too many.
    fn sweep(&mut self, now: Duration) {
        if self.entries.len() < self.sweep_at {
            return;
        }
        self.entries.retain(|_, entry| entry.connections > 0 || !entry.meter.is_full(now));
        let absent = self.entries.values().filter(|entry| entry.connections == 0).count();
        if absent >= ABSENT_REMEMBERED_MAX {
            self.entries.retain(|_, entry| entry.connections > 0);
        }
        self.sweep_at = self.entries.len() * 2 + ABSENT_REMEMBERED_MAX;
    }
}

/// Failed logins in two windows, of which the older counts by the part of it that is not past yet. Where one is full of
/// addresses the next begins early: the oldest are forgotten first, and memory stays bounded.
#[derive(Debug)]
struct Failures {
    limit: PerAddress,
    window: Duration,
    started: Duration,
    current: HashMap<AddressKey, u64>,
    previous: HashMap<AddressKey, u64>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            limit: PerAddress { set: Some(0), default: 0 },
            window: Duration::from_secs(60),
            started: Duration::ZERO,
            current: HashMap::new(),
            previous: HashMap::new(),
        }
    }
}

impl Failures {
    fn add(&mut self, key: AddressKey, now: Duration) {
        if self.limit.of(key) == u64::MAX {
            return;
        }
        self.turn(now);
        if self.current.len() >= FAILURES_REMEMBERED_MAX && !self.current.contains_key(&key) {
            self.previous = std::mem::take(&mut self.current);
            self.started = now;
        }
        *self.current.entry(key).or_default() += 1;
    }

    fn locked_out(&mut self, key: AddressKey, now: Duration) -> Option<Duration> {
        let limit = self.limit.of(key);
        if limit == u64::MAX {
            return None;
        }
        self.turn(now);
        let left = (self.started + self.window).saturating_sub(now);
        let window_ms = self.window.as_millis().max(1);
        let current = u128::from(self.current.get(&key).copied().unwrap_or(0));
        let previous = u128::from(self.previous.get(&key).copied().unwrap_or(0)) * left.as_millis() / window_ms;
        (current + previous >= u128::from(limit)).then(|| left.max(Duration::from_secs(1)))
    }

    /// Begins a new window where the last one is over.
    fn turn(&mut self, now: Duration) {
        let past = now.saturating_sub(self.started);
        if past >= self.window {
            let last = std::mem::take(&mut self.current);
            self.previous = if past < self.window * 2 { last } else { HashMap::new() };
            self.started = if past < self.window * 2 { self.started + self.window } else { now };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn key(number: u32) -> AddressKey {
        AddressKey::new(IpAddr::V4(Ipv4Addr::from_bits(0x0800_0000 + number)))
    }

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn the_process_and_each_address_have_so_many_connections_and_no_more() {
        let limits = Limits { connections: 3, connections_per_address: Some(2), ..Limits::default() };
        let mut book = AddressBook::new(&limits, u64::MAX);
        assert_eq!([book.open(), book.open(), book.open(), book.open()], [Ok(()), Ok(()), Ok(()), Err(Refusal::Full)]);
        book.close();
        assert_eq!([book.open(), book.open()], [Ok(()), Err(Refusal::Full)]);
        let enter = |book: &mut AddressBook, number| book.enter(key(number), seconds(0));
        assert_eq!([enter(&mut book, 1), enter(&mut book, 1), enter(&mut book, 1)], [Ok(()), Ok(()), Err(Refusal::AddressFull)]);
        assert_eq!(enter(&mut book, 2), Ok(()));
        book.leave(key(1), seconds(0));
        assert_eq!([enter(&mut book, 1), enter(&mut book, 1)], [Ok(()), Err(Refusal::AddressFull)]);
        [1, 1, 2].into_iter().for_each(|number| book.leave(key(number), seconds(0)));
        assert!(book.entries.is_empty());
        let mut narrow = AddressBook::new(&Limits { connections: 0, ..Limits::default() }, 1);
        assert_eq!([narrow.open(), narrow.open()], [Ok(()), Err(Refusal::Full)], "no limit does not make room");
    }

    #[test]
    fn local_addresses_have_limits_only_where_they_were_set() {
        let (public, local) = (key(1), AddressKey::new(LOOPBACK));
        let default = PerAddress { set: None, default: 7 };
        assert_eq!((default.of(public), default.of(local)), (7, u64::MAX));
        let set = PerAddress { set: Some(3), default: 7 };
        assert_eq!((set.of(public), set.of(local)), (3, 3));
        let off = PerAddress { set: Some(0), default: 7 };
        assert_eq!((off.of(public), off.of(local)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_new_connection_is_no_new_bucket() {
        let limits = Limits { bytes_per_second_per_address: 1000, burst_seconds: 1, ..Limits::default() };
        let mut book = AddressBook::new(&limits, u64::MAX);
        assert!(book.has_rates());
        book.enter(key(1), seconds(1)).unwrap();
        assert_eq!(book.take(key(1), seconds(1), 1, 5000), seconds(4));
        book.leave(key(1), seconds(1));
        assert_eq!(book.wait(key(1), seconds(2)), seconds(3));
        book.enter(key(1), seconds(2)).unwrap();
        assert_eq!(book.wait(key(1), seconds(2)), seconds(3));
        assert_eq!(book.wait(key(2), seconds(2)), seconds(0));
        book.leave(key(1), seconds(100));
        assert!(book.entries.is_empty());
    }

    #[test]
    fn addresses_that_come_and_go_do_not_fill_memory() {
        let limits = Limits { bytes_per_second_per_address: 1, burst_seconds: 1, failed_logins_per_address: Some(5), ..Limits::default() };
        let mut book = AddressBook::new(&limits, u64::MAX);
        book.enter(key(0), seconds(0)).unwrap();
        for number in 1..200_000 {
            book.enter(key(number), seconds(1)).unwrap();
            book.take(key(number), seconds(1), 1, 1 << 30);
            book.leave(key(number), seconds(1));
            book.failed_login(key(number), seconds(1));
        }
        assert!(book.entries.len() <= 3 * ABSENT_REMEMBERED_MAX, "{}", book.entries.len());
        assert!(book.entries.contains_key(&key(0)), "who is connected stays");
        assert!(book.failures.current.len() + book.failures.previous.len() <= 2 * FAILURES_REMEMBERED_MAX);
    }

    #[test]
    fn failed_logins_lock_an_address_out_until_enough_of_them_are_past() {
        let limits = Limits { failed_logins_per_address: Some(3), failed_login_window_seconds: 60, ..Limits::default() };
        let mut book = AddressBook::new(&limits, u64::MAX);
        for _ in 0..3 {
            assert_eq!(book.locked_out(key(1), seconds(100)), None);
            book.failed_login(key(1), seconds(100));
        }
        let wait = book.locked_out(key(1), seconds(110)).unwrap();
        assert!(wait >= seconds(1) && wait <= seconds(60), "{wait:?}");
        assert_eq!(book.locked_out(key(2), seconds(110)), None);
        assert_eq!(book.locked_out(key(1), seconds(110) + wait + seconds(1)), None);
        // Most of the last window still counts: one more is too many.
        book.failed_login(key(1), seconds(122));
        assert!(book.locked_out(key(1), seconds(122)).is_some());
        assert_eq!(book.locked_out(key(1), seconds(300)), None);
        let mut open = AddressBook::new(&Limits::default(), u64::MAX);
        (0..1000).for_each(|_| open.failed_login(AddressKey::new(LOOPBACK), seconds(1)));
        assert_eq!(open.locked_out(AddressKey::new(LOOPBACK), seconds(1)), None);
        assert!(open.failures.current.is_empty());
    }
}
