//! The server: listeners, routes, HTTP and WebSockets in front of a [`Runtime`].

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::runtime::{MountSettings, Runtime};

mod handle;
mod operations;
mod requests;
mod routes;
pub mod tls;
mod websocket;

use handle::Listener;
pub use handle::{Certificates, Listening, ServerHandle};
use routes::Routes;
use tls::{Tls, TlsError, TlsFiles};

/// Time for a client to send the head of a request, and for an idle keep-alive connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for open HTTP exchanges when the process stops.
const HTTP_DRAIN: Duration = Duration::from_secs(5);

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
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The main listener: it serves `/healthz`, `/readyz` and `/metrics` besides its mounts.
    pub listen: String,
    /// What `/metrics` asks for as a bearer token; none: it is open.
    pub admin_token: Option<String>,
    /// Certificates by the address of their listener, as it is configured; a listener without one speaks plain HTTP.
    pub tls: BTreeMap<String, TlsFiles>,
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
        let (stop, stopping) = watch::channel(false);
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
                stopping: stopping.clone(),
            });
            accepting.spawn(accept_all(listener, shared.clone()));
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

/// Binds the first address of a name that can be had.
pub(crate) async fn bind(listen: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no such address");
    for address in tokio::net::lookup_host(listen).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the sockets of the last run.
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(4096)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(serve_connection(stream, remote, shared.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: those that are open go on.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, remote: SocketAddr, shared: Arc<Shared>) {
    // Frames are small and somebody waits for them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let Some(tls) = &shared.tls else { return serve_stream(stream, remote, false, shared).await };
    let mut stopping = shared.stopping.clone();
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = stopped(&mut stopping) => return,
    };
    match accepted {
        Ok(stream) => serve_stream(stream, remote, true, shared).await,
        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

/// Serves HTTP on a stream; `secure` says whether nobody on the way can read it.
async fn serve_stream<S>(stream: S, remote: SocketAddr, secure: bool, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = shared.runtime.metrics().http_connection();
    let mut stopping = shared.stopping.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // A task of its own: a client that goes away must not tear a call out of the middle of a transaction.
        let answering = tokio::spawn(requests::answer(request, remote, secure, shared.clone()));
        async move {
            Ok::<_, Infallible>(answering.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request was not answered");
                requests::status(StatusCode::INTERNAL_SERVER_ERROR)
            }))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 << 10);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(HTTP_DRAIN, connection).await {
                Ok(served) => served,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Waits until the process stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is as good.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Query strings may hold credentials: they are never logged. This is what a log may say of a request.
pub(crate) fn loggable(head: &hyper::http::request::Parts) -> HashMap<&'static str, String> {
    let origin = head.headers.get("origin").and_then(|origin| origin.to_str().ok()).unwrap_or("-");
    HashMap::from([("path", head.uri.path().to_owned()), ("origin", origin.to_owned())])
}
