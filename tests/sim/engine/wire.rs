//! What a client has dialled: a WebSocket, or a response that goes on and on.

use syncline::runtime::Runtime;
use syncline::runtime::in_process::{ConnectError, InProcessBody, InProcessSocket, SocketEvent};
use syncline::runtime::queue::{Close, Frame};

use super::model::Dial;

/// The code that stands for a stream that was broken off.
const BROKEN_OFF: u16 = 1006;
/// The code that stands for a stream that ended as a whole.
const ENDED: u16 = 1000;

/// The client's end of a connection. Dropping it is what a cut line is.
pub enum Wire {
    /// Of a WebSocket.
    Socket(InProcessSocket),
    /// Of a response.
    Stream(InProcessBody),
}

/// Why there is none.
pub enum NotConnected {
    /// The server accepted it only to say this and close.
    Closed(Vec<Frame>, u16),
    /// The status of a plain answer.
    Refused(u16),
    /// The server stops.
    Stopping,
}

impl From<ConnectError> for NotConnected {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Closed(frames, close) => Self::Closed(frames, close.code),
            ConnectError::Refused(status) => Self::Refused(status),
            ConnectError::NoMount(_) | ConnectError::Stopping => Self::Stopping,
        }
    }
}

/// Connects. Nobody dials nothing.
pub async fn dial(runtime: &Runtime, mount: &str, wanted: Dial) -> Result<Wire, NotConnected> {
    match wanted {
        Dial::Socket(request) => Ok(Wire::Socket(runtime.connect(mount, request).await?)),
        Dial::Stream(request) => {
            let response = runtime.request(mount, "GET", request, Vec::new()).await?;
            if response.status == 200 { Ok(Wire::Stream(response.body)) } else { Err(NotConnected::Refused(response.status)) }
        }
        Dial::Nothing => Err(NotConnected::Stopping),
    }
}

impl Wire {
    /// As [`InProcessSocket::event`]; a stream takes everything at once, and loses it.
    pub async fn event(&mut self, to_receive: bool, to_send: bool) -> SocketEvent {
        match self {
            Self::Socket(socket) => socket.event(to_receive, to_send).await,
            Self::Stream(_) if to_send => SocketEvent::Writable,
            Self::Stream(_) if !to_receive => std::future::pending().await,
            Self::Stream(body) => match body.next().await {
                Some(Ok(piece)) => SocketEvent::Frame(Frame::Text(piece)),
                Some(Err(_)) => SocketEvent::Close(Close { code: BROKEN_OFF, reason: String::new() }),
                None => SocketEvent::Close(Close { code: ENDED, reason: String::new() }),
            },
        }
    }

    /// As [`InProcessSocket::send`].
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        match self {
            Self::Socket(socket) => socket.send(frame),
            Self::Stream(_) => Ok(()),
        }
    }

    /// Says goodbye, where one can.
    pub fn close(self, code: u16) {
        match self {
            Self::Socket(socket) => socket.close(code),
            Self::Stream(body) => drop(body),
        }
    }
}
