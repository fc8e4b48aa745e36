//! A WebSocket over a byte stream: frames in, frames out, and next to no memory while it is idle.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::upgrade::Upgraded as HttpUpgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::server::frames::{Decoder, FrameError, Message, Outgoing, encode};

/// Bytes read in one go, into memory that is not kept.
const READ_BYTES: usize = 16 << 10;
/// Pieces written in one go.
const PIECES_MAX: usize = 32;
/// Bytes that may wait to be written before pongs do: of many pings only the last must be answered.
const PONG_ROOM_BYTES: usize = 4 << 10;

/// What one read brought.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) messages: Vec<Message>,
    /// Frames, fragments and control frames among them.
    pub(super) frames: u64,
    /// Bytes on the wire.
    pub(super) bytes: u64,
    /// After these messages it is over.
    pub(super) end: Option<End>,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum End {
    /// The client is gone.
    Gone,
    /// It broke a rule.
    Broken(FrameError),
}

/// A WebSocket of a client.
pub(super) struct Socket {
    stream: TokioIo<HttpUpgraded>,
    decoder: Decoder,
    /// What is to be written: these first, then `tail`.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    waiting_bytes: usize,
    /// Of these at most so many are copies.
    copied_bytes: usize,
    pong: Option<Vec<u8>>,
}

impl Socket {
    pub(super) fn new(upgraded: HttpUpgraded) -> Self {
        Self {
            stream: TokioIo::new(upgraded),
            decoder: Decoder::default(),
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            waiting_bytes: 0,
            copied_bytes: 0,
            pong: None,
        }
    }

    /// Queues a frame.
    pub(super) fn queue(&mut self, frame: Outgoing) {
        let bytes = |socket: &Self| socket.tail.len() + socket.pieces.iter().map(Bytes::len).sum::<usize>();
        let tail_before = self.tail.len();
        encode(frame, &mut self.pieces, &mut self.tail);
        self.copied_bytes += self.tail.len().saturating_sub(tail_before);
        self.waiting_bytes = bytes(self);
    }

    /// Answers a ping, at once or, where much waits to be written, later with the last of them.
    pub(super) fn queue_pong(&mut self, payload: Vec<u8>) {
        if self.waiting_bytes > PONG_ROOM_BYTES {
            self.pong = Some(payload);
        } else {
            self.queue(Outgoing::Pong(payload.into()));
        }
    }

    /// Whether anything waits to be written.
    pub(super) fn has_output(&self) -> bool {
        self.waiting_bytes > 0 || self.pong.is_some()
    }

    /// Bytes that wait to be written, and of the message that is being read.
    pub(super) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.decoder.held_bytes()
    }

    /// Those among them that nobody else counts: copies, and the message that is being read.
    pub(super) fn uncounted_bytes(&self) -> usize {
        self.copied_bytes + self.decoder.held_bytes()
    }

    /// Whether a message has begun that is not complete.
    pub(super) fn has_begun(&self) -> bool {
        self.decoder.has_begun()
    }

    /// Writes what waits.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if !self.tail.is_empty() {
                // Split, not copied; the memory goes back once it is written.
                self.pieces.push_back(std::mem::take(&mut self.tail).freeze());
            }
            if self.pieces.is_empty() {
                match self.pong.take() {
                    Some(payload) => self.queue(Outgoing::Pong(payload.into())),
                    None => return Pin::new(&mut self.stream).poll_flush(context),
                }
                continue;
            }
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.pieces.iter().zip(&mut slices).map(|(piece, slice)| *slice = IoSlice::new(piece)).count();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
    }

    fn written(&mut self, mut count: usize) {
        self.waiting_bytes -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let some = count.min(piece.len());
            piece.advance(some);
            count -= some;
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.tail.is_empty() {
            (self.pieces, self.tail, self.copied_bytes) = Default::default();
        }
    }

    /// Reads what is there. A message may have so many bytes.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, message_bytes_max: u64) -> Poll<Received> {
        let mut memory = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut memory);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
        let mut input = buffer.filled();
        let bytes = u64::try_from(input.len()).unwrap_or(u64::MAX);
        let (mut messages, mut end) = (Vec::new(), None);
        if read.is_err() || input.is_empty() {
            end = Some(End::Gone);
        }
        while end.is_none() && !matches!(messages.last(), Some(Message::Close(_))) {
            match self.decoder.decode(&mut input, message_bytes_max) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => end = Some(End::Broken(error)),
            }
        }
        Poll::Ready(Received { messages, frames: self.decoder.take_frame_count(), bytes, end })
    }

    /// Sends what waits and a close frame, and waits a moment for the client's. After a broken frame nothing is understood
    /// any more, but still read: closing a socket with unread bytes would reset it, and the close frame might never arrive.
    pub(super) async fn say_goodbye(mut self, close: Option<(u16, String)>, broken: bool, patience: Duration) {
        self.queue(Outgoing::Close(close));
        let goodbye = async {
            std::future::poll_fn(|context| self.poll_write(context)).await?;
            let mut understood = !broken;
            while understood {
                let received = std::future::poll_fn(|context| self.poll_read(context, u64::MAX)).await;
                match received.end {
                    Some(End::Gone) => return Ok(()),
                    _ if received.messages.iter().any(|message| matches!(message, Message::Close(_))) => return Ok(()),
                    Some(End::Broken(_)) => understood = false,
                    None => {}
                }
            }
            self.stream.shutdown().await?;
            while std::future::poll_fn(|context| self.poll_discard(context)).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(patience, goodbye).await {
            tracing::trace!(%error, "a socket ended while it was being closed");
        }
    }

    /// Answers the client's close frame.
    pub(super) async fn answer_close(mut self, code: Option<u16>, patience: Duration) {
        self.queue(Outgoing::Close(code.map(|code| (code, String::new()))));
        // Whatever happens here, the connection is over.
        let _ = tokio::time::timeout(patience, async {
            std::future::poll_fn(|context| self.poll_write(context)).await?;
            self.stream.shutdown().await
        })
        .await;
    }

    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut memory = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut memory);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}
