//! How the store is spoken to: with the host's own HTTP client.

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Error;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::outbound::{self, OutboundError, WebClient};

/// The head of an answer comes within so long after a request was begun; a part of an object is on its way meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Makes [`Service`]s.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service::default()))
    }
}

/// Carries requests to the store.
#[derive(Debug, Default)]
struct Service {
    client: OnceCell<WebClient<HttpRequestBody>>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = self.client.get_or_try_init(outbound::connect).await.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        match timeout(ANSWER_MAX, client.request(request)).await {
            Ok(Ok(response)) => {
                let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
                Ok(response.map(|body| HttpResponseBody::new(body.map_err(broken))))
            }
            Ok(Err(error)) => Err(HttpError::new(kind(&error), error)),
            Err(_) => Err(HttpError::new(HttpErrorKind::Timeout, OutboundError::TimedOut(ANSWER_MAX))),
        }
    }
}

/// What went wrong, which decides whether it may be tried again.
fn kind(error: &Error) -> HttpErrorKind {
    if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted }
}
