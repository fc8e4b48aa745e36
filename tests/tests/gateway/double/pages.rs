//! Plain requests to the double: what was passed on, and answers of several shapes.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};

use super::{Body, Shared, cut_after, status, whole};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method, path and query.
    pub line: String,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Bytes of its body.
    pub body_bytes: usize,
}

impl Seen {
    /// A header as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// `/events` is a stream that goes on when the test wants it to; `/mirror` sends the body back as it comes; `/cut` breaks off;
/// everything else is `page`.
pub async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let path = head.uri.path().to_owned();
    let mut seen = Seen { line, headers: head.headers, body_bytes: 0 };
    match path.as_str() {
        "/mirror" => {
            shared.seen.lock().push(seen);
            Response::new(body.map_err(std::io::Error::other).boxed_unsync())
        }
        "/events" => {
            shared.seen.lock().push(seen);
            let shared = shared.clone();
            let events = futures_util::stream::unfold(0, move |number: u32| {
                let shared = shared.clone();
                async move {
                    shared.events.acquire().await.expect("it is never closed").forget();
                    Some((Ok(Frame::data(Bytes::from(format!("data: {number}\n\n")))), number + 1))
                }
            });
            let mut answer = Response::new(StreamBody::new(events).boxed_unsync());
            answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
            answer
        }
        "/cut" => cut_after(Bytes::from_static(b"some")),
        "/missing" => status(404),
        _ => {
            seen.body_bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
            shared.seen.lock().push(seen);
            let mut answer = whole(Bytes::from_static(b"page"));
            let headers = answer.headers_mut();
            headers.insert("x-page", http::HeaderValue::from_static("yes"));
            headers.append("set-cookie", http::HeaderValue::from_static("a=1"));
            headers.append("set-cookie", http::HeaderValue::from_static("b=2"));
            headers.insert("keep-alive", http::HeaderValue::from_static("timeout=5"));
            answer
        }
    }
}
