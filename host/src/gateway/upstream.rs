//! The deployment over HTTP: requests with the secret, and whether it can be reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use syncline_spin_wire as wire;
use tokio::time::{Instant, timeout};

use crate::outbound::{self, WebClient};
use crate::runtime::limits::loggable;

/// Of an answer that is no answer: what is read of its text.
const PROBLEM_BYTES_MAX: usize = 1000;

/// A secret that two sides share. It is not shown.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A secret.
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As a header's value; none where it cannot be one.
    pub(super) fn header(&self, scheme: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{scheme}{}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// Why the deployment gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// No connection could be made: nothing was asked.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The request may have arrived; its answer did not, or not whole.
    #[error("it did not answer: {0}")]
    Broken(String),
    /// 500: the logic trapped, or there is no room for one more instance.
    #[error("it answered with status 500")]
    Fell,
    /// 413.
    #[error("the request is larger than it takes")]
    TooLarge,
    /// It does not want this gateway, or does not understand it: so it stays until somebody changes something.
    #[error("{0}")]
    Refused(String),
}

/// See the module.
pub(super) struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// What stands before every path.
    prefix: String,
    bearer: HeaderValue,
    client: WebClient<Full<Bytes>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why not.
    problem: Option<String>,
    /// When all mounts' positions were last heard of.
    heard: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(url: &Uri, bearer: HeaderValue, client: WebClient<Full<Bytes>>) -> Option<Self> {
        Some(Self {
            scheme: url.scheme()?.clone(),
            authority: url.authority()?.clone(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            bearer,
            client,
            state: Mutex::default(),
        })
    }

    /// Where a path with its query is.
    pub(super) fn uri(&self, path_and_query: &str) -> Result<Uri, hyper::http::Error> {
        let path: PathAndQuery = format!("{}{path_and_query}", self.prefix).parse()?;
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
    }

    /// Sends a body; the body of the answer follows. `patience`: until its head is there.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>, patience: Duration) -> Result<Incoming, Unanswered> {
        let uri = self.uri(path).map_err(|error| Unanswered::Refused(error.to_string()))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(AUTHORIZATION, self.bearer.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
        let answer = match timeout(patience, self.client.request(request)).await {
            Err(_) => return Err(Unanswered::Broken(format!("no answer within {} ms", patience.as_millis()))),
            Ok(Err(error)) if error.is_connect() => return Err(Unanswered::Unreachable(outbound::chain(&error))),
            Ok(Err(error)) => return Err(Unanswered::Broken(outbound::chain(&error))),
            Ok(Ok(answer)) => answer,
        };
        let (status, body) = (answer.status(), answer.into_body());
        Err(match status {
            StatusCode::OK => return Ok(body),
            StatusCode::INTERNAL_SERVER_ERROR => Unanswered::Fell,
            StatusCode::PAYLOAD_TOO_LARGE => Unanswered::TooLarge,
            StatusCode::UNAUTHORIZED => Unanswered::Refused("it has another secret (`gateway.secret`)".into()),
            StatusCode::NOT_FOUND => {
                Unanswered::Refused("it wants no gateway: set `gateway.secret` in its configuration, and see that the URL is right".into())
            }
            StatusCode::BAD_REQUEST => Unanswered::Refused(format!("it does not understand this gateway: {}", problem(body).await)),
            status => Unanswered::Broken(format!("status {}: {}", status.as_u16(), problem(body).await)),
        })
    }

    /// Asks for one value.
    pub(super) async fn ask<Q, A>(&self, path: &str, question: &Q, patience: Duration) -> Result<A, Unanswered>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let question = wire::encode(question, wire::REQUEST_BYTES_MAX).map_err(|error| Unanswered::Refused(error.to_string()))?;
        let end = Instant::now() + patience;
        let body = self.post(path, question, patience).await?;
        let body = http_body_util::Limited::new(body, wire::ANSWER_BYTES_MAX).collect();
        match tokio::time::timeout_at(end, body).await {
            Err(_) => Err(Unanswered::Broken(format!("no whole answer within {} ms", patience.as_millis()))),
            Ok(Err(error)) => Err(Unanswered::Broken(error.to_string())),
            Ok(Ok(body)) => wire::decode(&body.to_bytes(), wire::ANSWER_BYTES_MAX).map_err(|error| Unanswered::Refused(error.to_string())),
        }
    }

    /// It was reached, or not.
    pub(super) fn reached(&self, result: Result<(), &Unanswered>) {
        let problem = match result {
            // What fell can be reached.
            Ok(()) | Err(Unanswered::Fell | Unanswered::TooLarge) => None,
            Err(error) => Some(error.to_string()),
        };
        let before = std::mem::replace(&mut self.state.lock().problem, problem.clone());
        match (before, problem) {
            (None, Some(problem)) => {
                tracing::warn!(problem, "the deployment gives no answers: sockets stay, new ones are turned away until it does");
            }
            (Some(_), None) => tracing::info!("the deployment answers again"),
            _ => {}
        }
    }

    /// Why it gives no answers, if it does not.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    /// All mounts' positions were heard of.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Some(Instant::now());
    }

    /// Whether that is longer ago than this.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.state.lock().heard.is_none_or(|heard| heard.elapsed() > age)
    }
}

/// What an answer says that is none.
async fn problem(body: Incoming) -> String {
    let read = http_body_util::Limited::new(body, PROBLEM_BYTES_MAX).collect();
    match timeout(Duration::from_secs(1), read).await {
        Ok(Ok(text)) => loggable(String::from_utf8_lossy(&text.to_bytes()).trim()).into_owned(),
        _ => "(no text)".into(),
    }
}
