//! The `syncline` command.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use syncline::config::{Config, LogConfig, LogFormat, Overrides};
use syncline::runtime::{Checker, Reloaded, Runtime};
use syncline::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// One local-first sync server.
#[derive(Parser)]
#[command(name = "syncline", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(ServeArguments),
    /// Check a configuration without touching anything.
    CheckConfig(ServeArguments),
    /// Show the component's imports and exports, the mounts, and the versions.
    Inspect(ServeArguments),
    /// Show the version.
    Version,
}

#[derive(Args, Clone, Default)]
struct ServeArguments {
    /// Configuration file (TOML, or JSON by its ending). Without one: the demonstration.
    #[arg(long, env = "SYNCLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the main listener; port 0 takes a free one.
    #[arg(long, env = "SYNCLINE_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Folder of the embedded defaults.
    #[arg(long, env = "SYNCLINE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// SQL backend: sqlite:FOLDER.
    #[arg(long, env = "SYNCLINE_EXECUTOR", value_name = "URL", hide_env_values = true)]
    executor: Option<String>,
    /// Object storage: file:FOLDER or memory:.
    #[arg(long, env = "SYNCLINE_STORAGE_OBJECTS", value_name = "URL", hide_env_values = true)]
    storage_objects: Option<String>,
    /// Key-value storage: sqlite:FOLDER or memory:.
    #[arg(long, env = "SYNCLINE_STORAGE_KEYVALUE", value_name = "URL", hide_env_values = true)]
    storage_keyvalue: Option<String>,
    /// Publications between processes: memory:.
    #[arg(long, env = "SYNCLINE_PUBSUB", value_name = "URL", hide_env_values = true)]
    pubsub: Option<String>,
    /// Opens what is meant for whoever runs the server.
    #[arg(long, env = "SYNCLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// How log lines look.
    #[arg(long, env = "SYNCLINE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Log level, or directives such as info,syncline::component=debug.
    #[arg(long, env = "SYNCLINE_LOG", value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ServeArguments {
    fn config(&self) -> anyhow::Result<Config> {
        let config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::demonstration()?,
        };
        let this = self.clone();
        Ok(config.overridden(Overrides {
            listen: this.listen,
            data: this.data,
            executor: this.executor,
            objects: this.storage_objects,
            keyvalue: this.storage_keyvalue,
            pubsub: this.pubsub,
            admin_token: this.admin_token,
            log_format: this.log_format,
            log_level: this.log_level,
        }))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes on one line; a backtrace would tell whoever runs the server nothing.
            eprintln!("syncline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // More threads than cores: a statement runs where it was asked for, and a slow one must not keep the others waiting.
    let threads = std::thread::available_parallelism().map_or(4, |cores| cores.get() * 2).max(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            None => serve(cli.serve).await,
            Some(Command::Serve(arguments)) => serve(arguments).await,
            Some(Command::CheckConfig(arguments)) => check_config(arguments).await,
            Some(Command::Inspect(arguments)) => inspect(arguments).await,
            Some(Command::Version) => {
                println!("syncline {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
        }
    })
}

async fn serve(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    start_log(&config.log)?;
    let mounts = config.mount_settings()?;
    let server_settings = config.server_settings()?;
    let backends = config.open_backends().await?;
    let runtime = Runtime::start(&config.component()?, config.runtime_settings(), &mounts, backends).await?;
    let server = Server::start(runtime, &mounts, server_settings).await?;
    // Before anybody is told that the server is there: whoever stops it then is to be heard.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    announce(&server)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match reload(&arguments, &config, &server).await {
                Ok(reloaded) => tracing::info!(%reloaded, "reloaded"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "not reloaded, everything goes on as it was"),
            },
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Reads the configuration again and exchanges component and mounts.
async fn reload(arguments: &ServeArguments, running: &Config, server: &Server) -> anyhow::Result<Reloaded> {
    let config = arguments.config()?;
    let fixed = running.restart_keys(&config);
    anyhow::ensure!(fixed.is_empty(), "only a restart can change {}", fixed.join(", "));
    Ok(server.reload(&config.component()?, &config.mount_settings()?).await?)
}

/// One line a listener on standard output, so that whoever started the process learns which port it got.
fn announce(server: &Server) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in server.addresses() {
        writeln!(out, "listening on http://{address}")?;
        tracing::info!(%address, "listening");
    }
    Ok(out.flush()?)
}

async fn check_config(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    config.server_settings()?;
    let mounts = config.mount_settings()?;
    let mut settings = config.runtime_settings();
    settings.cache = None;
    let described = Checker::new(&config.component()?, settings)?.describe_all(&mounts).await?;
    println!("the configuration is valid");
    for mount in described {
        println!("{mount}");
    }
    Ok(())
}

async fn inspect(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let mounts = config.mount_settings()?;
    let mut settings = config.runtime_settings();
    settings.cache = None;
    println!("syncline {}", env!("CARGO_PKG_VERSION"));
    let checker = Checker::new(&config.component()?, settings)?;
    for line in checker.component_interfaces() {
        println!("{line}");
    }
    for mount in checker.describe_all(&mounts).await? {
        println!("{mount}");
    }
    Ok(())
}

fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level).with_context(|| format!("log.level {:?}", config.level))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Arc::new(std::io::stderr()));
    match config.format {
        LogFormat::Pretty => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
