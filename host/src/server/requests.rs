//! One HTTP request: of the process itself, or of a mount.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

use super::{Shared, operations, websocket};
use crate::runtime::http::{Admission, BodyFailure, BodyIn, BodyOut, BodyPlan, Response as MountResponse};
use crate::runtime::limits::loggable;
use crate::runtime::plans::Fallback;
use crate::runtime::wit_types::{Header, RequestHead};
use crate::runtime::{CallFailed, MountCore};

/// Headers that a component may give an answer.
pub(crate) const HEADERS_MAX: usize = 1000;

/// Every answer of the server.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers a request.
pub(crate) async fn answer(request: Request<Incoming>, remote: SocketAddr, secure: bool, shared: Arc<Shared>) -> Answer {
    let path = request.uri().path().to_owned();
    // A WebSocket is never meant for the process itself: at the root of a listener any path may be a mount's.
    let upgrade = websocket::is_upgrade(&request);
    if shared.main
        && !upgrade
        && let Some(answer) = operations::answer(&path, request.method(), request.headers(), &shared).await
    {
        return answer;
    }
    let routes = shared.routes();
    let Some(found) = routes.find(&path) else { return status(StatusCode::NOT_FOUND) };
    let mount = found.mount.clone();
    let answer = if upgrade {
        match found.takes_upgrades {
            true => websocket::upgrade(request, remote, secure, &mount, &shared).await,
            false => status(StatusCode::NOT_FOUND),
        }
    } else {
        match found.takes_requests {
            true => of_mount(request, remote, secure, &mount).await,
            false => status(StatusCode::NOT_FOUND),
        }
    };
    mount.metrics.request(&mount.name, answer.status().as_u16());
    answer
}

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The head of a request as the component gets it.
pub(crate) fn request_head(parts: &hyper::http::request::Parts, remote: SocketAddr, secure: bool) -> Arc<RequestHead> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() };
    Arc::new(RequestHead {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers.iter().map(header).collect(),
        remote_address: remote.ip().to_string(),
        secure,
    })
}

async fn of_mount(request: Request<Incoming>, remote: SocketAddr, secure: bool, mount: &Arc<MountCore>) -> Answer {
    let (parts, body) = request.into_parts();
    let head = request_head(&parts, remote, secure);
    let connection = mount.new_id();
    let accept = match mount.admit(connection, head.clone()).await {
        Ok(Admission::Refuse(response)) => return from_mount(response, mount),
        Ok(Admission::Accept(accept)) => accept,
        Err(error) => return fallback(error, mount),
    };
    let body = match accept.body {
        BodyPlan::Inline(bytes_max) => read_inline(body, bytes_max.min(mount.plan().max_body_bytes)).await,
        BodyPlan::Object(_) => {
            tracing::error!(mount = mount.name, "this host does not stream bodies into objects");
            BodyIn::Failed(BodyFailure::Unavailable)
        }
    };
    match mount.handle(connection, head, accept.context, body).await {
        Ok(response) => from_mount(response, mount),
        Err(error) => fallback(error, mount),
    }
}

async fn read_inline(body: Incoming, bytes_max: u64) -> BodyIn {
    let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match Limited::new(body, limit).collect().await {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            if bytes.is_empty() { BodyIn::Empty } else { BodyIn::Bytes(bytes.into()) }
        }
        Err(error) if error.is::<LengthLimitError>() => BodyIn::Failed(BodyFailure::TooLarge),
        // The client went away or broke the framing: whatever is answered reaches nobody.
        Err(_) => BodyIn::Failed(BodyFailure::Unavailable),
    }
}

/// A response of the component as one of HTTP.
pub(crate) fn from_mount(response: MountResponse, mount: &MountCore) -> Answer {
    let body = match response.body {
        BodyOut::Empty => Bytes::new(),
        BodyOut::Bytes(bytes) => Bytes::from(bytes),
        BodyOut::Object(_) | BodyOut::Generated(_) | BodyOut::Stream(_) | BodyOut::Parked(_) => {
            tracing::error!(mount = mount.name, "this host does not send bodies of this kind");
            return status(StatusCode::NOT_IMPLEMENTED);
        }
    };
    with_headers(StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &response.headers, body)
}

fn with_headers(code: StatusCode, headers: &[Header], body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = code;
    for header in headers {
        match (HeaderName::try_from(header.name.as_str()), HeaderValue::from_bytes(&header.value)) {
            (Ok(name), Ok(value)) if answer.headers().len() < HEADERS_MAX => {
                answer.headers_mut().append(name, value);
            }
            (Ok(_), Ok(_)) => {
                tracing::error!(headers_max = HEADERS_MAX, "an answer of the component has too many headers: the rest was left out");
                break;
            }
            _ => tracing::error!(header = %loggable(&header.name), "a header of the component is not valid and was left out"),
        }
    }
    answer
}

/// The host's own answer where the component gives none.
fn fallback(error: CallFailed, mount: &MountCore) -> Answer {
    let plan = mount.plan();
    let fallbacks = plan.fallbacks.as_ref();
    let (code, fallback): (_, Option<&Fallback>) = match error {
        CallFailed::NotDurable => (StatusCode::SERVICE_UNAVAILABLE, fallbacks.map(|all| &all.unavailable)),
        CallFailed::Trapped | CallFailed::TimedOut => (StatusCode::INTERNAL_SERVER_ERROR, fallbacks.map(|all| &all.failed)),
    };
    match fallback {
        Some(fallback) => with_headers(code, &fallback.headers, Bytes::from(fallback.body.clone())),
        None => status(code),
    }
}
