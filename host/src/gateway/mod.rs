//! The gateway: holds WebSockets in front of a deployment that cannot (Spin), and runs no protocol logic.
//!
//! Connections, queues, limits and the fan-out are those of every server ([`crate::runtime`], [`crate::server`]); the calls of
//! the logic are made upstream, over HTTP, as `syncline-spin-wire` says (`calls.rs`, `records.rs`). What is published there comes
//! with the answers of calls and of polls (`poll.rs`), and goes to the connections here in the order of its row (`feed.rs`).
//! Plain requests are passed on (`passage.rs`). A gateway keeps nothing: one that dies loses connections, never data, and
//! there may be several in front of one deployment.

use std::sync::{Arc, OnceLock};

use hyper::Uri;
use parking_lot::Mutex;
use syncline_spin_wire as wire;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

mod backends;
mod batches;
mod calls;
mod feed;
mod passage;
mod poll;
mod records;
mod redis;
mod row;
mod upstream;

pub(crate) use passage::Passage;
pub use upstream::Secret;

use calls::Calls;
use poll::{KnownDeployment, Poller, Wakes};
use upstream::{Unanswered, Upstream};

use crate::outbound;
use crate::runtime::{Runtime, RuntimeError, RuntimeSettings};
use crate::server::{Server, ServerError, ServerHandle, ServerSettings};

/// How a gateway is set.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// The deployment: `http://` or `https://`, perhaps with a path that stands before all others.
    pub upstream: String,
    /// What gateway and deployment share (`gateway.secret` there).
    pub secret: Secret,
    /// Where the deployment reaches this gateway, to wake it; none: it does not.
    pub callback: Option<String>,
    /// A Redis server that the deployment tells of publications; none: it is asked again and again.
    pub redis: Option<String>,
    /// The listener.
    pub server: ServerSettings,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting makes no sense. No secret is quoted.
    #[error("{key}: {message}")]
    Setting {
        /// Which.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The deployment does not want this gateway, or does not understand it.
    #[error("the deployment at {url}: {problem}")]
    Refused {
        /// As set.
        url: String,
        /// What it says.
        problem: String,
    },
    /// No client of HTTP can be made.
    #[error("no client of HTTP: {0}")]
    Client(String),
    /// The run time does not start.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The listener does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
}

fn wrong(key: &'static str, message: impl Into<String>) -> GatewayError {
    GatewayError::Setting { key, message: message.into() }
}

/// A running gateway.
pub struct Gateway {
    server: Server,
    polling: JoinHandle<()>,
    stopping: watch::Sender<bool>,
    redis: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Listens for clients of a deployment. One that cannot be reached yet is waited for.
    pub async fn start(settings: GatewaySettings) -> Result<Self, GatewayError> {
        let url = http_url(&settings.upstream).ok_or_else(|| wrong("upstream", "must be a URL such as http://127.0.0.1:3000"))?;
        let callback = settings.callback.as_deref().map(callback_url).transpose()?;
        let unfit = || wrong("secret", "must be one line of printable characters, and not empty");
        let bearer = settings.secret.header("Bearer ").filter(|_| !settings.secret.as_bytes().is_empty()).ok_or_else(unfit)?;
        let vouches = settings.secret.header("").ok_or_else(unfit)?;
        let client = |error: outbound::OutboundError| GatewayError::Client(error.to_string());
        let upstream = Upstream::new(&url, bearer, outbound::connect().await.map_err(client)?);
        let upstream = Arc::new(upstream.ok_or_else(|| wrong("upstream", "has no address"))?);
        let wakes = Arc::new(Wakes::default());
        let runtime = Runtime::without_code(RuntimeSettings::default(), backends::backends(upstream.clone())).await?;
        let poller = Arc::new(Poller {
            upstream: upstream.clone(),
            calls: Calls::new(upstream.clone(), runtime.process()),
            runtime: runtime.clone(),
            wakes: wakes.clone(),
            callback: callback.clone(),
            listen: settings.server.listen.clone(),
            known: Mutex::new(KnownDeployment::default()),
            knock: Notify::new(),
            describing: tokio::sync::Mutex::default(),
            server: OnceLock::new(),
        });
        if let Err(Unanswered::Refused(problem)) = poller.describe().await {
            return Err(GatewayError::Refused { url: settings.upstream, problem });
        }
        let passing = outbound::connect().await.map_err(client)?;
        let (stopping, stops) = watch::channel(false);
        let passage = Passage::new(upstream, passing, settings.secret, vouches, wakes.clone(), callback.is_some(), stops);
        let server = Server::start_with(runtime, &[], settings.server, Some(Arc::new(passage))).await?;
        // Nobody else sets it.
        let _ = poller.server.set(server.handle().clone());
        server.handle().renew_routes();
        let redis = settings.redis.map(|address| redis::follow(&address, wakes)).transpose()?;
        let polling = tokio::spawn(poller.run());
        Ok(Self { server, polling, stopping, redis: redis.map(tokio::spawn) })
    }

    /// What can be asked of its server.
    pub fn handle(&self) -> &ServerHandle {
        self.server.handle()
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Stops: no new connections, what was received is answered, sockets close.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        // Whoever still waits for a publication gets it meanwhile.
        self.server.stop().await;
        self.polling.abort();
        if let Some(redis) = self.redis {
            redis.abort();
        }
    }
}

fn http_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https"));
    (is_http && url.authority().is_some() && url.query().is_none()).then_some(url)
}

/// The URL that the deployment is to wake us at: as it is set, or with the usual path where it has none.
fn callback_url(text: &str) -> Result<String, GatewayError> {
    let url = http_url(text).ok_or_else(|| wrong("callback", "must be a URL at which the deployment reaches this gateway"))?;
    match url.path().trim_end_matches('/') {
        "" => Ok(format!("{}{}", text.trim_end_matches('/'), wire::WOKEN)),
        path if path.ends_with(wire::WOKEN) => Ok(text.to_owned()),
        _ => Err(wrong("callback", format!("its path must be {}, or none", wire::WOKEN))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_has_the_usual_path() {
        for (given, expected) in [
            ("http://gateway:8787", Some("http://gateway:8787/.syncline/woken")),
            ("http://gateway:8787/", Some("http://gateway:8787/.syncline/woken")),
            ("https://gateway/.syncline/woken", Some("https://gateway/.syncline/woken")),
            ("https://proxy/a/.syncline/woken", Some("https://proxy/a/.syncline/woken")),
            ("https://gateway/elsewhere", None),
            ("gateway:8787", None),
            ("ftp://gateway", None),
            ("http://gateway/?a=b", None),
        ] {
            assert_eq!(callback_url(given).ok().as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("geheim");
        let shown = format!("{secret:?} {:?}", secret.header("Bearer ").unwrap());
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(Secret::new("two\nlines").header("").is_none());
    }
}
