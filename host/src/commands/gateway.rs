//! `syncline gateway`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use syncline::config::{LogConfig, LogFormat};
use syncline::gateway::{Gateway, GatewaySettings, Secret};
use syncline::server::ServerSettings;
use syncline::server::address::Network;
use syncline::server::tls::TlsFiles;
use tokio::signal::unix::{SignalKind, signal};

use super::serve::{ENDED_BY_SIGNAL, Signals, announce, raise_descriptor_limit, start_log};

/// In front of what, and how.
#[derive(Args)]
pub struct GatewayArguments {
    /// The deployment whose sockets are held here: http://127.0.0.1:3000.
    #[arg(long, env = "SYNCLINE_GATEWAY_UPSTREAM", value_name = "URL")]
    upstream: String,
    /// What this gateway and the deployment share (`gateway.secret` there).
    #[arg(long, env = "SYNCLINE_GATEWAY_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: String,
    /// Address of the listener; port 0 takes a free one.
    #[arg(long, env = "SYNCLINE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8787")]
    listen: String,
    /// Where the deployment reaches this gateway, to wake it when something is published.
    #[arg(long, env = "SYNCLINE_GATEWAY_CALLBACK", value_name = "URL", conflicts_with = "redis")]
    callback: Option<String>,
    /// The Redis server that the deployment tells of what is published.
    #[arg(long, env = "SYNCLINE_GATEWAY_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<String>,
    /// Addresses and networks of proxies that are believed when they say whom they speak for.
    #[arg(long, env = "SYNCLINE_GATEWAY_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',')]
    trusted_proxies: Vec<Network>,
    /// Certificate of the listener (PEM); without one: plain HTTP.
    #[arg(long, env = "SYNCLINE_GATEWAY_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, env = "SYNCLINE_GATEWAY_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Opens /metrics; without one it is open to everybody.
    #[arg(long, env = "SYNCLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// How log lines look.
    #[arg(long, env = "SYNCLINE_LOG_FORMAT", value_enum, default_value = "pretty")]
    log_format: LogFormat,
    /// Log level, or directives such as info,syncline::gateway=debug.
    #[arg(long, env = "SYNCLINE_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

impl GatewayArguments {
    fn settings(self) -> GatewaySettings {
        let tls = self.tls_certificate.zip(self.tls_key).map(|(certificate, key)| (self.listen.clone(), TlsFiles { certificate, key }));
        GatewaySettings {
            upstream: self.upstream,
            secret: Secret::new(&self.secret),
            callback: self.callback,
            redis: self.redis,
            server: ServerSettings {
                listen: self.listen,
                admin_token: self.admin_token,
                tls: tls.into_iter().collect(),
                trusted_proxies: self.trusted_proxies,
                ..ServerSettings::default()
            },
        }
    }
}

/// Holds sockets until a signal asks for the end.
pub async fn run(arguments: GatewayArguments) -> anyhow::Result<()> {
    start_log(&LogConfig { format: arguments.log_format, level: arguments.log_level.clone() })?;
    raise_descriptor_limit();
    let settings = arguments.settings();
    anyhow::ensure!(settings.server.admin_token.as_deref() != Some(""), "admin_token: must not be empty");
    settings.server.check()?;
    let gateway = Gateway::start(settings).await.context("the gateway does not start")?;
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    announce(gateway.server())?;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            _ = hangup.recv() => match gateway.handle().reload_certificates() {
                Ok(()) => tracing::info!("certificates were read anew"),
                Err(error) => tracing::error!(%error, "certificates stay as they are"),
            },
        }
    }
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        () = gateway.stop() => tracing::info!("stopped"),
        number = signals.next() => {
            tracing::warn!("ended by a second signal");
            std::process::exit(ENDED_BY_SIGNAL + number);
        }
    }
    Ok(())
}
