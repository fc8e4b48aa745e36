//! `syncline serve`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use syncline::config::{Config, LogConfig, LogFormat, log_filter};
use syncline::control::{ControlServer, Controlled, Reload};
use syncline::runtime::{Reloaded, Runtime};
use syncline::server::{Server, ServerHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ServeArguments, named};

/// Added to the number of a signal, as shells do.
pub(super) const ENDED_BY_SIGNAL: i32 = 128;

/// Serves until a signal asks for the end.
pub async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let warnings = config.check()?;
    start_log(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    // A file at the limit of its size is then an error of one write, not the end of the process.
    let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let mounts = config.mount_settings()?;
    let server_settings = config.server_settings()?;
    server_settings.check()?;
    let data = config.take_data_folder()?;
    let backends = config.open_backends().await?;
    let runtime = Runtime::start(&config.component()?, config.runtime_settings(), &mounts, backends).await;
    let runtime = runtime.map_err(|error| named(&config, error))?;
    let server = Server::start(runtime, &mounts, server_settings).await?;
    let reload = reloader(arguments, config, server.handle().clone());
    // A server without it serves as well.
    let control = ControlServer::start(&data, Controlled { server: server.handle().clone(), reload: reload.clone() })
        .inspect_err(|error| tracing::warn!(%error, "there is no control socket: status, reload and online backup do not work"));
    // Before anybody is told that the server is there: whoever stops it then is to be heard.
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    announce(&server)?;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            // What came of it is logged.
            _ = hangup.recv() => drop(reload().await),
        }
    }
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        () = stop(server, control.ok()) => tracing::info!("stopped"),
        // What was acknowledged is on disk: ending at once costs the clients no more than a reconnect.
        number = signals.next() => {
            tracing::warn!("ended by a second signal");
            std::process::exit(ENDED_BY_SIGNAL + number);
        }
    }
    Ok(())
}

/// Many systems start a process with few file descriptors that it may raise itself; each connection takes one.
pub(super) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }
}

/// Reloads on SIGHUP and for the control socket; what came of it is logged too.
fn reloader(arguments: ServeArguments, running: Config, server: ServerHandle) -> Reload {
    let context = Arc::new((arguments, running, server));
    Arc::new(move || {
        let context = context.clone();
        Box::pin(async move {
            let (arguments, running, server) = &*context;
            match reload(arguments, running, server).await {
                Ok((reloaded, warnings)) => {
                    tracing::info!(%reloaded, "reloaded");
                    let warnings = warnings.into_iter().map(|warning| format!("warning: {warning}"));
                    Ok(std::iter::once(format!("reloaded: {reloaded}")).chain(warnings).collect())
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "not reloaded, everything goes on as it was");
                    Err(vec![format!("not reloaded, everything goes on as it was: {error}")])
                }
            }
        })
    })
}

/// Reads the configuration again and exchanges component and mounts. Gives warnings of the new configuration too.
async fn reload(arguments: &ServeArguments, running: &Config, server: &ServerHandle) -> anyhow::Result<(Reloaded, Vec<String>)> {
    let config = arguments.config()?;
    let warnings = config.check()?;
    let fixed = running.restart_keys(&config);
    anyhow::ensure!(fixed.is_empty(), "only a restart can change {}", fixed.join(", "));
    let certificates = server.read_certificates()?;
    let reloaded = server.reload(&config.component()?, &config.mount_settings()?).await.map_err(|error| named(&config, error))?;
    certificates.exchange();
    Ok((reloaded, warnings))
}

async fn stop(server: Server, control: Option<ControlServer>) {
    if let Some(control) = control {
        control.stop().await;
    }
    server.stop().await;
}

/// The signals that end the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one; its number.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// One line a listener on standard output, the main one first, so that whoever started the process learns which ports
/// it got.
pub(super) fn announce(server: &Server) -> anyhow::Result<()> {
    let mut lines = String::new();
    for (index, listener) in server.handle().listeners().iter().enumerate() {
        let mounts = listener.mounts.join(", ");
        if index == 0 {
            writeln!(lines, "listening on {}", listener.url)?;
        } else {
            writeln!(lines, "listening on {} for {mounts}", listener.url)?;
        }
        tracing::info!(url = listener.url, mounts, "listening");
    }
    // At once: whoever reads may go after the first line.
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}

pub(super) fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    let filter = log_filter(&config.level).map_err(anyhow::Error::msg)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Arc::new(std::io::stderr()));
    match config.format {
        LogFormat::Pretty => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
