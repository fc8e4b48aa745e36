//! What is to hold of the figures, and whether it does.

use crate::judge::{FLAT, Judge, quotient};
use crate::machine::Disk;
use crate::report::{Case, Target};

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

/// The name of a fan-out.
pub fn fan_out_name(readers: usize) -> String {
    format!("secsync/fan-out of an update to {readers} readers")
}

/// Judges a run.
pub fn judge(cases: &[Case], disk: Disk) -> Vec<Target> {
    let mut judge = Judge::new(cases);
    judge.durable_writes(&super::writes_name(64, 64), 64, disk);
    judge.deliveries(&fan_out_name(500), 500);

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
