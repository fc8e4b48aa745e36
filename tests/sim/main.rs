//! Deterministic simulation: the shipped component in the real host, on simulated disks, lines, clocks and randomness,
//! all from one seed. README.md beside this file tells what may go wrong, what is checked, and how to replay a seed.

mod engine;
mod plasma;
mod secsync;

use std::time::Duration;

use serde::Deserialize;
use syncline_tests::scale;

use engine::Report;
use engine::faults::Faults;
use engine::model::ProtocolModel;
use engine::world::World;
use plasma::PlasmaModel;
use secsync::SecsyncModel;

/// Seeds of each half of a run at scale 1.
const SEEDS: u64 = 14;
/// Runs in which a breach must be noticed at the latest.
const BREACHED_RUNS_MAX: u64 = 8;

/// What is run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    #[default]
    Secsync,
    Plasma,
}

use Protocol::{Plasma, Secsync};

impl Protocol {
    fn model(self, world: &World) -> Box<dyn ProtocolModel> {
        match self {
            Secsync => Box::new(SecsyncModel::new(world)),
            Plasma => Box::new(PlasmaModel::new(world)),
        }
    }

    /// The test that runs one seed.
    fn one_seed(self) -> &'static str {
        match self {
            Secsync => "one_seed",
            Plasma => "one_plasma_seed",
        }
    }
}

/// The faults that a seed draws.
fn drawn(seed: u64) -> Faults {
    Faults::draw(&mut World::new(seed, Faults::default(), false).random(0xfa))
}

fn run(protocol: Protocol, seed: u64, faults: Faults, printed: bool) -> Report {
    engine::run(seed, faults, printed, |world| protocol.model(world)).expect("the simulation can be run")
}

/// Runs a seed; panics with all that is needed to see it again.
fn judge(protocol: Protocol, seed: u64) {
    let report = run(protocol, seed, drawn(seed), false);
    println!("{protocol:?} seed {seed}: {} events, {} lives, {}", report.events, report.lives, report.hash);
    assert!(
        report.violations.is_empty(),
        "{protocol:?} seed {seed} ({} lives):\n{}\n… {}\nrun it again: SYNCLINE_SIM_SEED={seed} cargo nextest run --no-capture -E 'test({})'",
        report.lives,
        report.last_notes.join("\n"),
        report.violations.join("\n"),
        protocol.one_seed()
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {value:?}")))
}

/// Every other seed from a first one: two tests share the cores.
fn judge_half(protocol: Protocol, half: u64) {
    let first = number("SYNCLINE_SIM_FIRST").unwrap_or(1);
    (0..SEEDS * u64::from(scale())).for_each(|index| judge(protocol, first + 2 * index + half));
}

#[test]
fn odd_seeds_keep_every_promise() {
    judge_half(Secsync, 0);
}

#[test]
fn even_seeds_keep_every_promise() {
    judge_half(Secsync, 1);
}

#[test]
fn odd_seeds_of_plasma_keep_every_promise() {
    judge_half(Plasma, 0);
}

#[test]
fn even_seeds_of_plasma_keep_every_promise() {
    judge_half(Plasma, 1);
}

/// With `SYNCLINE_SIM_SEED` this seed, and its trace on the standard output; else the first.
fn judge_named(protocol: Protocol) {
    let named = number("SYNCLINE_SIM_SEED");
    let seed = named.unwrap_or(1);
    let report = run(protocol, seed, drawn(seed), named.is_some());
    assert!(report.violations.is_empty(), "seed {seed}: {}", report.violations.join("\n"));
}

#[test]
fn one_seed() {
    judge_named(Secsync);
}

#[test]
fn one_plasma_seed() {
    judge_named(Plasma);
}

/// The bug base: seeds that once found something.
#[derive(Deserialize)]
struct Bugs {
    bug: Vec<Bug>,
}

#[derive(Deserialize)]
struct Bug {
    #[serde(default)]
    protocol: Protocol,
    seed: u64,
    found: String,
    date: String,
}

#[test]
fn what_was_found_once_is_not_found_again() {
    let bugs: Bugs = toml::from_str(include_str!("bugs.toml")).expect("the bug base can be read");
    for bug in bugs.bug {
        println!("{} ({})", bug.found, bug.date);
        judge(bug.protocol, bug.seed);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for (protocol, seed) in [(Secsync, 3), (Secsync, 8), (Plasma, 3), (Plasma, 8)] {
        let (once, again) = (run(protocol, seed, drawn(seed), false), run(protocol, seed, drawn(seed), false));
        assert_eq!((once.events, once.hash), (again.events, again.hash), "{protocol:?} seed {seed}");
    }
}

#[test]
fn nothing_is_wrong_where_nothing_goes_wrong() {
    for protocol in [Secsync, Plasma] {
        let report = run(protocol, 1, Faults::none(), false);
        assert_eq!((report.violations, report.lives), (Vec::new(), 1), "{protocol:?}");
    }
}

/// Runs seeds with a breach of what the product rests on until the oracle complains.
fn is_noticed(protocol: Protocol, faults: &Faults, complaint: &str) {
    let complaints = |seed| run(protocol, seed, faults.clone(), false).violations;
    let all: Vec<String> = (1..=BREACHED_RUNS_MAX).map(complaints).find(|violations| !violations.is_empty()).unwrap_or_default();
    assert!(all.iter().any(|violation| violation.contains(complaint)), "{complaint:?} was expected: {all:?}");
}

fn lying_disk() -> Faults {
    let crash_mean_ms = u64::try_from(Duration::from_secs(3).as_millis()).expect("a few seconds");
    Faults { lying_disk: true, crash_mean_ms, ..Faults::none() }
}

#[test]
fn a_disk_that_lies_is_noticed() {
    is_noticed(Secsync, &lying_disk(), "");
}

#[test]
fn a_lost_broadcast_is_noticed() {
    is_noticed(Secsync, &Faults { lost_frames: 0.01, ..Faults::none() }, "");
}

#[test]
fn a_broadcast_that_comes_twice_is_noticed() {
    is_noticed(Secsync, &Faults { doubled_frames: 0.01, ..Faults::none() }, "");
}

#[test]
fn a_disk_that_lies_to_plasma_is_noticed() {
    is_noticed(Plasma, &lying_disk(), "");
}

#[test]
fn a_row_that_is_left_out_of_a_pull_is_noticed() {
    is_noticed(Plasma, &Faults { omitted_rows: 0.02, ..Faults::none() }, "at version");
}

#[test]
fn a_push_that_is_acknowledged_and_lost_is_noticed() {
    is_noticed(Plasma, &Faults { forged_answers: 0.02, ..Faults::none() }, "acknowledged, and not durable");
}
