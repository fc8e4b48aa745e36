//! One WebSocket: the handshake, and the task that moves messages between the socket and the connection's queues.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Sink, Stream};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{OnUpgrade, Upgraded as HttpUpgraded};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes, handshake::derive_accept_key};

use super::requests::{Answer, HEADERS_MAX, from_mount, request_head, status};
use super::{Shared, loggable};
use crate::runtime::plans::UpgradeAnswer;
use crate::runtime::queue::{Close, Frame};
use crate::runtime::wit_types::{Frame as ComponentFrame, Header};
use crate::runtime::{Connection, MountCore, Upgraded};

/// Bytes written to a socket in one go.
const WRITE_BYTES: usize = 256 << 10;
/// Read buffer of a socket: small, since most sockets are idle most of the time.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// How long the peer may take to answer a close frame, and to go away after a protocol error.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The reason in a close frame: a control frame has at most 125 bytes, two of them the code.
const REASON_BYTES_MAX: usize = 123;
/// Pings in a row that may stay unanswered.
const PONGS_MISSED_MAX: u32 = 2;

type Socket = WebSocketStream<TokioIo<HttpUpgraded>>;

/// Whether a request asks for a WebSocket.
pub(crate) fn is_upgrade(request: &Request<Incoming>) -> bool {
    let names = |name: HeaderName, token: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    names(CONNECTION, "upgrade") && names(UPGRADE, "websocket")
}

/// Answers an upgrade; where it is accepted, a task serves the socket from then on.
pub(crate) async fn upgrade(
    mut request: Request<Incoming>,
    remote: SocketAddr,
    secure: bool,
    mount: &Arc<MountCore>,
    shared: &Arc<Shared>,
) -> Answer {
    if request.method() != Method::GET {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = status(StatusCode::UPGRADE_REQUIRED);
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    let Some(accept_key) = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes())) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, _body) = request.into_parts();
    let switching = |headers: &[Header], subprotocol: Option<&str>| switching_protocols(&accept_key, headers, subprotocol);
    let config = socket_config(mount);
    match mount.upgrade(request_head(&parts, remote, secure)).await {
        Upgraded::Accepted { connection, subprotocol, headers } => {
            mount.metrics.connected(&mount.name);
            let (mount, shared) = (mount.clone(), shared.clone());
            tokio::spawn(async move {
                let code = match accept(on_upgrade, config).await {
                    Some(socket) => SocketTask::new(socket, connection.clone(), &mount).run().await,
                    None => 1006,
                };
                mount.disconnected(connection, code);
                drop(shared);
            });
            switching(&headers, subprotocol.as_deref())
        }
        Upgraded::Refused(response) => {
            let response = *response;
            tracing::info!(mount = mount.name, status = response.status, request = ?loggable(&parts), "an upgrade was refused");
            from_mount(response, mount)
        }
        Upgraded::Host(UpgradeAnswer::Status(code)) => {
            tracing::info!(mount = mount.name, status = code, request = ?loggable(&parts), "an upgrade was refused by the host");
            status(StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE))
        }
        Upgraded::Host(UpgradeAnswer::Close((frames, close))) => {
            tracing::info!(mount = mount.name, code = close.code, request = ?loggable(&parts), "an upgrade was closed by the host");
            tokio::spawn(async move {
                if let Some(mut socket) = accept(on_upgrade, config).await {
                    let frames = frames.into_iter().map(Frame::from).map(message);
                    say_goodbye(&mut socket, frames.collect(), &close.into()).await;
                }
            });
            switching(&[], None)
        }
    }
}

fn socket_config(mount: &MountCore) -> WebSocketConfig {
    let limit = usize::try_from(mount.plan().max_frame_bytes).unwrap_or(usize::MAX);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit))
}

async fn accept(on_upgrade: OnUpgrade, config: WebSocketConfig) -> Option<Socket> {
    match on_upgrade.await {
        Ok(upgraded) => Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await),
        Err(error) => {
            tracing::debug!(%error, "an upgrade was not completed");
            None
        }
    }
}

fn switching_protocols(accept_key: &str, headers: &[Header], subprotocol: Option<&str>) -> Answer {
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    let all = answer.headers_mut();
    all.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    all.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::try_from(accept_key) {
        all.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(value) = subprotocol.and_then(|subprotocol| HeaderValue::try_from(subprotocol).ok()) {
        all.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    for header in headers.iter().take(HEADERS_MAX) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(header.name.as_str()), HeaderValue::from_bytes(&header.value)) {
            all.append(name, value);
        }
    }
    answer
}

