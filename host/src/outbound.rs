//! Requests that the host itself makes: posts of the outbox, documents. Redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::header::{HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OnceCell;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Connections that nobody uses are kept for so long.
const IDLE: Duration = Duration::from_secs(30);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("syncline/", env!("CARGO_PKG_VERSION")));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The server could not be reached, or broke off.
    #[error("{0}")]
    Failed(String),
    /// It took longer than it may.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// What a server answered.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What carries requests with bodies of a kind.
pub(crate) type WebClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A client for http and https, the latter with the roots of the system.
#[derive(Default)]
pub(crate) struct HttpClient {
    client: OnceCell<WebClient<Full<Bytes>>>,
}

impl HttpClient {
    /// Makes a request. Of the body so many bytes are read; with none it is not waited for.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        timeout: Duration,
        body_bytes_max: Option<usize>,
    ) -> Result<Reply, OutboundError> {
        let client = self.client.get_or_try_init(connect).await?;
        request.headers_mut().insert(USER_AGENT, AGENT);
        let asked = async {
            let (parts, body) = client.request(request).await.map_err(failed)?.into_parts();
            let body = match body_bytes_max {
                // More than so much is an error.
                Some(bytes_max) => {
                    Limited::new(body, bytes_max).collect().await.map_err(|error| OutboundError::Failed(error.to_string()))?.to_bytes()
                }
                None => Bytes::new(),
            };
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or(Err(OutboundError::TimedOut(timeout)))
    }
}

/// An error with its causes: the outermost alone says nothing.
fn failed(error: hyper_util::client::legacy::Error) -> OutboundError {
    OutboundError::Failed(chain(&error))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A client for http and https, the latter with the roots of the system.
pub(crate) async fn connect<B>() -> Result<WebClient<B>, OutboundError>
where
    B: Body + Send,
    B::Data: Send,
{
    let broken = |error: &dyn std::fmt::Display| OutboundError::Failed(error.to_string());
    let certificates = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|error| broken(&error))?;
    if certificates.certs.is_empty() {
        tracing::warn!(errors = ?certificates.errors, "no roots of the system were found: nothing is reached over https");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|error| broken(&error))?.with_root_certificates(roots).with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // Somebody waits for the answer of most of them.
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(connector))
}
