//! Figures: samples of rounds, what they come to, JSON, tables, and docs/benchmarks.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::machine::{Cpu, Disk};

/// Above this share of its core the generator may have been what was measured.
const OWN_SHARE_MAX: f64 = 0.9;

/// What one round gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Operations.
    pub operations: u64,
    /// Operations a second.
    pub rate: f64,
    /// Half of the operations took less, in milliseconds.
    pub p50_ms: f64,
    /// All but a hundredth took less, in milliseconds.
    pub p99_ms: f64,
    /// Processor time of the server an operation, in microseconds, in the program.
    pub user_us: f64,
    /// The same in the kernel.
    pub system_us: f64,
    /// Resident memory of the server at the end, in bytes.
    pub resident_bytes: u64,
    /// Share of its core that the generator used; none where there is no generator.
    pub own_share: Option<f64>,
}

impl Sample {
    /// From the latencies of all operations; each counts `weight` times.
    pub fn new(mut latencies_us: Vec<u32>, elapsed: Duration, used: Cpu, weight: u32) -> Self {
        latencies_us.sort_unstable();
        let count = (latencies_us.len().max(1) as f64) * f64::from(weight);
        let quantile = |share: f64| {
            let index = (latencies_us.len() as f64 * share) as usize;
            f64::from(latencies_us.get(index).or(latencies_us.last()).copied().unwrap_or(0)) / 1e3
        };
        let operations = latencies_us.len() as u64 * u64::from(weight);
        Self {
            operations,
            rate: operations as f64 / elapsed.as_secs_f64(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            user_us: used.user_s * 1e6 / count,
            system_us: used.system_s * 1e6 / count,
            resident_bytes: 0,
            own_share: None,
        }
    }

    /// Processor time an operation, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Median, least and greatest of a figure over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(figures.len() / 2), min: at(0), max: at(figures.len().saturating_sub(1)) }
    }
}

/// All rounds of one of those that were compared.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Operations a second.
    pub rate: Spread,
    /// Milliseconds.
    pub p50_ms: Spread,
    /// Milliseconds.
    pub p99_ms: Spread,
    /// Microseconds an operation.
    pub user_us: Spread,
    /// Microseconds an operation.
    pub system_us: Spread,
    /// Microseconds an operation, user and system.
    pub cpu_us: Spread,
    /// Bytes.
    pub resident_bytes: Spread,
    /// The greatest share of its core that the generator used in a round.
    pub own_share: Option<f64>,
    /// Why its figures are not to be used, if so.
    pub refused: Option<String>,
    /// The rounds themselves.
    pub samples: Vec<Sample>,
}

impl Entry {
    /// Sums up the rounds.
    pub fn new(name: &str, samples: Vec<Sample>) -> Self {
        let own_share = samples.iter().filter_map(|sample| sample.own_share).reduce(f64::max);
        let busy = own_share.filter(|share| *share > OWN_SHARE_MAX);
        let refused = busy.map(|share| format!("the generator used {:.0} % of its core", share * 100.0));
        let spread = |figure: fn(&Sample) -> f64| Spread::of(&samples, figure);
        Self {
            name: name.to_owned(),
            rate: spread(|sample| sample.rate),
            p50_ms: spread(|sample| sample.p50_ms),
            p99_ms: spread(|sample| sample.p99_ms),
            user_us: spread(|sample| sample.user_us),
            system_us: spread(|sample| sample.system_us),
            cpu_us: spread(Sample::cpu_us),
            resident_bytes: spread(|sample| sample.resident_bytes as f64),
            own_share,
            refused,
            samples,
        }
    }
}

/// One case: what was done, and how each did.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Its name, unique.
    pub name: String,
    /// What one operation is.
    pub operation: String,
    /// Those that were compared, ours first.
    pub entries: Vec<Entry>,
    /// What does not fit into the table.
    pub figures: BTreeMap<String, f64>,
}

impl Case {
    /// A case with its entries.
    pub fn new(name: &str, operation: &str, entries: Vec<Entry>) -> Self {
        Self { name: name.to_owned(), operation: operation.to_owned(), entries, figures: BTreeMap::new() }
    }

    /// Adds a figure that does not fit into the table.
    pub fn figure(&mut self, name: &str, figure: f64) {
        self.figures.insert(name.to_owned(), figure);
    }

