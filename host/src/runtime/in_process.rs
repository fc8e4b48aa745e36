//! Connections and requests from within the process: a WebSocket without the socket, a request without HTTP, for programs
//! that embed the host and for the simulator. What a client sees is what it would see on a connection to the server.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::bindings::guest::syncline::host::types::{Frame as ComponentFrame, Header, RequestHead};
use super::queue::{Close, Frame};
use super::{Admitted, AnswerBody, Answered, Asker, BrokenOff, Connection, MountCore, Runtime, Upgraded, http};
use crate::runtime::plans::UpgradeAnswer;

/// The close code that stands for a socket that ended without a close frame.
const NO_CLOSE_FRAME: u16 = 1006;

/// What a client asks for: the head of its upgrade or request.
#[derive(Clone, Debug, Default)]
pub struct ConnectRequest {
    /// The whole path, escapes untouched; it begins with the path of the mount.
    pub path: String,
    /// What follows the `?`, escapes untouched.
    pub query: Option<String>,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The address of the peer, without a port.
    pub remote_address: String,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No mount has this name.
    #[error("no mount is named {0:?}")]
    NoMount(String),
    /// The answer is a plain HTTP response.
    #[error("the upgrade was refused with status {0}")]
    Refused(u16),
    /// The host accepted it only to say this and close.
    #[error("the connection was closed with {} at once", .1.code)]
    Closed(Vec<Frame>, Close),
    /// The process stops.
    #[error("the host is stopping")]
    Stopping,
}

/// An answer to [`Runtime::request`].
#[derive(Debug)]
pub struct InProcessResponse {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What follows.
    pub body: InProcessBody,
}

/// The body of an answer. Dropped before its end, it is a client that goes away.
pub struct InProcessBody(AnswerBody);

impl std::fmt::Debug for InProcessBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("InProcessBody")
    }
}

impl InProcessBody {
    /// The next piece; none at the end. Of an event stream each frame is a piece. Can be cancelled without losing anything.
    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        match &mut self.0 {
            AnswerBody::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            AnswerBody::Pieces { pieces, .. } => pieces.next().await,
            AnswerBody::Unsent(_) => None,
        }
    }
}

/// What happens on an [`InProcessSocket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A message of the server.
    Frame(Frame),
    /// The server closed; nothing follows.
    Close(Close),
    /// A message can be sent now; only where it was asked for.
    Writable,
}

/// The client's end of a connection. Dropping it without [`InProcessSocket::close`] is what a cut line is.
pub struct InProcessSocket {
    connection: Arc<Connection>,
    mount: Arc<MountCore>,
    /// Taken from the queue and not handed out yet.
    taken: VecDeque<Frame>,
    /// The code that the connection ends with.
    code: u16,
    closed: bool,
}

impl From<ConnectRequest> for RequestHead {
    fn from(request: ConnectRequest) -> Self {
        Self {
            method: "GET".into(),
            path: request.path,
            query: request.query,
            headers: request.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            remote_address: request.remote_address,
            secure: request.secure,
        }
    }
}

impl Runtime {
    /// Makes a request of a mount, with a method in upper case. The calls are not torn apart if the caller goes away
    /// meanwhile. A client of a stream that does not read is dropped by the rules for slow readers.
    pub async fn request(
        &self,
        mount: &str,
        method: &str,
        request: ConnectRequest,
        body: Vec<u8>,
    ) -> Result<InProcessResponse, ConnectError> {
        let mount = self.mount(mount).ok_or_else(|| ConnectError::NoMount(mount.to_owned()))?;
        let head = Arc::new(RequestHead { method: method.to_owned(), ..request.into() });
        // Dropped with the caller's future: then nobody waits any more.
        let (_present, gone) = oneshot::channel();
        let answering = mount.runtime.clone().spawn(async move {
            let open = mount.open_request();
            let accept = match open.admit(head.clone()).await {
                Ok(http::Admission::Accept(accept)) => accept,
                Ok(http::Admission::Refuse(response)) => return mount.refusal(response),
                Err(error) => return mount.fallback(error.into()),
            };
            let body = match accept.body {
                http::BodyPlan::Inline(_) if body.is_empty() => http::BodyIn::Empty,
                http::BodyPlan::Inline(bytes_max) if fits(&body, bytes_max.min(mount.plan().max_body_bytes)) => http::BodyIn::Bytes(body),
                http::BodyPlan::Inline(_) => http::BodyIn::Failed(http::BodyFailure::TooLarge),
                http::BodyPlan::Object(upload) => mount.take_whole(upload, body.into()).await,
            };
            let answered = open
                .handle(head, Admitted { context: Some(accept.context), work: accept.work }, body, &mut Asker { gone, cut: Arc::default() })
                .await;
            answered.unwrap_or_else(|error| mount.fallback(error))
        });
        let Answered { status, headers, body } = answering.await.map_err(|_| ConnectError::Stopping)?;
        let headers = headers.into_iter().map(|header| (header.name, header.value)).collect();
        Ok(InProcessResponse { status, headers, body: InProcessBody(body) })
    }

