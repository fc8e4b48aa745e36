//! One HTTP request: of the process itself, or of a mount.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};

use super::address::Client;
use super::body::Body;
use super::incoming::{IncomingBody, Unread};
use super::limiter::Visitor;
use super::{Shared, heads, operations, websocket};
use crate::runtime::http::{Admission, BodyPlan, Work};
use crate::runtime::limits::loggable;
use crate::runtime::wit_types::{Header, RequestHead};
use crate::runtime::{Admitted, AnswerBody, Answered, MountCore, Unanswered};

/// Headers that a component may give an answer.
pub(crate) const HEADERS_MAX: usize = 1000;

/// Every answer of the server.
pub(crate) type Answer = Response<Body>;

/// Answers a request.
pub(crate) async fn answer(request: Request<Incoming>, mut visitor: Visitor, shared: Arc<Shared>) -> Answer {
    let path = request.uri().path().to_owned();
    if let Some(code) = heads::refused(&request) {
        let routes = shared.routes();
        return closing(refusal(routes.find(&path).map(|found| found.mount.as_ref()), code));
    }
    // A WebSocket is never meant for the process itself: at the root of a listener any path may be a mount's.
    let upgrade = websocket::is_upgrade(&request);
    let for_process = shared.main && !upgrade && operations::is_for_process(&path);
    if !(for_process && operations::is_open(&path))
        && let Some(retry_after) = visitor.locked_out()
    {
        shared.runtime.metrics().turned_away("failed_logins");
        let routes = shared.routes();
        return too_many(routes.find(&path).map(|found| found.mount.as_ref()), retry_after);
    }
    if for_process {
        let answer = operations::answer(&path, request.method(), request.headers(), &shared).await;
        count_login(&answer, &visitor);
        return answer;
    }
    if let Some(passage) = &shared.passage {
        if !upgrade {
            let answer = passage.pass(request, &mut visitor).await;
            count_login(&answer, &visitor);
            return answer;
        }
        if passage.is_closed() {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    let routes = shared.routes();
    let Some(found) = routes.find(&path) else { return status(StatusCode::NOT_FOUND) };
    let mount = found.mount.clone();
    let answer = match upgrade {
        true if found.takes_upgrades => websocket::upgrade(request, &visitor, &mount, &shared).await,
        false if found.takes_requests => of_mount(request, &mut visitor, &mount).await,
        _ => status(StatusCode::NOT_FOUND),
    };
    count_login(&answer, &visitor);
    mount.metrics.request(&mount.name, answer.status().as_u16());
    answer
}

/// A refusal for want of a right counts as a failed login.
fn count_login(answer: &Answer, visitor: &Visitor) {
    if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        visitor.failed_login();
    }
}

/// An answer after which the connection ends.
pub(crate) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The answer to a client that must wait, of a mount where it asked for one.
pub(crate) fn too_many(mount: Option<&MountCore>, retry_after: Duration) -> Answer {
    let mut answer = refusal(mount, StatusCode::TOO_MANY_REQUESTS);
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    answer
}

/// An answer without a body.
pub(crate) fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// A refusal of the host's own to a request of a mount. Where the mount's errors are JSON, it has its headers and names the status.
fn refusal(mount: Option<&MountCore>, code: StatusCode) -> Answer {
    let plan = mount.map(MountCore::plan);
    let fallback = plan.as_ref().and_then(|plan| plan.fallbacks.as_ref()).map(|fallbacks| &fallbacks.failed);
    let is_json = |header: &Header| header.name.eq_ignore_ascii_case("content-type") && header.value == b"application/json";
    let (Some(fallback), Some(reason)) = (fallback.filter(|fallback| fallback.headers.iter().any(is_json)), code.canonical_reason()) else {
        return status(code);
    };
    let body = serde_json::json!({"error": reason.to_lowercase().replace(' ', "-")}).to_string();
    with_headers(code, &fallback.headers, Bytes::from(body).into())
}

/// The head of a request as the component gets it.
pub(crate) fn request_head(parts: &hyper::http::request::Parts, client: &Client) -> Arc<RequestHead> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() };
    Arc::new(RequestHead {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers.iter().map(header).collect(),
        remote_address: client.address.to_string(),
        secure: client.secure,
    })
}

async fn of_mount(request: Request<Incoming>, visitor: &mut Visitor, mount: &Arc<MountCore>) -> Answer {
    let (parts, body) = request.into_parts();
    let head = request_head(&parts, &visitor.client);
    let open = mount.open_request();
    let direct = mount.plan().takes_directly(&parts.method, parts.uri.path(), body.size_hint().exact());
    let (admitted, body_plan) = match direct {
        Some(bytes_max) => (Admitted { context: None, work: Work::Usual }, BodyPlan::Inline(bytes_max)),
        None => match open.admit(head.clone()).await {
            Ok(Admission::Refuse(response)) => return from_mount(mount.refusal(response), visitor),
            Ok(Admission::Accept(accept)) => (Admitted { context: Some(accept.context), work: accept.work }, accept.body),
            Err(error) => return from_mount(mount.fallback(error.into()), visitor),
        },
    };
    // What waits already must be gone before more is read.
    if mount.budget.is_tight() && !body.is_end_stream() {
        let mut answer = closing(from_mount(mount.fallback(Unanswered::Busy), visitor));
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return answer;
    }
    let mut held = mount.budget.charge(0);
    let incoming = IncomingBody::new(body, &visitor.flow);
    let read = match body_plan {
        BodyPlan::Inline(bytes_max) => incoming.read_inline(bytes_max.min(mount.plan().max_body_bytes), &mut held).await,
        BodyPlan::Object(upload) => incoming.read_object(mount, upload, &mut held).await,
    };
    let body = match read {
        Ok(body) => body,
        Err(Unread::TooSlow) => return closing(refusal(Some(mount.as_ref()), StatusCode::REQUEST_TIMEOUT)),
        Err(Unread::Broken) => return closing(refusal(Some(mount.as_ref()), StatusCode::BAD_REQUEST)),
    };
    let answered = open.handle(head, admitted, body, &mut visitor.asker).await;
    drop(held);
    from_mount(answered.unwrap_or_else(|error| mount.fallback(error)), visitor)
}

/// An answer of a mount as one of HTTP.
pub(crate) fn from_mount(answered: Answered, visitor: &Visitor) -> Answer {
    let unsent_bytes = if let AnswerBody::Unsent(length) = answered.body { Some(length) } else { None };
    let body = match answered.body {
        AnswerBody::Whole(bytes) => Body::from(bytes),
        // Behind a proxy the connections of an address are the streams of its clients.
        AnswerBody::Unsent(length) => Body::Unsent(length),
        AnswerBody::Pieces { pieces, length } => match visitor.permit() {
            Ok(place) => Body::Pieces { pieces, length, _place: place },
            Err(retry_after) => return too_many(None, retry_after),
        },
    };
    let code = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = with_headers(code, &answered.headers, body);
    if let Some(length) = unsent_bytes {
        // hyper leaves out that it is 0.
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer
}

fn with_headers(code: StatusCode, headers: &[Header], body: Body) -> Answer {
    let mut answer = Response::new(body);
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