    /// The entry of a name whose figures may be used.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name && entry.refused.is_none())
    }

    /// As a table of Markdown, which is also what the terminal gets.
    pub fn table(&self) -> String {
        let mut table = format!("### {}\n\nOne operation: {}.\n\n", self.name, self.operation);
        table
            .push_str("| | rate /s (min – max) | of the first | p50 ms | p99 ms | CPU µs: user + system | of the first | resident MiB | generator |\n");
        table.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        let first = self.entries.first();
        for entry in &self.entries {
            let ratio = |figure: fn(&Entry) -> f64| match first.map(figure) {
                Some(base) if base > 0.0 => format!("{:.2}", figure(entry) / base),
                _ => "–".to_owned(),
            };
            let memory = entry.resident_bytes.median / f64::from(1 << 20);
            // Writing to a String does not fail.
            let _ = writeln!(
                table,
                "| {} | {} ({} – {}) | {} | {:.2} | {:.2} | {:.1} + {:.1} = {:.1} | {} | {} | {} |",
                entry.name,
                round(entry.rate.median),
                round(entry.rate.min),
                round(entry.rate.max),
                ratio(|entry| entry.rate.median),
                entry.p50_ms.median,
                entry.p99_ms.median,
                entry.user_us.median,
                entry.system_us.median,
                entry.cpu_us.median,
                ratio(|entry| entry.cpu_us.median),
                if memory > 0.0 { format!("{memory:.0}") } else { "–".to_owned() },
                entry.own_share.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
            );
        }
        for entry in &self.entries {
            if let Some(why) = &entry.refused {
                let _ = writeln!(table, "\n{} is not to be used: {why}.", entry.name);
            }
        }
        for (name, figure) in &self.figures {
            let _ = writeln!(table, "\n{name}: {figure:.2}");
        }
        table
    }
}

fn round(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// A target and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What is to hold.
    pub text: String,
    /// What was measured.
    pub measured: String,
    /// Whether it holds; none where it was not measured.
    pub holds: Option<bool>,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whose cases these are.
    pub protocol: &'static str,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The command line.
    pub command: String,
    /// The machine.
    pub machine: String,
    /// The commit that was measured.
    pub commit: String,
    /// Its disk.
    pub disk: Disk,
    /// The cases, in the order that they ran.
    pub cases: Vec<Case>,
    /// The targets.
    pub targets: Vec<Target>,
    /// Cases that could not be measured, and why.
    pub failures: Vec<(String, String)>,
}

impl Report {
    /// The whole of it in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Machine: {}. Commit {}, {}, `{}`.\n\nF, one fdatasync of 4 KiB on that disk in that run: median {:.3} ms, p99 {:.3} ms.\n\n",
            self.machine,
            self.commit,
            date(self.at),
            self.command,
            self.disk.fdatasync_median_ms,
            self.disk.fdatasync_p99_ms
        );
        text.push_str("| target | measured | holds |\n| --- | --- | --- |\n");
        for target in &self.targets {
            let holds = target.holds.map_or("not measured", |holds| if holds { "yes" } else { "**no**" });
            let _ = writeln!(text, "| {} | {} | {holds} |", target.text, target.measured);
        }
        for case in &self.cases {
            let _ = write!(text, "\n{}", case.table());
        }
        for (name, failure) in &self.failures {
            let _ = writeln!(text, "\n### {name}\n\nCould not be measured: {failure}.");
        }
        text
    }

    /// Tells on standard output which targets hold.
    pub fn print_targets(&self) {
        for target in &self.targets {
            if let Some(holds) = target.holds {
                println!("{} {}: {}", if holds { "holds " } else { "MISSED" }, target.text, target.measured);
            }
        }
    }

    /// Writes `target/bench/PROTOCOL.json`.
    pub fn write_json(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.protocol));
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    /// Puts the results into the documentation, between the two lines that say so.
    pub fn write_docs(&self, path: &Path) -> anyhow::Result<()> {
        let start = format!("<!-- results of {}: written by `make bench write-docs=1` -->", self.protocol);
        let end = format!("<!-- end of results of {} -->", self.protocol);
        let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let (before, rest) = page.split_once(&start).context("the page has no place for results")?;
        let (_, after) = rest.split_once(&end).context("the place for results has no end")?;
        Ok(std::fs::write(path, format!("{before}{start}\n\n{}\n{end}{after}", self.markdown()))?)
    }
}

/// A day, from seconds since 1970 (the civil calendar, computed as days since the first of March of year 0).
fn date(at: u64) -> String {
    let days = at / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