    /// Connects a client of this process to a mount. The call is not torn apart if the caller goes away meanwhile.
    pub async fn connect(&self, mount: &str, request: ConnectRequest) -> Result<InProcessSocket, ConnectError> {
        let mount = self.mount(mount).ok_or_else(|| ConnectError::NoMount(mount.to_owned()))?;
        let head = Arc::new(request.into());
        let upgrading = mount.runtime.clone().spawn(async move {
            match mount.upgrade(head).await {
                Upgraded::Accepted { connection, .. } => {
                    mount.metrics.connected(&mount.name);
                    Ok(InProcessSocket { connection, mount, taken: VecDeque::new(), code: NO_CLOSE_FRAME, closed: false })
                }
                Upgraded::Refused(response) => Err(ConnectError::Refused(response.status)),
                Upgraded::Host(UpgradeAnswer::Status(status)) => Err(ConnectError::Refused(status)),
                Upgraded::Host(UpgradeAnswer::Close((frames, close))) => {
                    Err(ConnectError::Closed(frames.into_iter().map(Frame::from).collect(), close.into()))
                }
            }
        });
        upgrading.await.unwrap_or(Err(ConnectError::Stopping))
    }
}

impl InProcessSocket {
    /// Waits for the next message or the close.
    pub async fn receive(&mut self) -> SocketEvent {
        self.event(true, false).await
    }

    /// Waits for the next message (`to_receive`), until a message can be sent (`to_send`), and in any case for the close,
    /// which a reader that does not receive learns of once nothing is left to be sent before it. Who sends without
    /// receiving may wait for ever: a host that cannot get rid of its answers does not read. Can be cancelled without
    /// losing anything.
    pub async fn event(&mut self, to_receive: bool, to_send: bool) -> SocketEvent {
        loop {
            if to_receive && self.taken.is_empty() {
                self.taken.extend(self.connection.take_frames(1));
            }
            if to_receive && let Some(frame) = self.taken.pop_front() {
                self.mount.traffic.sent(frame.len());
                return SocketEvent::Frame(frame);
            }
            if self.taken.is_empty()
                && let Some(close) = self.connection.due_close()
            {
                (self.code, self.closed) = (close.code, true);
                return SocketEvent::Close(close);
            }
            if to_send && self.connection.wants_input() {
                return SocketEvent::Writable;
            }
            self.connection.changed().await;
        }
    }

    /// Sends a message, or gives it back where the host does not read now: see [`InProcessSocket::event`]. After a close
    /// it goes nowhere. A message over the mount's limit closes the connection.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.closed || self.connection.is_closing() {
            return Ok(());
        }
        if !self.connection.wants_input() {
            return Err(frame);
        }
        self.mount.traffic.received(frame.len());
        let plan = self.mount.plan();
        let bytes_max = if self.connection.has_received() { plan.max_frame_bytes } else { plan.max_frame_bytes_before_auth };
        let closes = self.mount.closes();
        if u64::try_from(frame.len()).is_ok_and(|bytes| bytes > bytes_max) {
            self.connection.close_now(closes.too_large.clone());
            return Ok(());
        }
        let frame = match frame {
            Frame::Binary(bytes) => ComponentFrame::Binary(bytes.into()),
            Frame::Text(bytes) => match String::from_utf8(bytes.into()) {
                Ok(text) => ComponentFrame::Text(text),
                Err(_) => {
                    self.connection.close_now(Close { code: 1007, reason: "not UTF-8".into() });
                    return Ok(());
                }
            },
        };
        self.connection.push_frame(frame);
        Ok(())
    }

    /// Ends the connection with a close code, as a client that says goodbye.
    pub fn close(mut self, code: u16) {
        if !self.closed {
            self.code = code;
        }
    }
}

impl Drop for InProcessSocket {
    fn drop(&mut self) {
        self.mount.disconnected(self.connection.clone(), self.code);
    }
}

fn fits(body: &[u8], bytes_max: u64) -> bool {
    u64::try_from(body.len()).is_ok_and(|bytes| bytes <= bytes_max)
}
