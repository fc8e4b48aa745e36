//! What all cases share: how long and how often, where, and what was measured so far.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::Contestant;
use crate::report::{Case, Entry};

/// The run.
pub struct Context {
    /// Rounds after the warm-up.
    pub rounds: u32,
    /// How long a round is.
    pub window: Duration,
    /// Everything small: does it work at all?
    pub quick: bool,
    /// Component files that are compared with the shipped one.
    pub components: Vec<PathBuf>,
    /// Only cases whose name holds this.
    pub only: Option<String>,
    /// A folder on the disk that is measured.
    pub folder: PathBuf,
    /// What was measured so far.
    pub cases: Vec<Case>,
}

impl Context {
    /// Whether a case is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
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
    pub async fn compare(&mut self, name: &str, operation: &str, mut contestants: Vec<Box<dyn Contestant>>) -> anyhow::Result<()> {
        for contestant in &mut contestants {
            contestant.round(self.window / 2).await?;
        }
        let mut samples = vec![Vec::new(); contestants.len()];
        for _ in 0..self.rounds {
            for (contestant, samples) in contestants.iter_mut().zip(&mut samples) {
                samples.push(contestant.round(self.window).await?);
            }
        }
        let entries = contestants.iter().zip(samples).map(|(contestant, samples)| Entry::new(contestant.name(), samples)).collect();
        self.add(Case::new(name, operation, entries));
        Ok(())
    }

    /// Takes the figures of a case.
    pub fn add(&mut self, case: Case) {
        println!("{}", case.table());
        self.cases.push(case);
    }
}
