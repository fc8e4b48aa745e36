//! Requests to a server, one connection each.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::DEADLINE;

/// An answer whose body has not been read yet.
pub struct Opened {
    /// As in HTTP.
    pub status: StatusCode,
    /// Names in lower case.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Incoming,
}

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

/// A request with headers and a body; the answer's head.
///
/// # Errors
/// The connection could not be made or broke.
pub async fn open(address: SocketAddr, method: &Method, target: &str, headers: &[(&str, &str)], body: Bytes) -> anyhow::Result<Opened> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let (head, body) = answer.into_parts();
    Ok(Opened { status: head.status, headers: head.headers, body })
}

/// The same with the whole answer, or why there is none.
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
    let opened = open(address, method, target, headers, body).await?;
    let body = opened.body.collect().await?.to_bytes();
    Ok(Answer { status: opened.status.as_u16(), headers: opened.headers, body })
}

/// The same within the deadline.
pub async fn request(address: SocketAddr, method: &Method, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let asked = try_request(address, method, target, headers, body.into());
    tokio::time::timeout(DEADLINE, asked).await.expect("it is answered within the deadline").expect("it is answered")
}
