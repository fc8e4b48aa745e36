//! Requests to a server, one connection each.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::DEADLINE;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// As in HTTP.
    pub status: u16,
    /// Names in lower case.
    pub headers: HeaderMap,
    /// As received.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }
}

/// A request with headers and a body; the whole answer, or why there is none.
///
/// # Errors
/// The connection could not be made or broke.
pub async fn try_request(
    address: SocketAddr,
    method: &Method,
    target: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, body) = sender.send_request(request.body(Full::new(body))?).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// The same within the deadline.
pub async fn request(address: SocketAddr, method: &Method, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let asked = try_request(address, method, target, headers, body.into());
    tokio::time::timeout(DEADLINE, asked).await.expect("it is answered within the deadline").expect("it is answered")
}
