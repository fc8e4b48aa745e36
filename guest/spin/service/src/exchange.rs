//! One request and the way of its answer.

use spin_sdk::wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use spin_sdk::wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use spin_sdk::wasip3::{wit_future, wit_stream};
use syncline_spin_front::{AnswerHead, Exchange, Gone, Incoming, Unread};

use crate::waiting::{Giver, Taker, hand_over, within};

/// Bytes of a body that are read in one go.
const READ_BYTES: usize = 64 << 10;
/// How long a client may take nothing.
const WRITE_PATIENCE_MS: u64 = 60_000;

/// How a body ended.
type BodyEnd = Result<Option<Trailers>, ErrorCode>;

/// See the module.
pub(crate) struct Exchanged {
    request: Option<Request>,
    input: Option<(StreamReader<u8>, FutureReader<BodyEnd>)>,
    response: Option<Giver<Response>>,
    output: Option<(StreamWriter<u8>, FutureWriter<BodyEnd>)>,
}

/// The head of a request.
pub(crate) fn incoming(request: &Request) -> Incoming {
    Incoming {
        method: method(request.get_method()),
        path_with_query: request.get_path_with_query().unwrap_or_default(),
        authority: request.get_authority(),
        secure: matches!(request.get_scheme(), Some(Scheme::Https)),
        headers: request.get_headers().copy_all(),
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

impl Exchanged {
    /// A request, and where its answer will be.
    pub(crate) fn new(request: Request) -> (Self, Taker<Response>) {
        let (giver, taker) = hand_over();
        (Self { request: Some(request), input: None, response: Some(giver), output: None }, taker)
    }

    /// Sends the head, and makes the way of the body.
    fn send_head(&mut self, head: AnswerHead) -> Result<(), Gone> {
        let Some(giver) = self.response.take() else { return Err(Gone) };
        let fields = Fields::new();
        for header in &head.headers {
            // What only a connection needs is Spin's to say; what is no header is left out.
            if let Err(error) = fields.append(&header.name, &header.value) {
                eprintln!("{{\"level\":\"warn\",\"message\":\"a header was left out\",\"detail\":\"{error}\"}}");
            }
        }
        let (end, end_reader) = wit_future::new(|| Err(ErrorCode::InternalError(Some("the answer broke off".into()))));
        let contents = head.has_body.then(wit_stream::new);
        let (writer, reader) = contents.unzip();
        let (response, _sent) = Response::new(fields, reader, end_reader);
        if response.set_status_code(head.status).is_err() {
            eprintln!("{{\"level\":\"error\",\"message\":\"a status was not taken\"}}");
        }
        giver.give(response);
        match writer {
            Some(writer) => self.output = Some((writer, end)),
            None => spin_sdk::wasip3::spawn(async move { drop(end.write(Ok(None)).await) }),
        }
        Ok(())
    }

    async fn write_all(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        let Some((writer, _)) = &mut self.output else { return Err(Gone) };
        if bytes.is_empty() {
            return Ok(());
        }
        match within(WRITE_PATIENCE_MS, writer.write_all(bytes)).await {
            Some(unwritten) if unwritten.is_empty() => Ok(()),
            _ => Err(Gone),
        }
    }

    async fn end(&mut self, is_whole: bool) {
        let Some((writer, end)) = self.output.take() else { return };
        drop(writer);
        if is_whole {
            // The client is gone or has it all: there is nobody to be told.
            let _ = end.write(Ok(None)).await;
        }
    }
}

impl Exchange for Exchanged {
    async fn read(&mut self, patience_ms: u64) -> Result<Option<Vec<u8>>, Unread> {
        if let Some(request) = self.request.take() {
            let (handled, handled_reader) = wit_future::new(|| Ok(()));
            drop(handled);
            self.input = Some(Request::consume_body(request, handled_reader));
        }
        let Some((stream, _)) = &mut self.input else { return Ok(None) };
        let (result, bytes) = within(patience_ms, stream.read(Vec::with_capacity(READ_BYTES))).await.ok_or(Unread::TooSlow)?;
        if !bytes.is_empty() {
            return Ok(Some(bytes));
        }
        match result {
            StreamResult::Complete(_) => Ok(Some(Vec::new())),
            StreamResult::Dropped | StreamResult::Cancelled => match self.input.take() {
                Some((_, end)) => end.await.map(|_| None).map_err(|_| Unread::Broken),
                None => Ok(None),
            },
        }
    }

    async fn answer(&mut self, head: AnswerHead, body: Vec<u8>) {
        let sent = match self.send_head(head) {
            Ok(()) if body.is_empty() => Ok(()),
            Ok(()) => self.write_all(body).await,
            Err(gone) => Err(gone),
        };
        self.end(sent.is_ok()).await;
    }

    async fn begin(&mut self, head: AnswerHead, first: Vec<u8>) -> Result<(), Gone> {
        self.send_head(head)?;
        self.write_all(first).await
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.write_all(bytes).await
    }

    async fn finish(&mut self, whole: bool) {
        self.end(whole).await;
    }
}
