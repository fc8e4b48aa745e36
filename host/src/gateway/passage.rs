//! Plain requests, passed on to the deployment and their answers back, both as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use subtle::ConstantTimeEq as _;
use syncline_spin_wire as wire;
use tokio::sync::watch;

use super::poll::Wakes;
use super::upstream::{Secret, Upstream};
use crate::outbound::{self, WebClient};
use crate::server::body::Body;
use crate::server::incoming::{IncomingBody, Unread};
use crate::server::limiter::Visitor;
use crate::server::requests::{Answer, status, too_many};

/// What begins so belongs to gateway and deployment.
const OWN_PATHS: &str = "/.syncline/";
/// The type of answers that have no end of their own.
const EVENT_STREAM: &[u8] = b"text/event-stream";
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const GATEWAY: HeaderName = HeaderName::from_static(wire::GATEWAY_HEADER);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TE: HeaderName = HeaderName::from_static("te");
const TRAILER: HeaderName = HeaderName::from_static("trailer");
/// How long a client should wait that found the deployment away.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// See the module.
pub(crate) struct Passage {
    upstream: Arc<Upstream>,
    client: WebClient<PassedBody>,
    secret: Secret,
    /// The secret as the header that makes the deployment believe us.
    vouches: HeaderValue,
    wakes: Arc<Wakes>,
    /// Whether the deployment wakes us.
    is_woken: bool,
    /// Whether this gateway stops.
    stopping: watch::Receiver<bool>,
}

impl Passage {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        client: WebClient<PassedBody>,
        secret: Secret,
        vouches: HeaderValue,
        wakes: Arc<Wakes>,
        is_woken: bool,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { upstream, client, secret, vouches, wakes, is_woken, stopping }
    }

    /// Whether nobody upstream answers: then nobody can decide upon a new connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.upstream.problem().is_some()
    }

    /// Passes a request on, and gives the answer.
    pub(crate) async fn pass(&self, request: Request<Incoming>, visitor: &mut Visitor) -> Answer {
        let path = request.uri().path();
        if path == wire::WOKEN && self.is_woken {
            return self.woken(request.method(), request.headers());
        }
        // By escapes nobody gets there either: the deployment compares them as they come.
        if path.starts_with(OWN_PATHS) {
            return status(StatusCode::NOT_FOUND);
        }
        let request = match self.to_pass(request, visitor) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%error, "a request cannot be passed on");
                return status(StatusCode::BAD_REQUEST);
            }
        };
        let answered = tokio::select! {
            answered = self.client.request(request) => answered,
            // Nobody waits any more; dropping the request tells the deployment.
            _ = &mut visitor.asker.gone => return status(StatusCode::SERVICE_UNAVAILABLE),
        };
        match answered {
            Ok(answer) => self.passed_back(answer, visitor),
            Err(error) => unanswered(&error),
        }
    }

    /// The deployment says that there is something new.
    fn woken(&self, method: &Method, headers: &HeaderMap) -> Answer {
        if method != Method::POST {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let presented = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !presented.is_some_and(|presented| bool::from(presented.ct_eq(self.secret.as_bytes()))) {
            return status(StatusCode::UNAUTHORIZED);
        }
        self.wakes.called();
        status(StatusCode::NO_CONTENT)
    }

    fn to_pass(&self, request: Request<Incoming>, visitor: &Visitor) -> Result<Request<PassedBody>, hyper::http::Error> {
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = self.upstream.uri(target)?;
        parts.version = Version::HTTP_11;
        without_hops(&mut parts.headers);
        // Whoever waits for 100 got it here.
        for name in [EXPECT, FORWARDED, FORWARDED_HOST, FORWARDED_PORT, REAL_IP] {
            parts.headers.remove(name);
        }
        parts.headers.insert(FORWARDED_FOR, HeaderValue::from_str(&visitor.client.address.to_string())?);
        parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if visitor.client.secure { "https" } else { "http" }));
        parts.headers.insert(GATEWAY, self.vouches.clone());
        Ok(Request::from_parts(parts, PassedBody::new(body, visitor)))
    }

    fn passed_back(&self, answer: Response<Incoming>, visitor: &Visitor) -> Answer {
        let (mut parts, incoming) = answer.into_parts();
        // We never ask for another protocol.
        if parts.status.is_informational() {
            return plain(StatusCode::BAD_GATEWAY, "The server behind this gateway gave an answer that cannot be passed on.\n");
        }
        parts.version = Version::HTTP_11;
        without_hops(&mut parts.headers);
        parts.headers.remove(GATEWAY);
        // Behind a proxy the connections of an address are the streams of its clients.
        let place = match HttpBody::size_hint(&incoming).exact() {
            Some(_) => None,
            None => match visitor.permit() {
                Ok(place) => place,
                Err(retry_after) => return too_many(None, retry_after),
            },
        };
        // Its client connects again, to another gateway or to the next one here. Other answers come to their end.
        let is_stream = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM));
        let until = is_stream.then(|| stopped(self.stopping.clone()).boxed());
        Response::from_parts(parts, Body::Passed { incoming, until, _place: place })
    }
}

