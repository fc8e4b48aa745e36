//! A connection of a mount without a socket: for programs that embed the host, and to measure what the component costs.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::{Close, Frame};
use super::wit_types::{Frame as ComponentFrame, RequestHead};
use super::{Connection, MountCore, Runtime, Upgraded};

/// Bytes taken from the queue in one go.
const TAKEN_BYTES: usize = 256 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LocalConnectionRefused {
    /// There is no mount of this name.
    #[error("there is no mount {0:?}")]
    NoMount(String),
    /// The mount refuses it, with an HTTP status.
    #[error("the mount refuses with status {0}")]
    Refused(u16),
    /// The mount does not take it just now.
    #[error("the mount takes no connections just now")]
    Unavailable,
}

/// A client's end of a connection in this process. Dropping it disconnects.
pub struct LocalConnection {
    mount: Arc<MountCore>,
    connection: Arc<Connection>,
    taken: Mutex<VecDeque<Frame>>,
}

impl LocalConnection {
    /// Connects as a client does that asks for `path` and `query`.
    pub async fn open(runtime: &Runtime, mount: &str, path: &str, query: &str) -> Result<Self, LocalConnectionRefused> {
        let mount = runtime.mount(mount).ok_or_else(|| LocalConnectionRefused::NoMount(mount.to_owned()))?;
        let head = RequestHead {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: Some(query.to_owned()),
            headers: Vec::new(),
            remote_address: "127.0.0.1".to_owned(),
            secure: false,
        };
        match mount.upgrade(Arc::new(head)).await {
            Upgraded::Accepted { connection, .. } => {
                mount.metrics.connected(&mount.name);
                Ok(Self { mount, connection, taken: Mutex::default() })
            }
            Upgraded::Refused(response) => Err(LocalConnectionRefused::Refused(response.status)),
            Upgraded::Host(_) => Err(LocalConnectionRefused::Unavailable),
        }
    }

    /// Sends a text message.
    pub fn send(&self, text: String) {
        self.connection.push_frame(ComponentFrame::Text(text));
    }

    /// The next message, or how the server closes.
    pub async fn receive(&self) -> Result<Frame, Close> {
        loop {
            if let Some(frame) = self.taken.lock().pop_front() {
                return Ok(frame);
            }
            let frames = self.connection.take_frames(TAKEN_BYTES);
            if !frames.is_empty() {
                self.taken.lock().extend(frames);
            } else if let Some(close) = self.connection.due_close() {
                return Err(close);
            } else {
                self.connection.changed().await;
            }
        }
    }
}

impl Drop for LocalConnection {
    fn drop(&mut self) {
        self.mount.disconnected(self.connection.clone(), 1005);
    }
}
