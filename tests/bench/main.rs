//! `make bench`: how fast Syncline is, beside baselines in the same run. docs/benchmarks.md says how to read it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

mod children;
mod context;
mod http;
mod judge;
mod load;
mod machine;
mod native;
mod plasma;
mod report;
mod secsync;
mod server;
mod spin;
mod wire;

use context::Context;
use machine::Disk;
use report::{Case, Report, Target};

const USAGE: &str = "options: --only TEXT (part of a case's name, such as secsync), --rounds N (3), --seconds N (2, a round), --quick, --large, \
    --component FILE (compared with the shipped component), --write-docs";

/// Says which targets hold of figures.
type Judgement = fn(&[Case], Disk) -> Vec<Target>;

/// The parts of the report, what the names of their cases begin with, and who judges their figures.
const PARTS: [(&str, Judgement); 4] = [
    ("secsync", secsync::targets::judge),
    ("plasma", plasma::targets::judge),
    ("plasma-reads", plasma::targets::judge_reads),
    ("spin", |_, _| Vec::new()),
];

struct Options {
    context: Context,
    write_docs: bool,
}

fn options(arguments: Vec<String>, folder: PathBuf) -> anyhow::Result<Options> {
    let window = Duration::from_secs(2);
    let mut context = Context {
        rounds: 3,
        window,
        quick: false,
        large: false,
        components: Vec::new(),
        only: None,
        folder,
        started: Instant::now(),
        cases: Vec::new(),
        failures: Vec::new(),
    };
    let mut write_docs = false;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context(USAGE);
        match argument.as_str() {
            "--only" => context.only = Some(value()?),
            "--rounds" => context.rounds = value()?.parse::<u32>()?.max(1),
            "--seconds" => context.window = Duration::from_secs_f64(value()?.parse()?),
            "--component" => context.components.push(value()?.into()),
            "--large" => context.large = true,
            "--quick" => (context.quick, context.rounds, context.window) = (true, 1, Duration::from_millis(300)),
            "--write-docs" => write_docs = true,
            // What `cargo bench` says to every program that it runs.
            "--bench" => {}
            other => bail!("{other:?} is unknown; {USAGE}"),
        }
    }
    Ok(Options { context, write_docs })
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if children::run(&arguments)? {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let data = tempfile::TempDir::new_in(&folder)?;
    let Options { mut context, write_docs } = options(arguments, data.path().to_owned())?;
    machine::prepare()?;
    let disk = Disk::measure(data.path(), if context.quick { 50 } else { 500 })?;
    println!("{}", machine::describe());
    println!("F: one fdatasync takes {:.3} ms (p99 {:.3} ms)\n", disk.fdatasync_median_ms, disk.fdatasync_p99_ms);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        secsync::run(&mut context).await;
        plasma::run(&mut context).await;
        spin::run(&mut context).await;
    });

    let (command, commit) = (command(&context), commit(&root));
    let failure_count = context.failures.len();
    for (protocol, judge) in PARTS {
        let cases = taken(&mut context.cases, protocol, |case| &case.name);
        let failures = taken(&mut context.failures, protocol, |(name, _)| name);
        if cases.is_empty() && failures.is_empty() {
            continue;
        }
        let report = Report {
            protocol,
            at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            command: command.clone(),
            machine: machine::describe(),
            commit: commit.clone(),
            disk,
            targets: judge(&cases, disk),
            cases,
            failures,
        };
        report.print_targets();
        report.write_json(&folder)?;
        if write_docs {
            report.write_docs(&root.join("docs/benchmarks.md"))?;
        }
    }
    match failure_count {
        0 => Ok(()),
        count => bail!("{count} cases could not be measured"),
    }
}

/// Takes what belongs to a part: names begin with it.
fn taken<T>(all: &mut Vec<T>, protocol: &str, name: impl Fn(&T) -> &str) -> Vec<T> {
    let belongs = |one: &T| name(one).split('/').next() == Some(protocol);
    all.extract_if(.., |one| belongs(one)).collect()
}

/// How to run the same again.
fn command(context: &Context) -> String {
    let mut command = format!("make bench rounds={} seconds={}", context.rounds, context.window.as_secs_f64());
    if let Some(only) = &context.only {
        command.push_str(&format!(" only='{only}'"));
    }
    if context.large {
        command.push_str(" large=1");
    }
    if context.quick { "make bench quick=1".to_owned() } else { command }
}

/// The commit that is checked out; an empty text where git does not know.
fn commit(root: &Path) -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
