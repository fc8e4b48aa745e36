//! Requests to others' servers by `wasi:http/outgoing-handler`.

use std::time::{Duration, Instant};

use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::http::outgoing_handler::handle;
use wasi::http::types::{Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme};
use wasi::io::poll::{Pollable, poll};
use wasi::io::streams::StreamError;

use crate::ports::{Http, Reply, Request};

/// Bytes that are read at once.
const READ_BYTES: u64 = 64 << 10;

/// See the module.
pub(super) struct Outgoing;

/// When it must be over.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    timeout_ms: u64,
}

impl Deadline {
    /// Waits until something is ready; an error when the time is over.
    fn wait(self, ready: &Pollable) -> Result<(), String> {
        let left = self.at.saturating_duration_since(Instant::now());
        let timer = subscribe_duration(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        if poll(&[ready, &timer]).contains(&0) { Ok(()) } else { Err(format!("no answer within {} ms", self.timeout_ms)) }
    }
}

impl Http for Outgoing {
    fn send(&self, request: &Request) -> Result<Reply, String> {
        let deadline = Deadline { at: Instant::now() + Duration::from_millis(request.timeout_ms), timeout_ms: request.timeout_ms };
        let outgoing = head(request)?;
        let body = outgoing.body().map_err(|()| "the request has no body".to_owned())?;
        let options = RequestOptions::new();
        let length = Some(request.timeout_ms.saturating_mul(1_000_000));
        // Not every host knows them; the deadline holds in any case.
        let _ = options.set_connect_timeout(length);
        let _ = options.set_first_byte_timeout(length);
        let _ = options.set_between_bytes_timeout(length);
        let future = handle(outgoing, Some(options)).map_err(|error| format!("{error:?}"))?;
        write(body, &request.body, deadline)?;
        read(answer(&future, deadline)?, request, deadline)
    }
}

fn head(request: &Request) -> Result<OutgoingRequest, String> {
    let invalid = || "the URL is not valid".to_owned();
    let (scheme, rest) = request.url.split_once("://").ok_or_else(invalid)?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(invalid()),
    };
    let start = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(start);
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut headers = request.headers.clone();
    headers.push(("content-length".into(), request.body.len().to_string().into_bytes()));
    headers.push(("user-agent".into(), concat!("syncline/", env!("CARGO_PKG_VERSION")).into()));
    let fields = Fields::from_list(&headers).map_err(|error| format!("{error:?}"))?;
    let outgoing = OutgoingRequest::new(fields);
    let method = match request.method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    };
    let set = outgoing.set_method(&method).and_then(|()| outgoing.set_scheme(Some(&scheme)));
    let set = set.and_then(|()| outgoing.set_authority(Some(authority))).and_then(|()| outgoing.set_path_with_query(Some(&path)));
    set.map_err(|()| invalid())?;
    Ok(outgoing)
}

fn write(body: OutgoingBody, bytes: &[u8], deadline: Deadline) -> Result<(), String> {
    let failed = |error: StreamError| format!("{error:?}");
    {
        let stream = body.write().map_err(|()| "the request takes no body".to_owned())?;
        let ready = stream.subscribe();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = usize::try_from(stream.check_write().map_err(failed)?).unwrap_or(usize::MAX);
            if room == 0 {
                deadline.wait(&ready)?;
                continue;
            }
            let (some, others) = rest.split_at(rest.len().min(room));
            stream.write(some).map_err(failed)?;
            rest = others;
        }
        stream.flush().map_err(failed)?;
        drop(ready);
    }
    OutgoingBody::finish(body, None).map_err(|error| format!("{error:?}"))
}

fn answer(future: &FutureIncomingResponse, deadline: Deadline) -> Result<IncomingResponse, String> {
    loop {
        match future.get() {
            Some(Ok(Ok(response))) => return Ok(response),
            Some(Ok(Err(error))) => return Err(format!("{error:?}")),
            Some(Err(())) => return Err("the answer was taken already".into()),
            None => deadline.wait(&future.subscribe())?,
        }
    }
}

fn read(response: IncomingResponse, request: &Request, deadline: Deadline) -> Result<Reply, String> {
    let headers = response.headers().entries().into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let mut reply = Reply { status: response.status(), headers, body: Vec::new() };
    let Some(bytes_max) = request.answer_bytes_max else { return Ok(reply) };
    let body = response.consume().map_err(|()| "the answer has no body".to_owned())?;
    let stream = body.stream().map_err(|()| "the answer has no body".to_owned())?;
    loop {
        match stream.read(READ_BYTES) {
            Ok(piece) if piece.is_empty() => deadline.wait(&stream.subscribe())?,
            Ok(piece) if reply.body.len() + piece.len() > bytes_max => return Err(format!("the answer has more than {bytes_max} bytes")),
            Ok(piece) => reply.body.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Ok(reply),
            Err(error) => return Err(format!("{error:?}")),
        }
    }
}
