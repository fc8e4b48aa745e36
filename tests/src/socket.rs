//! A WebSocket client that waits with deadlines.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::DEADLINE;

/// A WebSocket of a test, over TCP or another stream.
pub struct Socket<S = TcpStream> {
    inner: WebSocketStream<S>,
}

/// What came from the server.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A text frame with JSON.
    Json(Value),
    /// Any other message.
    Other(Message),
    /// The close frame's code; 1005 for none.
    Close(u16),
    /// The socket ended without a close frame.
    End,
}

impl Socket {
    /// Connects; panics where the server refuses.
    pub async fn connect(address: SocketAddr, path_and_query: &str) -> Self {
        Self::try_connect(address, path_and_query).await.expect("the upgrade is accepted")
    }

    /// Connects.
    pub async fn try_connect(address: SocketAddr, path_and_query: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        stream.set_nodelay(true).map_err(Error::Io)?;
        Self::over(stream, &format!("ws://{address}{path_and_query}")).await
    }

    /// The TCP stream below.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.inner.get_mut()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Makes the handshake on a stream.
    pub async fn over(stream: S, url: &str) -> Result<Self, Error> {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let connecting = tokio_tungstenite::client_async_with_config(url, stream, Some(config));
        let (inner, _) = tokio::time::timeout(DEADLINE, connecting).await.expect("the upgrade is answered")?;
        Ok(Self { inner })
    }

    /// Sends JSON in a text frame.
    pub async fn send(&mut self, value: &Value) {
        self.send_message(Message::text(value.to_string())).await;
    }

    /// Sends a message.
    pub async fn send_message(&mut self, message: Message) {
        self.try_send(message).await.expect("the socket is open");
    }

    /// Sends a message, or says why not.
    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        tokio::time::timeout(DEADLINE, self.inner.send(message)).await.expect("the server reads")
    }

    /// The next thing that comes, pings and pongs aside.
    pub async fn receive(&mut self) -> Received {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.inner.next()).await.expect("something comes within the deadline");
            return match next {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(value) => Received::Json(value),
                    Err(_) => Received::Other(Message::Text(text)),
                },
                Some(Ok(Message::Close(frame))) => Received::Close(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(other)) => Received::Other(other),
                Some(Err(_)) | None => Received::End,
            };
        }
    }

    /// The next message, which must be JSON.
    pub async fn json(&mut self) -> Value {
        match self.receive().await {
            Received::Json(value) => value,
            other => panic!("JSON was expected, and {other:?} came"),
        }
    }

    /// The next message, which must be JSON of a `type`.
    pub async fn json_of(&mut self, kind: &str) -> Value {
        let value = self.json().await;
        assert_eq!(value["type"], kind, "{value}");
        value
    }

    /// The close code; anything else is a failure.
    pub async fn closed(&mut self) -> u16 {
        match self.receive().await {
            Received::Close(code) => code,
            other => panic!("a close was expected, and {other:?} came"),
        }
    }

    /// Closes in order and waits until the server did too.
    pub async fn close(mut self) {
        // The server may have been faster.
        let _ = self.inner.close(None).await;
        while !matches!(self.receive().await, Received::End | Received::Close(_)) {}
    }
}
