//! One request and the way of its answer.

use syncline_spin_front::{AnswerHead, Exchange, Gone, Incoming, Unread};
use wasi::clocks::monotonic_clock;
use wasi::http::types::{Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam, Scheme};
use wasi::io::poll::{Pollable, poll};
use wasi::io::streams::{InputStream, OutputStream, StreamError};

use crate::NANOSECONDS_PER_MS;

/// Bytes of a body that are read in one go.
const READ_BYTES: u64 = 64 << 10;
/// How long a client may take nothing.
const WRITE_PATIENCE_MS: u64 = 60_000;

/// See the module.
pub(crate) struct Request {
    request: Option<IncomingRequest>,
    // Dropped in this order: streams before what they are of.
    input: Option<(InputStream, IncomingBody)>,
    response: Option<ResponseOutparam>,
    output: Option<(OutputStream, OutgoingBody)>,
}

/// The head of a request.
pub(crate) fn incoming(request: &IncomingRequest) -> Incoming {
    Incoming {
        method: method(request.method()),
        path_with_query: request.path_with_query().unwrap_or_default(),
        authority: request.authority(),
        secure: matches!(request.scheme(), Some(Scheme::Https)),
        headers: request.headers().entries(),
    }
}

fn method(method: Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    };
    name.to_owned()
}

impl Request {
    pub(crate) fn new(request: IncomingRequest, response: ResponseOutparam) -> Self {
        Self { request: Some(request), input: None, response: Some(response), output: None }
    }

    /// Writes as much as can be taken at once.
    fn write_ready(output: &OutputStream, bytes: &mut Vec<u8>) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let permitted = usize::try_from(output.check_write().map_err(|_| Gone)?).unwrap_or(usize::MAX);
            if permitted == 0 {
                break;
            }
            let rest = bytes.split_off(permitted.min(bytes.len()));
            output.write(bytes).map_err(|_| Gone)?;
            *bytes = rest;
        }
        Ok(())
    }

    /// Writes all, waiting for the client.
    fn write_all(output: &OutputStream, mut bytes: Vec<u8>) -> Result<(), Gone> {
        loop {
            Self::write_ready(output, &mut bytes)?;
            if bytes.is_empty() {
                return Ok(());
            }
            wait(&output.subscribe(), WRITE_PATIENCE_MS).map_err(|TooLong| Gone)?;
        }
    }

    /// Lets go what was written, and waits until it went.
    fn flush(output: &OutputStream) -> Result<(), Gone> {
        output.flush().map_err(|_| Gone)?;
        wait(&output.subscribe(), WRITE_PATIENCE_MS).map_err(|TooLong| Gone)?;
        output.check_write().map(drop).map_err(|_| Gone)
    }

    /// Sends the head, behind as much of the body as fits: what leaves later leaves in a packet of its own.
    fn send_head(&mut self, head: AnswerHead, mut first: Vec<u8>, is_whole: bool) -> Result<(), Gone> {
        let Some(outparam) = self.response.take() else { return Err(Gone) };
        let fields = Fields::new();
        for header in &head.headers {
            // What only a connection needs is Spin's to say; what is no header is left out.
            if let Err(error) = fields.append(&header.name, &header.value) {
                eprintln!("{{\"level\":\"warn\",\"message\":\"a header was left out\",\"detail\":\"{error}\"}}");
            }
        }
        let response = OutgoingResponse::new(fields);
        if response.set_status_code(head.status).is_err() {
            eprintln!("{{\"level\":\"error\",\"message\":\"a status was not taken\"}}");
        }
        if !head.has_body {
            // A body that is not even begun is of no length that must fit.
            ResponseOutparam::set(outparam, Ok(response));
            return Ok(());
        }
        let body = response.body().map_err(|()| Gone)?;
        let output = body.write().map_err(|()| Gone)?;
        let written = Self::write_ready(&output, &mut first);
        if is_whole && written.is_ok() && first.is_empty() {
            drop(output);
            let finished = OutgoingBody::finish(body, None);
            ResponseOutparam::set(outparam, Ok(response));
            return finished.map_err(|_| Gone);
        }
        ResponseOutparam::set(outparam, Ok(response));
        let sent = written.and_then(|()| Self::write_all(&output, first)).and_then(|()| Self::flush(&output));
        self.output = Some((output, body));
        sent
    }

    fn end(&mut self, is_whole: bool) {
        let Some((output, body)) = self.output.take() else { return };
        drop(output);
        if is_whole {
            // The client is gone or has it all: there is nobody to be told.
            let _ = OutgoingBody::finish(body, None);
        }
    }
}

impl Exchange for Request {
    async fn read(&mut self, patience_ms: u64) -> Result<Option<Vec<u8>>, Unread> {
        if let Some(request) = self.request.take() {
            let body = request.consume().map_err(|()| Unread::Broken)?;
            let stream = body.stream().map_err(|()| Unread::Broken)?;
            self.input = Some((stream, body));
        }
        let Some((stream, _)) = &self.input else { return Ok(None) };
        loop {
            match stream.read(READ_BYTES) {
                Ok(bytes) if bytes.is_empty() => wait(&stream.subscribe(), patience_ms).map_err(|TooLong| Unread::TooSlow)?,
                Ok(bytes) => return Ok(Some(bytes)),
                Err(StreamError::Closed) => {
                    self.input = None;
                    return Ok(None);
                }
                Err(StreamError::LastOperationFailed(_)) => return Err(Unread::Broken),
            }
        }
    }

    async fn answer(&mut self, head: AnswerHead, body: Vec<u8>) {
        let sent = self.send_head(head, body, true);
        self.end(sent.is_ok());
    }

    async fn begin(&mut self, head: AnswerHead, first: Vec<u8>) -> Result<(), Gone> {
        self.send_head(head, first, false)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        let Some((output, _)) = &self.output else { return Err(Gone) };
        Self::write_all(output, bytes).and_then(|()| Self::flush(output))
    }

    async fn finish(&mut self, whole: bool) {
        self.end(whole);
    }
}

/// It took longer than it may.
struct TooLong;

fn wait(event: &Pollable, patience_ms: u64) -> Result<(), TooLong> {
    let timer = monotonic_clock::subscribe_duration(patience_ms.saturating_mul(NANOSECONDS_PER_MS));
    // The index of the event is 0.
    if poll(&[event, &timer]).contains(&0) { Ok(()) } else { Err(TooLong) }
}