fn message(frame: Frame) -> Message {
    match frame {
        // Checked where the frame was made; should it not hold, the bytes still arrive.
        Frame::Text(bytes) => match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(bytes),
        },
        Frame::Binary(bytes) => Message::Binary(bytes),
    }
}

fn close_message(close: &Close) -> Message {
    // 1005 stands for a close frame without a code.
    let reason = &close.reason[..close.reason.floor_char_boundary(REASON_BYTES_MAX)];
    let frame = (close.code != 1005).then(|| CloseFrame { code: CloseCode::from(close.code), reason: reason.into() });
    Message::Close(frame)
}

/// What happened on a socket.
enum Event {
    Message(Option<Result<Message, WsError>>),
    Flushed(Result<(), WsError>),
}

/// Waits for the socket: for a message if `reading`, for the end of a write if `flushing`.
async fn socket_event(socket: &mut Socket, reading: bool, flushing: bool) -> Event {
    poll_fn(|context| {
        if flushing && let Poll::Ready(flushed) = Pin::new(&mut *socket).poll_flush(context) {
            return Poll::Ready(Event::Flushed(flushed));
        }
        if reading && let Poll::Ready(message) = Pin::new(&mut *socket).poll_next(context) {
            return Poll::Ready(Event::Message(message));
        }
        Poll::Pending
    })
    .await
}

/// The task of one socket.
struct SocketTask<'a> {
    socket: Socket,
    connection: Arc<Connection>,
    mount: &'a Arc<MountCore>,
    /// The code of the close frame that the client sent.
    received_code: Option<u16>,
    last_heard: Instant,
    next_ping: Option<Instant>,
    pongs_missed: u32,
}

/// Why the task goes on or not.
enum Next {
    GoOn,
    /// The socket is gone.
    Gone,
    /// The host closes, in order.
    Close(Close),
    /// The client broke a rule or went silent: it is closed without waiting for what it still sends.
    Abort(Close),
}

impl<'a> SocketTask<'a> {
    fn new(socket: Socket, connection: Arc<Connection>, mount: &'a Arc<MountCore>) -> Self {
        let now = Instant::now();
        let next_ping = mount.plan().ping_ms.map(|ping_ms| now + Duration::from_millis(ping_ms));
        Self { socket, connection, mount, received_code: None, last_heard: now, next_ping, pongs_missed: 0 }
    }

    /// Serves the socket until it is gone; the close code.
    async fn run(mut self) -> u16 {
        let mut flushing = false;
        loop {
            if !flushing {
                match self.write_queued() {
                    Ok(wrote) => flushing = wrote,
                    Err(_) => return self.received_code.unwrap_or(1006),
                }
                if !flushing && let Some(close) = self.connection.due_close() {
                    say_goodbye(&mut self.socket, Vec::new(), &close).await;
                    return close.code;
                }
            }
            let reading = self.connection.wants_input();
            let timer = self.next_timer();
            let connection = self.connection.clone();
            let next = tokio::select! {
                event = socket_event(&mut self.socket, reading, flushing) => match event {
                    Event::Flushed(Ok(())) => { flushing = false; Next::GoOn }
                    Event::Flushed(Err(_)) => Next::Gone,
                    Event::Message(message) => self.received(message),
                },
                () = connection.changed() => self.while_writing(flushing),
                () = sleep_until(timer) => self.timer(reading, &mut flushing),
            };
            match next {
                Next::GoOn => {}
                Next::Gone => return self.received_code.unwrap_or(1006),
                Next::Close(close) => {
                    say_goodbye(&mut self.socket, Vec::new(), &close).await;
                    return close.code;
                }
                Next::Abort(close) => {
                    say_goodbye(&mut self.socket, Vec::new(), &close).await;
                    linger(self.socket).await;
                    return close.code;
                }
            }
        }
    }

    /// A reader that does not read is not waited for once it is to be closed.
    fn while_writing(&self, flushing: bool) -> Next {
        match self.connection.due_close() {
            Some(close) if flushing => Next::Close(close),
            _ => Next::GoOn,
        }
    }

    /// Hands frames to the socket; whether there were any.
    fn write_queued(&mut self) -> Result<bool, WsError> {
        let frames = self.connection.take_frames(WRITE_BYTES);
        let any = !frames.is_empty();
        for frame in frames {
            self.mount.metrics.frame(&self.mount.name, "out", frame.len());
            Pin::new(&mut self.socket).start_send(message(frame))?;
        }
        Ok(any)
    }

