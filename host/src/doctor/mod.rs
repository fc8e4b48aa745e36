//! Looks whether a server can run, or runs, as it is configured: one line a check, and what to do where one fails.
//!
//! Files are only read, also while a server works on them. Where none does, the backends are opened and tried in the
//! end, as a server would.

use std::fmt;

use crate::config::{Config, ExecutorPlace, without_secrets};
use crate::control::{Command, ControlError, Status, ask};
use crate::executor::Executor as _;
use crate::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use crate::runtime::Checker;

mod files;
mod machine;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub subject: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found and, unless it is as it should be, what to do.
    pub finding: String,
}

impl Check {
    fn new(subject: impl Into<String>, outcome: Outcome, finding: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome, finding: finding.into() }
    }

    fn ok(subject: impl Into<String>, finding: impl Into<String>) -> Self {
        Self::new(subject, Outcome::Ok, finding)
    }

    fn warning(subject: impl Into<String>, finding: impl Into<String>) -> Self {
        Self::new(subject, Outcome::Warning, finding)
    }

    fn failed(subject: impl Into<String>, finding: impl Into<String>) -> Self {
        Self::new(subject, Outcome::Failed, finding)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
        };
        write!(formatter, "{outcome:<8} {}: {}", self.subject, self.finding)
    }
}

/// Makes all checks. `full`: the content of every object is compared with its hash, not of a sample.
pub async fn examine(config: &Config, full: bool) -> Vec<Check> {
    let mut checks = configuration(config).await;
    let Ok(places) = config.places() else { return checks };
    let (server, status) = running(config).await;
    checks.push(server);
    if let ExecutorPlace::Postgres { url, address } = &places.executor {
        checks.push(postgres(url, PostgresAddress::clone(address)).await);
    }
    let data = config.data.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let mut checks = files::data_folder(&data);
        if data.is_dir() {
            checks.extend(places.executor.folder().map(files::databases).unwrap_or_default());
            checks.extend(places.keyvalue.folder.as_deref().and_then(files::keyvalue));
            checks.extend(places.objects.folder().map(|folder| files::objects(folder, full)));
            checks.push(machine::clock(places.executor.folder().unwrap_or(&data)));
        }
        checks.push(machine::free_space(&data));
        checks.push(machine::file_descriptors());
        checks
    });
    match looked.await {
        Ok(looked) => checks.extend(looked),
        Err(error) => checks.push(Check::failed("doctor", format!("a check ended early: {error}"))),
    }
    checks.extend(machine::listeners(config, status.as_ref()).await);
    if config.data.is_dir() && checks.iter().all(|check| check.outcome < Outcome::Failed) {
        checks.push(backends(config, status.as_ref()).await);
    }
    checks
}

async fn configuration(config: &Config) -> Vec<Check> {
    let subject = "configuration";
    let mut settings = config.runtime_settings();
    settings.cache = None;
    let checked = async {
        let mut warnings = config.check().map_err(|error| error.to_string())?;
        let server = config.server_settings().map_err(|error| error.to_string())?;
        server.check().map_err(|error| error.to_string())?;
        let mounts = config.mount_settings().map_err(|error| error.to_string())?;
        let component = config.component().map_err(|error| error.to_string())?;
        let checker = Checker::new(&component, settings).map_err(|error| error.to_string())?;
        let described = checker.describe_all(&mounts).await.map_err(|error| error.to_string())?;
        warnings.extend(described.into_iter().flat_map(|mount| mount.warnings));
        Ok::<_, String>((mounts.len(), warnings))
    };
    match checked.await {
        Ok((mounts, warnings)) if warnings.is_empty() => vec![Check::ok(subject, format!("valid, {mounts} mounts"))],
        Ok((_, warnings)) => warnings.into_iter().map(|warning| Check::warning(subject, warning)).collect(),
        Err(problem) => vec![Check::failed(subject, problem.lines().map(str::trim).collect::<Vec<_>>().join(" "))],
    }
}

async fn running(config: &Config) -> (Check, Option<Status>) {
    let subject = "server";
    match ask(&config.data, &Command::Status).await {
        Ok(answer) => match answer.status {
            Some(status) => {
                let own = env!("CARGO_PKG_VERSION");
                let check = if status.version == own {
                    Check::ok(subject, format!("version {own} runs as process {}", status.process_id))
                } else {
                    Check::warning(subject, format!("version {} runs, this is {own}: restart it where you want this one", status.version))
                };
                (check, Some(status))
            }
            None => (Check::failed(subject, format!("it does not say how it is: {}", answer.problems.join("; "))), None),
        },
        Err(ControlError::NotRunning) => (Check::ok(subject, "none runs on this data folder"), None),
        Err(error) => (Check::failed(subject, format!("{error}; look at its log, and whether this is its user")), None),
    }
}

/// A server of databases can be reached, and which it is.
async fn postgres(url: &str, address: PostgresAddress) -> Check {
    let subject = "databases";
    let asked = async {
        let executor = PostgresExecutor::start(PostgresSettings::new(address)).await?;
        let server = executor.server().await;
        executor.close().await;
        server
    };
    match asked.await {
        Ok(server) => Check::ok(subject, server),
        Err(error) => Check::failed(subject, format!("{}: {error}", without_secrets(url))),
    }
}

/// Asks the server that runs, or opens the backends as one would.
async fn backends(config: &Config, status: Option<&Status>) -> Check {
    let subject = "backends";
    let not_ready = match status {
        Some(status) => status.not_ready.clone(),
        None => match try_backends(config).await {
            Ok(not_ready) => not_ready,
            Err(problem) => vec![problem],
        },
    };
    match not_ready.as_slice() {
        [] => Check::ok(subject, "a write and a read worked on each"),
        problems => Check::failed(subject, problems.join("; ")),
    }
}

async fn try_backends(config: &Config) -> Result<Vec<String>, String> {
    let _data = config.take_data_folder().map_err(|error| error.to_string())?;
    let backends = config.open_backends().await.map_err(|error| error.to_string())?;
    let not_ready = backends.ready().await;
    backends.executor.close().await;
    Ok(not_ready.into_iter().map(|(backend, problem)| format!("{backend}: {problem}")).collect())
}
