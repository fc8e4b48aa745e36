//! Deterministic simulation: the shipped component in the real host, on simulated disks, lines, clocks and randomness,
//! all from one seed. README.md beside this file tells what may go wrong, what is checked, and how to replay a seed.

mod engine;
mod secsync;

use engine::Report;
use engine::faults::Faults;
use engine::world::World;
use secsync::SecsyncModel;

/// Runs a seed with the faults that it draws.
fn run(seed: u64, printed: bool) -> Report {
    let faults = Faults::draw(&mut World::new(seed, Faults::none(), false).random(0xfa));
    run_with(seed, faults, printed)
}

fn run_with(seed: u64, faults: Faults, printed: bool) -> Report {
    engine::run(seed, faults, printed, |world| Box::new(SecsyncModel::new(world))).expect("the simulation can be run")
}

#[test]
fn first() {
    let seed = std::env::var("SYNCLINE_SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let started = std::time::Instant::now();
    let report = run(seed, std::env::var("SYNCLINE_SIM_SEED").is_ok());
    println!("{seed}: {} events {} lives {:?} {}", report.events, report.lives, started.elapsed(), report.hash);
    for v in &report.violations { println!("  {v}"); }
}
