//! The server: listeners, routes, HTTP and WebSockets in front of a [`Runtime`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::gateway::Passage;
use crate::runtime::{MountSettings, Runtime};

mod accept;
pub mod address;
pub(crate) mod body;
pub mod frames;
mod handle;
mod heads;
pub(crate) mod incoming;
pub(crate) mod limiter;
pub mod limits;
mod operations;
pub mod rate;
pub(crate) mod requests;
mod routes;
mod stream;
pub mod tls;
mod websocket;

use address::Network;
use handle::Listener;
pub use handle::{Certificates, Listening, ServerHandle};
use limiter::Limiter;
use limits::Limits;
use routes::Routes;
use tls::{Tls, TlsError, TlsFiles};

/// Time for open HTTP exchanges when the process stops.
const HTTP_DRAIN: Duration = Duration::from_secs(5);
/// When the system begins to ask whether a silent client is still there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// File descriptors that are kept for data: the part of all, and the most.
const DESCRIPTORS_KEPT_PART: u64 = 4;
const DESCRIPTORS_KEPT_MAX: u64 = 1024;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A listener's address is not one, or cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// The certificate of a listener cannot be used.
    #[error("TLS of {address}: {error}")]
    Tls {
        /// As configured.
        address: String,
        /// Why.
        error: TlsError,
    },
}

/// How the server is set.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// The main listener: it serves `/healthz`, `/readyz` and `/metrics` besides its mounts.
    pub listen: String,
    /// What `/metrics` asks for as a bearer token; none: it is open.
    pub admin_token: Option<String>,
    /// Certificates by the address of their listener, as it is configured; a listener without one speaks plain HTTP.
    pub tls: BTreeMap<String, TlsFiles>,
    /// What clients may take.
    pub limits: Limits,
    /// Proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<Network>,
}

impl ServerSettings {
    /// Whether all certificates can be used.
    pub fn check(&self) -> Result<(), ServerError> {
        for (address, files) in &self.tls {
            files.check().map_err(|error| ServerError::Tls { address: address.clone(), error })?;
        }
        Ok(())
    }
}

/// A running server.
pub struct Server {
    handle: ServerHandle,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
}

/// What every connection of a listener shares.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<Runtime>,
    /// Another table after a reload.
    routes: RwLock<Arc<Routes>>,
    /// The listener that answers for the process itself.
    pub(crate) main: bool,
    pub(crate) admin_token: Option<String>,
    /// Its certificate; none: plain HTTP.
    pub(crate) tls: Option<Tls>,
    pub(crate) limiter: Arc<Limiter>,
    /// Where requests are passed on to; none: they are answered here.
    pub(crate) passage: Option<Arc<Passage>>,
    /// Set once the process stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Shared {
    /// Where paths lead now.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().clone()
    }
}

/// The routes of the mounts of a listener.
fn routes_on(listen: &str, runtime: &Runtime) -> Arc<Routes> {
    let mut routes = Routes::default();
    runtime.mounts().iter().filter(|mount| mount.listen == listen).for_each(|mount| routes.add(mount));
    Arc::new(routes)
}

impl Server {
    /// Listens for the mounts of a run time. The main listener comes first in [`Server::addresses`].
    pub async fn start(runtime: Arc<Runtime>, mounts: &[MountSettings], settings: ServerSettings) -> Result<Self, ServerError> {
        Self::start_with(runtime, mounts, settings, None).await
    }

    /// The same, where requests other than upgrades may be passed on to another server.
    pub(crate) async fn start_with(
        runtime: Arc<Runtime>,
        mounts: &[MountSettings],
        settings: ServerSettings,
        passage: Option<Arc<Passage>>,
    ) -> Result<Self, ServerError> {
        let (stop, stopping) = watch::channel(false);
        set_budgets(&runtime, &settings.limits);
        let limiter = Limiter::new(settings.limits, settings.trusted_proxies, connections_possible());
        let mut all = vec![settings.listen.clone()];
        for mount in mounts {
            if !all.contains(&mount.listen) {
                all.push(mount.listen.clone());
            }
        }
        let (mut addresses, mut listeners, mut accepting) = (Vec::new(), Vec::new(), JoinSet::new());
        for (index, listen) in all.into_iter().enumerate() {
            let tls = settings.tls.get(&listen).cloned().map(Tls::load).transpose();
            let tls = tls.map_err(|error| ServerError::Tls { address: listen.clone(), error })?;
            let listener = bind(&listen).await.map_err(|error| ServerError::Listen { address: listen.clone(), error })?;
            let address = listener.local_addr().map_err(|error| ServerError::Listen { address: listen.clone(), error })?;
            addresses.push(address);
            let shared = Arc::new(Shared {
                routes: RwLock::new(routes_on(&listen, &runtime)),
                runtime: runtime.clone(),
                main: index == 0,
                admin_token: settings.admin_token.clone(),
                tls,
                limiter: limiter.clone(),
                passage: passage.clone(),
                stopping: stopping.clone(),
            });
            accepting.spawn(accept::accept_all(listener, shared.clone()));
            listeners.push(Listener { listen, address, shared });
        }
        Ok(Self { handle: ServerHandle { runtime, listeners: Arc::new(listeners) }, addresses, stop, accepting })
    }

    /// The addresses that are listened on, the main one first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What can be asked of it, also from elsewhere.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Stops: no new connections, what was received is answered, sockets close, data is settled.
    pub async fn stop(mut self) {
        // Nobody may listen any more; that is no reason not to stop.
        let _ = self.stop.send(true);
        self.handle.runtime.stop().await;
        let _ = tokio::time::timeout(HTTP_DRAIN, async { while self.accepting.join_next().await.is_some() {} }).await;
    }
}

/// Gives each mount its budget, those too that a reload brought.
fn set_budgets(runtime: &Runtime, limits: &Limits) {
    let bytes = Some(limits.mount_queue_bytes).filter(|bytes| *bytes > 0);
    for mount in runtime.mounts() {
        mount.budget.set_limit(bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX));
    }
}

/// How many connections the file descriptors of the process allow, with some kept for data.
fn connections_possible() -> u64 {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = descriptors - (descriptors / DESCRIPTORS_KEPT_PART).min(DESCRIPTORS_KEPT_MAX);
    tracing::debug!(descriptors, possible, "connections that file descriptors allow");
    possible
}

/// Binds the first address of a name that can be had.
pub(crate) async fn bind(listen: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no such address");
    for address in tokio::net::lookup_host(listen).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the sockets of the last run.
        socket.set_reuseaddr(true)?;
        // Its connections inherit it: a client that vanished without a word is noticed where no ping asks for it.
        SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
        match socket.bind(address).and_then(|()| socket.listen(4096)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Query strings may hold credentials: they are never logged. This is what a log may say of a request.
pub(crate) fn loggable(head: &hyper::http::request::Parts) -> HashMap<&'static str, String> {
    let origin = head.headers.get("origin").and_then(|origin| origin.to_str().ok()).unwrap_or("-");
    HashMap::from([("path", head.uri.path().to_owned()), ("origin", origin.to_owned())])
}
