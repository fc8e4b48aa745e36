//! One HTTP request: of the process itself, or of a mount.

use std::sync::Arc;
use std::time::Duration;

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
use crate::runtime::{Admitted, AnswerBody, Answered, MountCore};

/// Headers that a component may give an answer.
pub(crate) const HEADERS_MAX: usize = 1000;

/// Every answer of the server.
pub(crate) type Answer = Response<Body>;

/// Answers a request.
pub(crate) async fn answer(request: Request<Incoming>, mut visitor: Visitor, shared: Arc<Shared>) -> Answer {
    if let Some(refused) = heads::refused(&request) {
        return refused;
    }
    let path = request.uri().path().to_owned();
    // A WebSocket is never meant for the process itself: at the root of a listener any path may be a mount's.
    let upgrade = websocket::is_upgrade(&request);
    let for_process = shared.main && !upgrade && operations::is_for_process(&path);
    if !(for_process && operations::is_open(&path))
        && let Some(retry_after) = visitor.locked_out()
    {
        shared.runtime.metrics().turned_away("failed_logins");
        return too_many(retry_after);
    }
    if for_process {
        let answer = operations::answer(&path, request.method(), request.headers(), &shared).await;
        count_login(&answer, &visitor);
        return answer;
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

/// An answer without a body, after which the connection ends.
pub(crate) fn closing(code: StatusCode) -> Answer {
    let mut answer = status(code);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The answer to a client that must wait.
pub(crate) fn too_many(retry_after: Duration) -> Answer {
    let mut answer = status(StatusCode::TOO_MANY_REQUESTS);
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
        let mut answer = closing(StatusCode::SERVICE_UNAVAILABLE);
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
        Err(Unread::TooSlow) => return closing(StatusCode::REQUEST_TIMEOUT),
        Err(Unread::Broken) => return closing(StatusCode::BAD_REQUEST),
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
            Err(retry_after) => return too_many(retry_after),
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
