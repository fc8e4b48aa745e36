//! HTTP and WebSockets byte by byte, for what no well-behaved client sends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use syncline_tests::DEADLINE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Opcodes of RFC 6455.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// The bit of the last fragment.
pub const FIN: u8 = 0x80;

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// By lower-case name; the last of several.
    pub headers: BTreeMap<String, String>,
    /// The body, by `content-length`.
    pub body: String,
}

/// A TCP connection for HTTP, and for a WebSocket after an upgrade.
pub struct RawConnection {
    /// Bytes that were sent.
    pub sent: usize,
    stream: TcpStream,
    received: Vec<u8>,
}

/// A frame of the server.
#[derive(Debug, PartialEq)]
pub struct RawFrame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl RawFrame {
    /// The code of a close frame; 1005 for none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.first, FIN | CLOSE, "a close was expected, and {self:?} came");
        self.payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        assert_eq!(self.first, FIN | TEXT, "a text was expected, and {self:?} came");
        std::str::from_utf8(&self.payload).expect("texts are UTF-8")
    }
}

/// A masked frame of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("it is small")),
        length @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("it is small").to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend(u64::try_from(length).expect("lengths fit").to_be_bytes());
        }
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a masked frame that claims a length, without the body.
pub fn header_of(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0x11, 0x22, 0x33, 0x44]);
    bytes
}

impl RawConnection {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("the server listens")
    }

    /// Connects, if that is possible.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).await.ok().map(Self::over)
    }

    /// Connects from another address of this machine.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is this machine");
        Self::over(socket.connect(address).await.expect("the server listens"))
    }

    fn over(stream: TcpStream) -> Self {
        Self { stream, sent: 0, received: Vec::new() }
    }

    /// Connects with a small receive buffer, so that little is under way to a client that does not read.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket.set_recv_buffer_size(4096).expect("buffers can be set");
        Self::over(socket.connect(address).await.expect("the server listens"))
    }

    /// Upgrades to a WebSocket.
    pub async fn upgrade(&mut self, place: &str) {
        let response = self.request("GET", place, UPGRADE_HEADERS).await;
        assert_eq!(response.status, 101);
    }

    /// Connects and upgrades.
    pub async fn websocket(address: SocketAddr, place: &str) -> Self {
        let mut connection = Self::connect(address).await;
        connection.upgrade(place).await;
        connection
    }

    /// Sends a request without a body and reads the response.
    pub async fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n").as_bytes()).await;
        self.response(method == "HEAD").await
    }

    /// Reads a response.
    pub async fn response(&mut self, without_body: bool) -> Response {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.read_more().await, "the head of a response was expected");
        };
        let head = String::from_utf8(self.received.drain(..end + 4).collect()).expect("heads are text");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = if without_body { 0 } else { headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0) };
        let body = String::from_utf8(self.take(length).await).expect("bodies are text");
        Response { status: status.expect("a status line"), headers, body }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("the server reads").expect("the connection is open");
    }

    /// Sends bytes that the server may not want any more.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("the server reads or closes").is_ok()
    }

    /// Sends no more, and goes on reading.
    pub async fn finish(&mut self) {
        // The server may have been faster.
        let _ = self.stream.shutdown().await;
    }

    /// Whether the connection ends within a while. What comes before is kept.
    pub async fn ended_within(&mut self, patience: Duration) -> bool {
        let ended = async { while self.read_more().await {} };
        timeout(patience, ended).await.is_ok()
    }

    /// The next frame; none at the end.
    pub async fn frame(&mut self) -> Option<RawFrame> {
        while self.received.len() < 2 {
            if !self.read_more().await {
                assert!(self.received.is_empty(), "the connection ended within a frame");
                return None;
            }
        }
        let head = self.take(2).await;
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let length = match head[1] {
            126 => usize::from(u16::from_be_bytes(self.take(2).await.try_into().expect("two bytes"))),
            127 => usize::try_from(u64::from_be_bytes(self.take(8).await.try_into().expect("eight bytes"))).expect("it fits"),
            length => usize::from(length),
        };
        Some(RawFrame { first: head[0], payload: self.take(length).await })
    }

    /// The next frame that is no ping.
    pub async fn message(&mut self) -> Option<RawFrame> {
        loop {
            match self.frame().await {
                Some(frame) if frame.first == FIN | PING => {}
                other => return other,
            }
        }
    }

    /// The close code, which must come before any other message; then the connection ends.
    pub async fn closed(&mut self) -> u16 {
        let code = self.message().await.expect("a close frame comes before the end").close_code();
        assert_eq!(self.frame().await, None);
        code
    }

    /// Everything up to the end, as text.
    pub async fn everything(&mut self) -> String {
        while self.read_more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned()
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.read_more().await, "more bytes were expected");
        }
        self.received.drain(..length).collect()
    }

    /// False at the end.
    async fn read_more(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        let read = timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("something comes within the deadline");
        let count = read.unwrap_or(0);
        self.received.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// What a WebSocket handshake needs.
pub const UPGRADE_HEADERS: &[(&str, &str)] = &[
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// One request on a connection of its own.
pub async fn get(address: SocketAddr, target: &str) -> Response {
    RawConnection::connect(address).await.request("GET", target, &[]).await
}
