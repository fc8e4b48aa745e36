//! Accepts connections and serves HTTP on them, as many as may be open, and turns the rest away.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::heads::HEAD_BYTES_MAX;
use super::limiter::Peer;
use super::limits::Refusal;
use super::stream::{ClientStream, Permits};
use super::{HTTP_DRAIN, Shared, requests};

/// Connections that are told at once why they are turned away; beyond them they are closed without a word.
const FAREWELLS_MAX: usize = 64;
/// How long one of them may take to read that.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long to wait when the process can open nothing more: those that are open go on.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged.
const EXHAUSTED_LOGGED: Duration = Duration::from_secs(10);

/// Serves whoever connects to a listener until the process stops.
pub(crate) async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let mut connections = JoinSet::new();
    let farewells = Arc::new(Semaphore::new(FAREWELLS_MAX));
    let mut logged: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => match permits(remote, &shared) {
                    Ok(permits) => drop(connections.spawn(serve_connection(stream, remote, permits, shared.clone()))),
                    Err(refusal) => turn_away(stream, refusal, &shared, &farewells),
                },
                Err(error) => {
                    // Out of file descriptors, most likely.
                    if logged.is_none_or(|logged| logged.elapsed() > EXHAUSTED_LOGGED) {
                        tracing::warn!(%error, "connections cannot be accepted");
                        logged = Some(Instant::now());
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn permits(remote: SocketAddr, shared: &Shared) -> Result<Permits, Refusal> {
    let connection = shared.limiter.open()?;
    Ok(Permits { _connection: connection, _address: shared.limiter.enter(remote.ip())? })
}

/// Says why in HTTP, if there are not too many to be told; without a word where that would take a handshake. The
/// connection counts for nobody.
fn turn_away(mut stream: TcpStream, refusal: Refusal, shared: &Shared, farewells: &Arc<Semaphore>) {
    let (reason, status) = match refusal {
        Refusal::Full => ("full", "503 Service Unavailable"),
        Refusal::AddressFull => ("address", "429 Too Many Requests"),
    };
    shared.runtime.metrics().turned_away(reason);
    if shared.tls.is_some() {
        return;
    }
    let Ok(permit) = farewells.clone().try_acquire_owned() else { return };
    tokio::spawn(async move {
        let answer = format!("HTTP/1.1 {status}\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let farewell = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // What the client sent is read, else closing would take the answer back.
            let mut scratch = vec![0; 4 << 10];
            while stream.read(&mut scratch).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whether it heard or not, it is gone.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        drop(permit);
    });
}

async fn serve_connection(stream: TcpStream, remote: SocketAddr, permits: Permits, shared: Arc<Shared>) {
    // Frames are small and somebody waits for them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let _open = shared.runtime.metrics().http_connection();
    let mut stopping = shared.stopping.clone();
    let limits = &shared.limiter.limits;
    // Until something comes, a connection costs no more than this.
    let spoken = tokio::select! {
        ready = tokio::time::timeout(limits.head_timeout(), stream.readable()) => matches!(ready, Ok(Ok(()))),
        () = stopped(&mut stopping) => false,
    };
    if spoken {
        let stream = ClientStream::new(stream, permits, limits.stall_timeout());
        let peer = Peer::new(&shared.limiter, remote.ip(), shared.tls.is_some());
        match &shared.tls {
            None => serve_http(stream, peer, shared).await,
            Some(tls) => {
                let accepted = tokio::select! {
                    accepted = tls.accept(stream) => accepted,
                    () = stopped(&mut stopping) => return,
                };
                match accepted {
                    Ok(stream) => serve_http(stream, peer, shared.clone()).await,
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            }
        }
    }
}

/// Serves HTTP on a stream, over TLS or not.
async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let head_timeout = shared.limiter.limits.head_timeout();
    let cut = peer.cut.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // Dropped with this future when the client goes away.
        let (present, gone) = oneshot::channel();
        let (visitor, shared) = (peer.visitor(request.headers(), gone), shared.clone());
        async move {
            let _present = present;
            visitor.flow.take(1, super::heads::head_bytes(&request));
            // Not in the task below: who goes away meanwhile is not waited for.
            visitor.flow.room().await;
            // A task of its own: a client that goes away must not tear a call out of the middle of a transaction.
            let answering = tokio::spawn(requests::answer(request, visitor, shared));
            Ok::<_, Infallible>(answering.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request was not answered");
                requests::status(StatusCode::INTERNAL_SERVER_ERROR)
            }))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = cut.notified() => return,
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
