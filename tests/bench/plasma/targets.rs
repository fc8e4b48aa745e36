//! What is to hold of the figures, and whether it does.

use super::{Growing, Measured};
use crate::judge::{FLAT, Judge, quotient};
use crate::machine::Disk;
use crate::report::{Case, Target};

/// Mutators in the settings, in Rust and in TypeScript.
pub const MUTATORS: &str = "plasma-reads/mutators of settings and of apps";
/// Pulls that find nothing.
pub const IDLE_PULLS: &str = "plasma/pulls that find nothing, 16 connections";
/// Pulls that find a little.
pub const DELTA_PULLS: &str = "plasma/pulls that find 10 rows, 8 connections";
/// Live queries.
pub const LIVE: &str = "plasma-reads/live queries of 500 subscribers";
/// Queries.
pub const QUERIES: &str = "plasma-reads/queries of 20 rows, 8 connections";
/// Queries about the past.
pub const PAST: &str = "plasma-reads/queries of the past, 8 connections";
/// Blobs that go out.
pub const DOWNLOADS: &str = "plasma-reads/downloads of blobs, 4 connections";
/// Blobs that come in.
pub const UPLOADS: &str = "plasma-reads/uploads of blobs, 4 connections";
/// Loads of everything.
pub const FIRST_LOAD: &str = "plasma/first load";
/// Two clients from npm.
pub const REAL_CLIENT: &str = "plasma/from a real client to another";

/// Listeners whose pokes are judged.
const READERS: usize = 500;
/// Connections whose pushes are judged.
const IN_FLIGHT: u32 = 64;

/// The name of a case of pushes.
pub fn pushes_name(connections: usize) -> String {
    format!("plasma/pushes of 1 mutation, {connections} connections")
}

/// The name of a case of pokes.
pub fn pokes_name(readers: usize) -> String {
    format!("plasma/poke to {readers} listeners")
}

/// The name of a case of growth.
pub fn growth_name(growing: Growing, measured: Measured) -> String {
    let growing = match growing {
        Growing::Rows => "rows",
        Growing::Log => "log entries",
    };
    let measured = match measured {
        Measured::Pushes => "pushes",
        Measured::IdlePulls => "pulls that find nothing",
        Measured::DeltaPulls => "pulls that find 10 rows",
    };
    format!("plasma/growth of {growing}, {measured}")
}

/// Judges a run.
pub fn judge(cases: &[Case], disk: Disk) -> Vec<Target> {
    let mut judge = Judge::new(cases);
    judge.durable_writes(&pushes_name(IN_FLIGHT as usize), IN_FLIGHT, disk);
    let reads = [(IDLE_PULLS, "pulls that find nothing"), (DELTA_PULLS, "pulls that find ten rows"), (FIRST_LOAD, "rows of a first load")];
    for (name, what) in reads {
        three_times_the_peer(&mut judge, name, what);
    }
    let pokes = pokes_name(READERS);
    judge.deliveries(&pokes, READERS);
    let listener = judge.case(&pokes).and_then(|case| case.figures.get("syncline: KiB of resident memory a listener").copied());
    judge.judge("a listener takes at most 32 KiB", listener.map(|kib| (kib, format!("{kib:.1} KiB"))), |kib| kib <= 32.0);
    for growing in [Growing::Rows, Growing::Log] {
        for measured in [Measured::Pushes, Measured::IdlePulls, Measured::DeltaPulls] {
            let name = growth_name(growing, measured);
            let grown = judge.case(&name).and_then(|case| Some((case.entries.first()?, case.entries.last()?)));
            let cpu = grown.map(|(first, last)| quotient(last.cpu_us.median, first.cpu_us.median, "µs"));
            let text = format!("{}: CPU stays flat (within 1.2)", name.trim_start_matches("plasma/"));
            judge.judge(&text, cpu, |ratio| ratio <= FLAT);
        }
    }
    judge.targets
}

/// Judges a run of queries, live queries, blobs and mutators.
pub fn judge_reads(cases: &[Case], _disk: Disk) -> Vec<Target> {
    let mut judge = Judge::new(cases);
    three_times_the_peer(&mut judge, QUERIES, "queries of twenty rows");
    judge.targets
}

fn three_times_the_peer(judge: &mut Judge<'_>, name: &str, what: &str) {
    let compared = judge.entry(name, "syncline").zip(judge.entry(name, "node peer"));
    let rate = compared.map(|(ours, peer)| quotient(ours.rate.median, peer.rate.median, "/s"));
    judge.judge(&format!("{what} are at least three times the Node peer's"), rate, |ratio| ratio >= 3.0);
}
