//! What all cases share: how long and how often, where, and what was measured so far.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;

use crate::load::Contestant;
use crate::report::{Case, Entry, Sample};

/// What a round may take beyond its window: whoever takes longer hangs.
const ROUND_OVERTIME: Duration = Duration::from_secs(60);

/// The run.
pub struct Context {
    /// Rounds after the warm-up.
    pub rounds: u32,
    /// How long a round is.
    pub window: Duration,
    /// Everything small: does it work at all?
    pub quick: bool,
    /// Also what takes many minutes.
    pub large: bool,
    /// Component files that are compared with the shipped one.
    pub components: Vec<PathBuf>,
    /// Only cases whose name holds this.
    pub only: Option<String>,
    /// A folder on the disk that is measured.
    pub folder: PathBuf,
    /// When the run started.
    pub started: Instant,
    /// What was measured so far.
    pub cases: Vec<Case>,
    /// Cases that could not be measured, and why.
    pub failures: Vec<(String, String)>,
}

impl Context {
    /// Measures a case if it is asked for. One that fails does not take the others with it.
    pub async fn attempt(&mut self, name: &str, case: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>) {
        if self.only.as_deref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let seconds = self.started.elapsed().as_secs();
        eprintln!("[{}:{:02}] {name}", seconds / 60, seconds % 60);
        let failure = match AssertUnwindSafe(case(self)).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it panicked, see above".to_owned(),
        };
        eprintln!("{name}: {failure}");
        self.failures.push((name.to_owned(), failure));
    }

    /// The folder on the disk that is measured.
    pub fn disk(&self) -> &Path {
        &self.folder
    }

    /// The time of all rounds, the warm-up among them, in whole seconds.
    pub fn seconds(&self) -> u64 {
        self.window.mul_f64(f64::from(self.rounds) + 1.0).as_secs() + 1
    }

    /// Warms all up, then lets them take turns: A B A B.
    pub async fn compare(&self, name: &str, operation: &str, mut contestants: Vec<Box<dyn Contestant>>) -> anyhow::Result<Case> {
        for contestant in &mut contestants {
            round(contestant.as_mut(), self.window / 2).await?;
        }
        let mut samples = vec![Vec::new(); contestants.len()];
        for _ in 0..self.rounds {
            for (contestant, samples) in contestants.iter_mut().zip(&mut samples) {
                samples.push(round(contestant.as_mut(), self.window).await?);
            }
        }
        let entries = contestants.iter().zip(samples).map(|(contestant, samples)| Entry::new(contestant.name(), samples)).collect();
        Ok(Case::new(name, operation, entries))
    }

    /// Takes the figures of a case.
    pub fn add(&mut self, case: Case) {
        println!("{}", case.table());
        self.cases.push(case);
    }
}

/// A round that must end.
pub async fn round(contestant: &mut dyn Contestant, window: Duration) -> anyhow::Result<Sample> {
    let result = tokio::time::timeout(window + ROUND_OVERTIME, contestant.round(window)).await;
    result.context("a round does not end")?.with_context(|| contestant.name().to_owned())
}
