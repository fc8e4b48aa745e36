//! An HTTP client that costs next to nothing: requests are encoded beforehand, and what comes is hardly looked at.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that are asked for at a time.
const READ_BYTES: usize = 64 << 10;

/// A request with a JSON body.
pub fn post(path: &str, token: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A request with a body of bytes.
pub fn put(path: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Whether `part` is somewhere in `text`.
pub fn holds(text: &[u8], part: &[u8]) -> bool {
    position(text, part).is_some()
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The number that follows `name` in a JSON text, if it is there as a whole.
pub fn number_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let digits = &text[position(text, name)? + name.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// A connection that is kept.
pub struct Http {
    stream: TcpStream,
    buffer: BytesMut,
    /// What a chunked body is put together in.
    body: Vec<u8>,
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(READ_BYTES), body: Vec::new() })
    }

    /// Sends a request and says what `look` makes of the body of the answer, which must be one of success.
    pub async fn exchange<T>(&mut self, request: &[u8], look: impl FnOnce(&[u8]) -> T) -> anyhow::Result<T> {
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse).transpose()?;
        let (seen, status) = match length {
            Some(length) => {
                while self.buffer.len() < length {
                    self.fill().await?;
                }
                let seen = look(&self.buffer[..length]);
                let shown = String::from_utf8_lossy(&self.buffer[..length.min(300)]).into_owned();
                self.buffer.advance(length);
                (seen, shown)
            }
            None => {
                self.chunks().await?;
                (look(&self.body), String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned())
            }
        };
        ensure!(head.starts_with("http/1.1 20"), "{}: {status}", head.lines().next().unwrap_or_default());
        Ok(seen)
    }

    /// The head of an answer in lower case, without its end.
    async fn head(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = position(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                self.buffer.advance(end + 4);
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    async fn chunks(&mut self) -> anyhow::Result<()> {
        self.body.clear();
        loop {
            let Some(end) = position(&self.buffer, b"\r\n") else {
                self.fill().await?;
                continue;
            };
            let length = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end])?, 16)?;
            while self.buffer.len() < end + 2 + length + 2 {
                self.fill().await?;
            }
            self.body.extend_from_slice(&self.buffer[end + 2..end + 2 + length]);
            self.buffer.advance(end + 2 + length + 2);
            if length == 0 {
                return Ok(());
            }
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ_BYTES);
        let count = self.stream.read_buf(&mut self.buffer).await.context("reading")?;
        ensure!(count > 0, "the server ended the connection");
        Ok(())
    }
}

/// A stream of server-sent events. Chunks are not told apart: no event is cut in two.
pub struct Events {
    http: Http,
}

impl Events {
    /// Connects and takes what is sent at once.
    pub async fn connect(address: SocketAddr, path: &str, token: &str) -> anyhow::Result<Self> {
        Self::connect_until(address, path, token, b"event: hello").await
    }

    /// The same where something else comes first.
    pub async fn connect_until(address: SocketAddr, path: &str, token: &str, first: &[u8]) -> anyhow::Result<Self> {
        let mut http = Http::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n");
        http.stream.write_all(request.as_bytes()).await?;
        let head = http.head().await?;
        ensure!(head.starts_with("http/1.1 200"), "{head}");
        while !holds(&http.buffer, first) {
            http.fill().await?;
        }
        Ok(Self { http })
    }

    /// Waits for a poke with this version or a later one.
    pub async fn poke(&mut self, version: u64) -> anyhow::Result<()> {
        self.event(b"event: poke\ndata: {\"cookie\":", version).await
    }

    /// Waits for an event that begins with so much and then tells of this version or a later one.
    pub async fn event(&mut self, begins: &[u8], version: u64) -> anyhow::Result<()> {
        loop {
            while let Some(start) = position(&self.http.buffer, begins) {
                let Some(seen) = number_after(&self.http.buffer[start..], begins) else { break };
                self.http.buffer.advance(start + begins.len());
                if seen >= version {
                    return Ok(());
                }
            }
            self.http.fill().await?;
        }
    }
}
