//! A web server of a test: what the host asks of others arrives here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::DEADLINE;
use crate::tls::Certificate;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Method and path.
    pub line: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as text.
    pub body: String,
}

impl Arrived {
    /// A header as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

type Answers = Arc<dyn Fn(&Arrived) -> Response<Full<Bytes>> + Send + Sync>;

/// The server; it ends when dropped.
pub struct WebServer {
    /// Where it listens.
    pub address: SocketAddr,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    accepting: JoinHandle<()>,
}

/// An answer with a status and a body.
pub fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from(body.to_owned()))).expect("a status")
}

impl WebServer {
    /// Serves HTTP.
    pub async fn start(answers: impl Fn(&Arrived) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::serve(None, answers).await
    }

    /// Serves HTTP over TLS.
    pub async fn start_tls(certificate: &Certificate, answers: impl Fn(&Arrived) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        Self::serve(Some(certificate.acceptor()), answers).await
    }

    async fn serve(
        tls: Option<tokio_rustls::TlsAcceptor>,
        answers: impl Fn(&Arrived) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (sender, arrived) = mpsc::unbounded_channel();
        let answers: Answers = Arc::new(answers);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, sender, answers) = (tls.clone(), sender.clone(), answers.clone());
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, sender, answers).await,
                        // Whoever does not trust the certificate breaks off.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, sender, answers).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, arrived, accepting }
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request.
    pub async fn next(&mut self) -> Arrived {
        let arrived = tokio::time::timeout(DEADLINE, self.arrived.recv()).await;
        arrived.expect("a request comes within the deadline").expect("the server runs")
    }

    /// Those that came and were not looked at.
    pub fn so_far(&mut self) -> Vec<Arrived> {
        std::iter::from_fn(|| self.arrived.try_recv().ok()).collect()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, sender: mpsc::UnboundedSender<Arrived>, answers: Answers) {
    let service = service_fn(|request: Request<Incoming>| {
        let (sender, answers) = (sender.clone(), answers.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let line = format!("{} {}", head.method, head.uri);
            let arrived = Arrived { line, headers: head.headers, body: String::from_utf8_lossy(&body).into_owned() };
            let answer = answers(&arrived);
            // The test may look at no more of them.
            let _ = sender.send(arrived);
            Ok::<_, Infallible>(answer)
        }
    });
    // The client may go away at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
