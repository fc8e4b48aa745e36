//! What is to hold of the figures, and whether it does.

use crate::machine::Disk;
use crate::report::{Case, Entry, Target};

/// The component against the logic compiled for this machine.
pub const COMPONENT: &str = "secsync/component and native, signatures not checked";
/// The same with signatures.
pub const COMPONENT_SIGNED: &str = "secsync/component and native, signatures checked";
/// Sockets that do nothing.
pub const IDLE: &str = "secsync/idle sockets";
/// Starts.
pub const START: &str = "secsync/start";
/// Of a start.
pub const WARM: &str = "syncline, compiled code in its cache";
/// A large number of writes.
pub const GROWTH: &str = "secsync/growth";

/// What a sync of the disk took beside a case, in milliseconds.
pub const SYNC: &str = "F beside this case, ms";

/// The name of a fan-out.
pub fn fan_out_name(readers: usize) -> String {
    format!("secsync/fan-out of an update to {readers} readers")
}

/// How many of a thing are in flight at most.
const IN_FLIGHT: f64 = 64.0;
/// What counts as flat.
const FLAT: f64 = 1.2;

struct Judge<'a> {
    cases: &'a [Case],
    targets: Vec<Target>,
}

impl Judge<'_> {
    fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }

    fn entry(&self, case: &str, entry: &str) -> Option<&Entry> {
        self.case(case)?.entry(entry)
    }

    /// `measured` must be at least or at most `limit`.
    fn judge(&mut self, text: &str, measured: Option<(f64, String)>, holds: impl FnOnce(f64) -> bool) {
        let (measured, holds) = match measured {
            Some((figure, text)) => (text, Some(holds(figure))),
            None => ("–".to_owned(), None),
        };
        self.targets.push(Target { text: text.to_owned(), measured, holds });
    }
}

/// The quotient of two figures, and how it reads.
fn quotient(figure: f64, base: f64, unit: &str) -> (f64, String) {
    (figure / base, format!("{figure:.1} of {base:.1} {unit} = {:.2}", figure / base))
}

/// Judges a run.
pub fn judge(cases: &[Case], disk: Disk) -> Vec<Target> {
    let mut judge = Judge { cases, targets: Vec::new() };
    writes(&mut judge, disk);
    fan_out(&mut judge);

    let compared = judge.entry(COMPONENT, "component").zip(judge.entry(COMPONENT, "native"));
    let measured = compared.map(|(ours, native)| quotient(ours.cpu_us.median, native.cpu_us.median, "µs"));
    judge.judge("the component costs at most 1.5 times native CPU, signatures apart", measured, |ratio| ratio <= 1.5);

    let socket = judge.case(IDLE).and_then(|case| case.figures.get("syncline: KiB of resident memory a socket").copied());
    judge.judge("an idle socket takes at most 20 KiB", socket.map(|kib| (kib, format!("{kib:.1} KiB"))), |kib| kib <= 20.0);
    let share =
        |name: &str| judge.case(IDLE).and_then(|case| case.figures.get(name).copied()).map(|share| (share, format!("{share:.2} %")));
    let (unused, open) =
        (share("syncline: per cent of a core without a connection"), share("syncline: per cent of a core with all of them"));
    judge.judge("a mount without a connection takes less than half a per cent of a core", unused, |share| share < 0.5);
    judge.judge("10,000 idle sockets take less than 2 % of a core, pings included", open, |share| share < 2.0);

    let grown = judge.case(GROWTH).and_then(|case| Some((case.entries.first()?, case.entries.last()?)));
    let cpu = grown.map(|(first, last)| quotient(last.cpu_us.median, first.cpu_us.median, "µs"));
    let memory =
        grown.map(|(first, last)| quotient(last.resident_bytes.median / 1048576.0, first.resident_bytes.median / 1048576.0, "MiB"));
    judge.judge("CPU a write stays flat (within 1.2) over a hundredfold of writes", cpu, |ratio| ratio <= FLAT);
    judge.judge("memory stays flat (within 1.2) over a hundredfold of writes", memory, |ratio| ratio <= FLAT);

    let warm = judge.entry(START, WARM).map(|entry| (entry.p50_ms.median, format!("{:.0} ms", entry.p50_ms.median)));
    judge.judge("a start with compiled code in the cache serves in under 100 ms", warm, |ms| ms < 100.0);
    judge.targets
}

fn writes(judge: &mut Judge<'_>, disk: Disk) {
    let name = super::writes_name(64, 64);
    let (ours, undurable, peer) = (judge.entry(&name, "syncline"), judge.entry(&name, "durability off"), judge.entry(&name, "node peer"));
    let sync_ms = judge.case(&name).and_then(|case| case.figures.get(SYNC).copied()).unwrap_or(disk.fdatasync_median_ms);
    let bound = undurable.map(|entry| entry.rate.median.min(IN_FLIGHT * 1e3 / sync_ms));
    let reached = ours.zip(bound).map(|(ours, bound)| quotient(ours.rate.median, bound, "/s"));
    let cpu = ours.zip(peer).map(|(ours, peer)| quotient(ours.cpu_us.median, peer.cpu_us.median, "µs"));
    let rate = ours.zip(peer).map(|(ours, peer)| quotient(ours.rate.median, peer.rate.median, "/s"));
    judge.judge(
        "durable writes at 64 connections reach 0.5 of the smaller of (rate with durability off, in flight ÷ F)",
        reached,
        |ratio| ratio >= 0.5,
    );
    judge.judge("CPU per durable write is at most half of the Node peer's", cpu, |ratio| ratio <= 0.5);
    let slow = rate.filter(|_| sync_ms >= 1.0);
    judge.judge("where F is 1 ms or more: 5 times the Node peer's rate at 64 in flight", slow, |ratio| ratio >= 5.0);
}

fn fan_out(judge: &mut Judge<'_>) {
    let name = fan_out_name(500);
    let (ours, peer, bare) = (judge.entry(&name, "syncline"), judge.entry(&name, "node peer"), judge.entry(&name, "bare loop"));
    let user = ours.zip(peer).map(|(ours, peer)| quotient(ours.user_us.median, peer.user_us.median, "µs"));
    let system = ours.zip(bare).map(|(ours, bare)| quotient(ours.system_us.median, bare.system_us.median, "µs"));
    judge.judge("user CPU per delivery at 500 readers is at most a third of the Node peer's", user, |ratio| ratio <= 1.0 / 3.0);
    judge.judge("system CPU per delivery at 500 readers is within 1.3 of a bare loop's", system, |ratio| ratio <= 1.3);
}
