//! Frames of WebSockets: the first byte says how what follows is cut into reads. Whatever the cut, the same comes out; and
//! what the server writes reads as what it meant.
#![no_main]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

/// By its path: the host with its engine would take minutes to build and has nothing to do with it.
#[allow(dead_code, reason = "the server uses all of it")]
#[path = "../../../host/src/server/frames.rs"]
mod frames;

use frames::{Decoder, FrameError, Message, Outgoing, encode};

const MESSAGE_BYTES_MAX: usize = 4 << 10;
const CONTROL_BYTES_MAX: usize = 125;

/// Messages, how it ended, and complete frames.
type Decoded = (Vec<Message>, Result<(), FrameError>, u64);

fn decode<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for mut read in reads {
        loop {
            match decoder.decode(&mut read, MESSAGE_BYTES_MAX as u64) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error), decoder.take_frame_count()),
            }
            assert!(decoder.held_bytes() <= 2 * MESSAGE_BYTES_MAX + CONTROL_BYTES_MAX, "{} bytes", decoder.held_bytes());
        }
        assert!(read.is_empty(), "all that was read is taken");
    }
    (messages, Ok(()), decoder.take_frame_count())
}

/// A frame of the server as a client would write it: with a mask, which changes nothing.
fn masked(frame: Outgoing) -> Vec<u8> {
    let (mut pieces, mut tail) = (VecDeque::new(), BytesMut::new());
    encode(frame, &mut pieces, &mut tail);
    let mut bytes: Vec<u8> = pieces.into_iter().flatten().chain(tail).collect();
    let header = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    bytes[1] |= 0x80;
    bytes.splice(header..header, [0; 4]);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = decode(std::iter::once(bytes));
    assert_eq!(decode(bytes.chunks(usize::from(*cut) + 1)), whole, "the cut changes nothing");
    assert!(whole.0.len() as u64 <= whole.2 + 1);
    for message in whole.0 {
        let (outgoing, length, length_max) = match &message {
            Message::Text(text) => (Outgoing::Text(Bytes::from(text.clone())), text.len(), MESSAGE_BYTES_MAX),
            Message::Binary(bytes) => (Outgoing::Binary(Bytes::from(bytes.clone())), bytes.len(), MESSAGE_BYTES_MAX),
            Message::Ping(bytes) => (Outgoing::Pong(Bytes::from(bytes.clone())), bytes.len(), CONTROL_BYTES_MAX),
            Message::Pong => (Outgoing::Ping, 0, 0),
            Message::Close(code) => (Outgoing::Close(code.map(|code| (code, "ü".repeat(100)))), 0, 0),
        };
        assert!(length <= length_max, "{length} bytes");
        let meant = match message {
            Message::Ping(_) => Message::Pong,
            Message::Pong => Message::Ping(Vec::new()),
            same => same,
        };
        assert_eq!(decode(std::iter::once(&masked(outgoing)[..])), (vec![meant], Ok(()), 1));
    }
});
