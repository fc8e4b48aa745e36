//! A client of event streams: HTTP with a chunked body, each chunk a frame, with deadlines.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::DEADLINE;

/// A response whose body is chunked.
pub struct Stream {
    /// The status.
    pub status: u16,
    /// Header lines as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

/// What came on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// A frame.
    Text(String),
    /// The stream ended as a whole.
    End,
    /// The connection ended within it.
    Cut,
}

impl Stream {
    /// Asks for a stream.
    pub async fn get(address: SocketAddr, target: &str) -> Self {
        Self::get_with(address, target, &[]).await
    }

    /// The same with headers.
    pub async fn get_with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the server listens"), target, headers).await
    }

    /// The same with a small receive buffer, so that little is under way to a client that does not read.
    pub async fn get_narrow(address: SocketAddr, target: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket.set_recv_buffer_size(4096).expect("buffers can be set");
        Self::over(socket.connect(address).await.expect("the server listens"), target, &[]).await
    }

    async fn over(mut stream: TcpStream, target: &str, headers: &[(&str, &str)]) -> Self {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("GET {target} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("the request can be sent");
        let mut reader = BufReader::new(stream);
        let status = line(&mut reader).await.expect("the request is answered");
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut headers = Vec::new();
        loop {
            let line = line(&mut reader).await.expect("the head is whole");
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Self { status, headers, reader }
    }

    /// The next thing that comes.
    pub async fn next(&mut self) -> Chunk {
        let Some(length) = line(&mut self.reader).await else { return Chunk::Cut };
        let length = usize::from_str_radix(&length, 16).expect("the length of a chunk");
        let mut bytes = vec![0; length + 2];
        let read = tokio::time::timeout(DEADLINE, self.reader.read_exact(&mut bytes)).await.expect("a chunk comes within the deadline");
        match (read, length) {
            (Err(_), _) => Chunk::Cut,
            (Ok(_), 0) => Chunk::End,
            (Ok(_), _) => Chunk::Text(String::from_utf8(bytes[..length].to_vec()).expect("frames are text")),
        }
    }

    /// The next frame.
    pub async fn hear(&mut self) -> String {
        match self.next().await {
            Chunk::Text(text) => text,
            other => panic!("a frame was expected, and {other:?} came"),
        }
    }

    /// Expects frames, in this order.
    pub async fn hears(&mut self, texts: &[&str]) {
        for expected in texts {
            assert_eq!(self.hear().await, *expected);
        }
    }

    /// Reads what is left up to the end, and gives it.
    pub async fn rest(&mut self) -> Chunk {
        loop {
            match self.next().await {
                Chunk::Text(_) => {}
                end => return end,
            }
        }
    }
}

/// A line without its end; none at the end of the connection.
async fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = tokio::time::timeout(DEADLINE, reader.read_line(&mut line)).await.expect("something comes within the deadline");
    (read.is_ok() && line.ends_with('\n')).then(|| line.trim_end().to_owned())
}