    fn received(&mut self, message: Option<Result<Message, WsError>>) -> Next {
        self.last_heard = Instant::now();
        self.pongs_missed = 0;
        match message {
            Some(Ok(Message::Text(text))) => {
                // The bytes were checked by the socket; this takes them over without a copy where it can.
                match String::from_utf8(Vec::from(bytes::Bytes::from(text))) {
                    Ok(text) => self.frame(text.len(), ComponentFrame::Text(text)),
                    Err(_) => Next::Abort(Close { code: 1007, reason: "not UTF-8".into() }),
                }
            }
            Some(Ok(Message::Binary(bytes))) => self.frame(bytes.len(), ComponentFrame::Binary(bytes.into())),
            Some(Ok(Message::Close(frame))) => {
                self.received_code = Some(frame.map_or(1005, |frame| frame.code.into()));
                Next::GoOn
            }
            // Pings are answered by the socket itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Next::GoOn,
            Some(Err(error)) => self.broken(error),
            None => Next::Gone,
        }
    }

    fn frame(&mut self, bytes: usize, frame: ComponentFrame) -> Next {
        self.mount.metrics.frame(&self.mount.name, "in", bytes);
        let limit =
            if self.connection.has_received() { self.mount.plan().max_frame_bytes } else { self.mount.plan().max_frame_bytes_before_auth };
        if u64::try_from(bytes).is_ok_and(|bytes| bytes > limit) {
            return Next::Abort(self.mount.closes().too_large);
        }
        self.connection.push_frame(frame);
        Next::GoOn
    }

    fn broken(&self, error: WsError) -> Next {
        match error {
            WsError::Capacity(_) => Next::Abort(self.mount.closes().too_large),
            WsError::Utf8(_) => Next::Abort(Close { code: 1007, reason: "not UTF-8".into() }),
            WsError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => Next::Gone,
            WsError::Protocol(error) => Next::Abort(Close { code: 1002, reason: error.to_string().chars().take(100).collect() }),
            _ => Next::Gone,
        }
    }

    /// When the next ping or the end of patience is due.
    fn next_timer(&self) -> Option<Instant> {
        let idle = self.mount.plan().idle_ms.map(|idle_ms| self.last_heard + Duration::from_millis(idle_ms));
        [self.next_ping, idle].into_iter().flatten().min()
    }

    fn timer(&mut self, reading: bool, flushing: &mut bool) -> Next {
        let now = Instant::now();
        if self.mount.plan().idle_ms.is_some_and(|idle_ms| now >= self.last_heard + Duration::from_millis(idle_ms)) {
            return Next::Abort(self.mount.closes().idle);
        }
        if self.next_ping.is_some_and(|next_ping| now >= next_ping) {
            self.next_ping = self.mount.plan().ping_ms.map(|ping_ms| now + Duration::from_millis(ping_ms));
            // While the host does not read, it cannot hear a pong either.
            if reading && self.pongs_missed >= PONGS_MISSED_MAX {
                return Next::Gone;
            }
            self.pongs_missed += 1;
            if !*flushing {
                if Pin::new(&mut self.socket).start_send(Message::Ping(bytes::Bytes::new())).is_err() {
                    return Next::Gone;
                }
                *flushing = true;
            }
        }
        Next::GoOn
    }
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(timer) => tokio::time::sleep_until(timer).await,
        None => std::future::pending().await,
    }
}

/// Sends last frames and a close frame, and waits a moment for the client's.
async fn say_goodbye(socket: &mut Socket, last: Vec<Message>, close: &Close) {
    let goodbye = async {
        for message in last.into_iter().chain([close_message(close)]) {
            Pin::new(&mut *socket).start_send(message)?;
        }
        if let Event::Flushed(flushed) = socket_event(socket, false, true).await {
            flushed?;
        }
        while let Event::Message(Some(message)) = socket_event(socket, true, false).await {
            message?;
        }
        Ok::<_, WsError>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await {
        tracing::trace!(%error, "a socket ended while it was being closed");
    }
}

/// Reads on for a moment without looking: closing a socket with unread bytes would reset it, and the close frame might never arrive.
async fn linger(socket: Socket) {
    let mut stream = socket.into_inner();
    let discard = async {
        stream.shutdown().await?;
        let mut scratch = [0_u8; 16 << 10];
        while stream.read(&mut scratch).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whatever happens here, the connection is over.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, discard).await;
}