/// Comes to its end when the gateway stops.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // Whoever could say so is gone: then it stops too.
    let _ = stopping.wait_for(|stops| *stops).await;
}

/// Takes away what is for one connection only (RFC 9110, 7.6.1).
fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = {
        let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
    };
    let always =
        [CONNECTION, UPGRADE, TRANSFER_ENCODING, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, PROXY_CONNECTION, TE, TRAILER];
    for name in named.into_iter().chain(always) {
        headers.remove(name);
    }
}

fn unanswered(error: &hyper_util::client::legacy::Error) -> Answer {
    let chain = outbound::chain(error);
    let by_client =
        std::iter::successors(std::error::Error::source(error), |error| error.source()).find_map(|error| error.downcast_ref::<Unread>());
    match by_client {
        Some(Unread::TooSlow) => return status(StatusCode::REQUEST_TIMEOUT),
        Some(Unread::Broken) => return status(StatusCode::BAD_REQUEST),
        None => tracing::warn!(error = chain, "a request was not answered by the deployment"),
    }
    let mut answer = if error.is_connect() {
        plain(StatusCode::BAD_GATEWAY, "The server behind this gateway cannot be reached now.\n")
    } else {
        plain(StatusCode::GATEWAY_TIMEOUT, "The server behind this gateway did not answer.\n")
    };
    answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    answer
}

fn plain(code: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Bytes::from_static(text.as_bytes()).into());
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// The body of a request on its way to the deployment: read no faster than the client may send.
pub(super) struct PassedBody {
    state: Passing,
    size: SizeHint,
}

/// The next bytes, and the rest of the body.
type Read = (Result<Option<Bytes>, Unread>, IncomingBody);

enum Passing {
    Waiting(BoxFuture<'static, Read>),
    Ended,
}

impl PassedBody {
    fn new(body: Incoming, visitor: &Visitor) -> Self {
        let size = HttpBody::size_hint(&body);
        let state = if HttpBody::is_end_stream(&body) {
            Passing::Ended
        } else {
            Passing::Waiting(Box::pin(next(IncomingBody::new(body, &visitor.flow))))
        };
        Self { state, size }
    }
}

async fn next(mut body: IncomingBody) -> Read {
    (body.next().await, body)
}

impl HttpBody for PassedBody {
    type Data = Bytes;
    type Error = Unread;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unread>>> {
        let this = self.get_mut();
        let Passing::Waiting(reading) = &mut this.state else { return Poll::Ready(None) };
        let (read, body) = ready!(reading.as_mut().poll(context));
        this.state = Passing::Ended;
        Poll::Ready(match read {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                this.state = Passing::Waiting(Box::pin(next(body)));
                Some(Ok(Frame::data(bytes)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, Passing::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.state {
            Passing::Waiting(_) => self.size,
            Passing::Ended => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "5"),
            ("host", "a"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        without_hops(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-other"]);
    }
}
