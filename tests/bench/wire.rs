//! A WebSocket client that costs next to nothing: frames are encoded beforehand, and what comes is hardly looked at.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A text message as a client frames it. The mask is zero, which changes nothing and costs nothing.
pub fn client_frame(text: &str) -> Vec<u8> {
    let mut frame = header(TEXT, text.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A text message as a server frames it.
pub fn server_frame(text: &str) -> Vec<u8> {
    let mut frame = header(TEXT, text.len(), 0);
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn header(kind: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut header = vec![kind];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(small @ 0..126), _) => header.push(mask | small),
        (_, Ok(medium)) => {
            header.push(mask | 126);
            header.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

/// Where the payload of a frame of a server is: its first byte, where it starts and ends. None while some of it is missing.
fn parse(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (kind, length) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    (bytes.len() >= start + length).then_some((kind, start, start + length))
}

/// A connected client.
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// Connects and upgrades.
    pub async fn connect(address: SocketAddr, path_and_query: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path_and_query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut client = Self { stream, buffer: BytesMut::with_capacity(4 << 10) };
        loop {
            let head = client.buffer.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = head {
                let status = &client.buffer[..client.buffer.len().min(12)];
                ensure!(status == b"HTTP/1.1 101", "the upgrade was refused: {}", String::from_utf8_lossy(&client.buffer));
                client.buffer.advance(end + 4);
                return Ok(client);
            }
            client.fill().await?;
        }
    }

    /// Sends a frame of [`client_frame`].
    pub async fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(frame).await?)
    }

    /// Waits for the next text message and says what `look` makes of it.
    pub async fn receive<T>(&mut self, look: impl FnOnce(&[u8]) -> T) -> anyhow::Result<T> {
        loop {
            match parse(&self.buffer) {
                Some((TEXT, start, end)) => {
                    let seen = look(&self.buffer[start..end]);
                    self.buffer.advance(end);
                    return Ok(seen);
                }
                Some((PING, _, end)) => {
                    self.buffer.advance(end);
                    self.stream.write_all(&[PONG, 0x80, 0, 0, 0, 0]).await?;
                }
                Some((CLOSE, start, end)) => bail!("the server closed: {:?}", &self.buffer[start..end]),
                Some((kind, ..)) => bail!("a frame of an unexpected kind {kind:#x}"),
                None => self.fill().await?,
            }
        }
    }

    /// Waits for a text message that holds `part` near its beginning, and skips others.
    pub async fn receive_with(&mut self, part: &str) -> anyhow::Result<()> {
        let finds = |message: &[u8]| message[..message.len().min(64)].windows(part.len()).any(|window| window == part.as_bytes());
        while !self.receive(finds).await? {}
        Ok(())
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        // Room for a whole frame at once where its length is known; a server's burst otherwise.
        self.buffer.reserve(4 << 10);
        let count = self.stream.read_buf(&mut self.buffer).await.context("reading")?;
        ensure!(count > 0, "the server ended the connection");
        Ok(())
    }

    /// Both directions apart, for those that send while they wait; and what was read already.
    pub fn split(self) -> (Reader, tokio::net::tcp::OwnedWriteHalf) {
        let (read, write) = self.stream.into_split();
        (Reader { stream: read, buffer: self.buffer }, write)
    }
}

/// The reading half of a client.
pub struct Reader {
    stream: tokio::net::tcp::OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// Waits for a text message that begins with `start`, and skips others.
    pub async fn receive_starting(&mut self, start: &str) -> anyhow::Result<()> {
        loop {
            match parse(&self.buffer) {
                Some((kind, from, end)) => {
                    ensure!(kind != CLOSE, "the server closed");
                    let found = kind == TEXT && self.buffer[from..end].starts_with(start.as_bytes());
                    self.buffer.advance(end);
                    if found {
                        return Ok(());
                    }
                }
                None => {
                    self.buffer.reserve(4 << 10);
                    ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server ended the connection");
                }
            }
        }
    }
}
