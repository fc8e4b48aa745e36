//! Event streams: responses that are connections without frames. What a WebSocket gets as frames, the client of a stream
//! gets as bytes; queues, calls and their order are those of every connection.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::mount::MountCore;
use super::pieces::Maker;
use super::queue::Frame;

/// Bytes taken from the queue in one go.
const BATCH_BYTES: usize = 64 << 10;
/// How long a client may take to read what is left when its stream ends.
const GOODBYE: Duration = Duration::from_secs(2);
/// Keepalives are sent no more often than this.
const KEEPALIVE_MS_MIN: u64 = 100;
/// The close code of a stream whose client went away.
const NO_CLOSE: u16 = 1006;

/// What is written whenever nothing was written for so long.
pub(crate) struct Keepalive {
    after: Duration,
    bytes: Bytes,
}

impl Keepalive {
    pub(crate) fn new((after_ms, bytes): (u64, Vec<u8>)) -> Self {
        Self { after: Duration::from_millis(after_ms.max(KEEPALIVE_MS_MIN)), bytes: bytes.into() }
    }
}

/// Moves what is queued for a stream to its client, until one of both ends; then the component is told.
pub(crate) async fn serve(connection: Arc<Connection>, mount: Arc<MountCore>, maker: Maker, keepalive: Option<Keepalive>) {
    let code = pump(&connection, &mount, maker, keepalive).await;
    mount.disconnected(connection, code);
}

async fn pump(connection: &Arc<Connection>, mount: &MountCore, maker: Maker, keepalive: Option<Keepalive>) -> u16 {
    let mut written = Instant::now();
    let due = |written: Instant| keepalive.as_ref().map(|keepalive| written + keepalive.after);
    // One timer, set anew only when it is over: that costs more than a frame does.
    let mut sleep = pin!(sleep_until(due(written).unwrap_or(written)));
    loop {
        let room = tokio::select! {
            biased;
            room = maker.room() => room,
            () = must_close(connection) => None,
        };
        let Some(room) = room else { break };
        let frames = connection.take_frames(BATCH_BYTES);
        connection.set_socket_bytes(frames.iter().map(Frame::len).sum());
        if !frames.is_empty() {
            frames.iter().for_each(|frame| mount.traffic.sent(frame.len()));
            room.fill(frames.into_iter().map(Frame::into_bytes).collect());
            written = Instant::now();
            continue;
        }
        if connection.due_close().is_some() {
            break;
        }
        tokio::select! {
            biased;
            () = maker.gone() => break,
            () = connection.changed() => {}
            () = &mut sleep, if keepalive.is_some() => {
                if let Some(keepalive) = keepalive.as_ref().filter(|keepalive| written + keepalive.after <= Instant::now()) {
                    room.fill(vec![keepalive.bytes.clone()]);
                    written = Instant::now();
                }
                sleep.as_mut().reset(due(written).unwrap_or(written));
            }
        }
    }
    let Some(close) = connection.due_close() else { return NO_CLOSE };
    maker.end(Some(GOODBYE)).await;
    close.code
}

/// Waits until there is nothing left to be sent but the end. A client that does not read is not waited for then.
async fn must_close(connection: &Connection) {
    while connection.due_close().is_none() {
        connection.changed().await;
    }
}
