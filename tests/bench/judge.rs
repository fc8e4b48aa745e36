//! What is to hold of figures, and whether it does: what the targets of all protocols share.

use crate::machine::Disk;
use crate::report::{Case, Entry, Target};

/// What a sync of the disk took beside a case of durable writes, in milliseconds.
pub const SYNC: &str = "F beside this case, ms";

/// What counts as flat.
pub const FLAT: f64 = 1.2;

/// Judges the cases of a run.
pub struct Judge<'a> {
    cases: &'a [Case],
    /// What was judged so far.
    pub targets: Vec<Target>,
}

impl<'a> Judge<'a> {
    /// Of these cases.
    pub fn new(cases: &'a [Case]) -> Self {
        Self { cases, targets: Vec::new() }
    }

    /// The case of a name.
    pub fn case(&self, name: &str) -> Option<&'a Case> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// One of those that a case compared, if its figures may be used.
    pub fn entry(&self, case: &str, entry: &str) -> Option<&'a Entry> {
        self.case(case)?.entry(entry)
    }

    /// `measured` must be at least or at most `limit`.
    pub fn judge(&mut self, text: &str, measured: Option<(f64, String)>, holds: impl FnOnce(f64) -> bool) {
        let (measured, holds) = match measured {
            Some((figure, text)) => (text, Some(holds(figure))),
            None => ("–".to_owned(), None),
        };
        self.targets.push(Target { text: text.to_owned(), measured, holds });
    }

    /// A case of durable writes with so many in flight, beside durability off and the peer.
    pub fn durable_writes(&mut self, name: &str, in_flight: u32, disk: Disk) {
        let (ours, undurable, peer) = (self.entry(name, "syncline"), self.entry(name, "durability off"), self.entry(name, "node peer"));
        let sync_ms = self.case(name).and_then(|case| case.figures.get(SYNC).copied()).unwrap_or(disk.fdatasync_median_ms);
        let bound = undurable.map(|entry| entry.rate.median.min(f64::from(in_flight) * 1e3 / sync_ms));
        let reached = ours.zip(bound).map(|(ours, bound)| quotient(ours.rate.median, bound, "/s"));
        let cpu = ours.zip(peer).map(|(ours, peer)| quotient(ours.cpu_us.median, peer.cpu_us.median, "µs"));
        let rate = ours.zip(peer).map(|(ours, peer)| quotient(ours.rate.median, peer.rate.median, "/s"));
        let text =
            format!("durable writes at {in_flight} connections reach 0.5 of the smaller of (rate with durability off, in flight ÷ F)");
        self.judge(&text, reached, |ratio| ratio >= 0.5);
        self.judge("CPU per durable write is at most half of the Node peer's", cpu, |ratio| ratio <= 0.5);
        let text = format!("where F is 1 ms or more: 5 times the Node peer's rate at {in_flight} in flight");
        self.judge(&text, rate.filter(|_| sync_ms >= 1.0), |ratio| ratio >= 5.0);
    }

    /// A case of deliveries to so many readers, beside the peer and the bare loop.
    pub fn deliveries(&mut self, name: &str, readers: usize) {
        let (ours, peer, bare) = (self.entry(name, "syncline"), self.entry(name, "node peer"), self.entry(name, "bare loop"));
        let user = ours.zip(peer).map(|(ours, peer)| quotient(ours.user_us.median, peer.user_us.median, "µs"));
        let system = ours.zip(bare).map(|(ours, bare)| quotient(ours.system_us.median, bare.system_us.median, "µs"));
        let text = format!("user CPU per delivery at {readers} readers is at most a third of the Node peer's");
        self.judge(&text, user, |ratio| ratio <= 1.0 / 3.0);
        let text = format!("system CPU per delivery at {readers} readers is within 1.3 of a bare loop's");
        self.judge(&text, system, |ratio| ratio <= 1.3);
    }
}

/// The quotient of two figures, and how it reads.
pub fn quotient(figure: f64, base: f64, unit: &str) -> (f64, String) {
    (figure / base, format!("{figure:.1} of {base:.1} {unit} = {:.2}", figure / base))
}
