//! Frames of RFC 6455 as a server reads and writes them: no extensions, so no inflate. A state machine without IO.
//!
//! Why not a library's: a limit that changes while a message is under way, no memory for what a header merely announces,
//! none kept for the longest message ever seen, and texts handed over without a copy.

use bytes::{Bytes, BytesMut};

/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// The longest header of a client: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// What is reserved for a message at once, however much its header announces.
const RESERVED_BYTES_MAX: usize = 64 << 10;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// An answer to a ping, or none.
    Pong,
    /// The end: the code, if there is one.
    Close(Option<u16>),
}

/// What a client must not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message beyond the limit, refused from its header.
    #[error("the message is too large")]
    TooLarge,
    /// A text or a close reason that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// What RFC 6455 forbids.
    #[error("{0}")]
    Protocol(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Header {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Payload bytes that are still to come.
    left: u64,
}

#[derive(Debug)]
struct Partial {
    text: bool,
    bytes: Vec<u8>,
    /// More than one frame makes it up, so nobody knows how long it gets.
    fragmented: bool,
}

/// The beginning of a header.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

/// Puts messages together from bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    head: Head,
    frame: Option<Header>,
    /// The message under way; control frames may come in between.
    message: Option<Partial>,
    /// Payload of the control frame under way.
    control: Vec<u8>,
    frames: u64,
}

impl Decoder {
    /// Takes bytes from the front of `input` until a message is complete; none: all are taken and more must come. A message
    /// may have so many bytes. After an error nothing may follow.
    pub fn decode(&mut self, input: &mut &[u8], message_bytes_max: u64) -> Result<Option<Message>, FrameError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.header(input)? {
                    Some(frame) => self.begin(frame, message_bytes_max)?,
                    None => return Ok(None),
                },
            };
            self.payload(&mut frame, input);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(message) = self.end(frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// Bytes that are held for a message that is not complete.
    pub fn held_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.bytes.capacity()) + self.control.capacity()
    }

    /// Complete frames since this was asked last, fragments and control frames among them.
    pub fn take_frame_count(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }

    /// Whether something has begun that is not complete.
    pub fn has_begun(&self) -> bool {
        self.frame.is_some() || self.message.is_some() || self.head.length > 0
    }

    /// The next header, once it is whole.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, FrameError> {
        loop {
            let taken = self.head.length;
            let wanted = match (taken, self.head.bytes[1] & 0x7f) {
                (0 | 1, _) => 2,
                (_, 126) => 8,
                (_, 127) => HEADER_BYTES_MAX,
                _ => 6,
            };
            if taken == wanted {
                self.head.length = 0;
                return parse_header(&self.head.bytes[..wanted]).map(Some);
            }
            let (some, rest) = input.split_at(input.len().min(wanted - taken));
            if some.is_empty() {
                return Ok(None);
            }
            *input = rest;
            self.head.bytes[taken..taken + some.len()].copy_from_slice(some);
            self.head.length += some.len();
            // What is wrong with the first two bytes needs no further ones.
            if self.head.length == 2 {
                check_start(self.head.bytes[0], self.head.bytes[1])?;
            }
        }
    }

    fn begin(&mut self, frame: Header, message_bytes_max: u64) -> Result<Header, FrameError> {
        if frame.opcode >= CLOSE {
            return Ok(frame);
        }
        match (frame.opcode, &self.message) {
            (CONTINUATION, None) => return Err(FrameError::Protocol("a continuation of nothing")),
            (TEXT | BINARY, Some(_)) => return Err(FrameError::Protocol("a message within a message")),
            _ => {}
        }
        let fresh = || Partial { text: frame.opcode == TEXT, bytes: Vec::new(), fragmented: !frame.last };
        let message = self.message.get_or_insert_with(fresh);
        let held = u64::try_from(message.bytes.len()).unwrap_or(u64::MAX);
        if held.saturating_add(frame.left) > message_bytes_max {
            return Err(FrameError::TooLarge);
        }
        Ok(frame)
    }

    /// Takes what there is of a payload and unmasks it.
    fn payload(&mut self, frame: &mut Header, input: &mut &[u8]) {
        let count = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        let (some, rest) = input.split_at(count);
        *input = rest;
        let bytes = match &mut self.message {
            Some(message) if frame.opcode < CLOSE => {
                make_room(message, count, frame.left);
                &mut message.bytes
            }
            _ => &mut self.control,
        };
        let start = bytes.len();
        bytes.extend_from_slice(some);
        unmask(&mut bytes[start..], frame.mask);
        frame.mask.rotate_left(count % 4);
        frame.left -= u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// A frame is complete; the message, if that is complete too.
    fn end(&mut self, frame: Header) -> Result<Option<Message>, FrameError> {
        self.frames += 1;
        match frame.opcode {
            CLOSE => close_code(&std::mem::take(&mut self.control)).map(|code| Some(Message::Close(code))),
            PING => Ok(Some(Message::Ping(std::mem::take(&mut self.control)))),
            PONG => {
                self.control = Vec::new();
                Ok(Some(Message::Pong))
            }
            _ if !frame.last => Ok(None),
            _ => match self.message.take() {
                Some(Partial { text: true, bytes, .. }) => {
                    String::from_utf8(bytes).map(|text| Some(Message::Text(text))).map_err(|_| FrameError::NotUtf8)
                }
                Some(Partial { text: false, bytes, .. }) => Ok(Some(Message::Binary(bytes))),
                None => Ok(None),
            },
        }
    }
}

/// Refuses what the first two bytes of a header are enough to refuse.
fn check_start(first: u8, second: u8) -> Result<(), FrameError> {
    let opcode = first & 0x0f;
    let refused = |reason| Err(FrameError::Protocol(reason));
    match () {
        () if first & 0x70 != 0 => refused("a reserved bit"),
        () if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) => refused("an unknown opcode"),
        () if second & 0x80 == 0 => refused("a frame without a mask"),
        () if opcode >= CLOSE && first & 0x80 == 0 => refused("a control frame in fragments"),
        () if opcode >= CLOSE && u64::from(second & 0x7f) > CONTROL_BYTES_MAX => refused("a control frame that is too large"),
        () => Ok(()),
    }
}

/// A header of the right length.
fn parse_header(head: &[u8]) -> Result<Header, FrameError> {
    let (Some(mask), Some(length)) = (head.last_chunk::<4>(), head.get(2..head.len().saturating_sub(4))) else {
        return Err(FrameError::Protocol("half of a header"));
    };
    let left = match length {
        [] => u64::from(head[1] & 0x7f),
        length => length.iter().fold(0_u64, |left, byte| left << 8 | u64::from(*byte)),
    };
    if left > i64::MAX.cast_unsigned() {
        return Err(FrameError::Protocol("a length that is none"));
    }
    Ok(Header { last: head[0] & 0x80 != 0, opcode: head[0] & 0x0f, mask: *mask, left })
}

/// Room for what is there, and for more of what was announced: it doubles, and never exceeds it.
fn make_room(message: &mut Partial, count: usize, announced: u64) {
    let bytes = &mut message.bytes;
    if bytes.capacity() - bytes.len() >= count {
        return;
    }
    if message.fragmented {
        bytes.reserve(count);
    } else {
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        bytes.reserve_exact(announced.min(bytes.len().max(RESERVED_BYTES_MAX)).max(count));
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Some(eight) = chunk.first_chunk_mut::<8>() {
            *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
        }
    }
    chunks.into_remainder().iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The code of a close frame's payload.
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    match payload.split_first_chunk::<2>() {
        None if payload.is_empty() => Ok(None),
        None => Err(FrameError::Protocol("half of a close code")),
        Some((code, reason)) => match u16::from_be_bytes(*code) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => match std::str::from_utf8(reason) {
                Ok(_) => Ok(Some(code)),
                Err(_) => Err(FrameError::NotUtf8),
            },
            _ => Err(FrameError::Protocol("a close code that is none")),
        },
    }
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// UTF-8.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
    /// Asks for a sign of life.
    Ping,
    /// Answers a ping.
    Pong(Bytes),
    /// The end: code and reason, if there is a code.
    Close(Option<(u16, String)>),
}

/// Payloads up to here are put behind their headers; longer ones are sent from where they are.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Appends a frame to what is to be written: short pieces to `tail`, long payloads as pieces of their own.
pub fn encode(frame: Outgoing, pieces: &mut std::collections::VecDeque<Bytes>, tail: &mut BytesMut) {
    let (opcode, payload) = match frame {
        Outgoing::Text(payload) => (TEXT, payload),
        Outgoing::Binary(payload) => (BINARY, payload),
        Outgoing::Ping => (PING, Bytes::new()),
        Outgoing::Pong(payload) => (PONG, payload),
        Outgoing::Close(None) => (CLOSE, Bytes::new()),
        Outgoing::Close(Some((code, reason))) => {
            let most = usize::try_from(CONTROL_BYTES_MAX).unwrap_or(usize::MAX) - 2;
            let reason = &reason[..reason.floor_char_boundary(most)];
            (CLOSE, [&code.to_be_bytes()[..], reason.as_bytes()].concat().into())
        }
    };
    let copied = if payload.len() <= COPIED_BYTES_MAX { payload.len() } else { 0 };
    tail.reserve(HEADER_BYTES_MAX + copied);
    let first = 0x80 | opcode;
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => tail.extend_from_slice(&[first, length]),
        (_, Ok(length)) => {
            tail.extend_from_slice(&[first, 126]);
            tail.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            tail.extend_from_slice(&[first, 127]);
            tail.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    if copied == payload.len() {
        tail.extend_from_slice(&payload);
    } else {
        pieces.push_back(tail.split().freeze());
        pieces.push_back(payload);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const FIN: u8 = 0x80;
    const LIMIT: u64 = 1 << 20;

    fn header(first: u8, length: u64, mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..=65535 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes
    }

    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = header(first, payload.len().try_into().unwrap(), mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn decode_all(decoder: &mut Decoder, mut input: &[u8]) -> Result<Vec<Message>, FrameError> {
        let mut messages = Vec::new();
        while let Some(message) = decoder.decode(&mut input, LIMIT)? {
            messages.push(message);
        }
        assert!(input.is_empty());
        Ok(messages)
    }

    #[test]
    fn a_header_beyond_the_limit_is_refused_without_memory_for_it() {
        for (length, max, refused) in [(100 << 20, 64 << 10, true), (i64::MAX.cast_unsigned(), LIMIT, true), (LIMIT, LIMIT, false)] {
            let mut decoder = Decoder::default();
            let result = decoder.decode(&mut header(FIN | BINARY, length, [1; 4]).as_slice(), max);
            assert_eq!(result, if refused { Err(FrameError::TooLarge) } else { Ok(None) });
            assert_eq!(decoder.held_bytes(), 0);
        }
        let mut decoder = Decoder::default();
        let start = [header(FIN | BINARY, LIMIT, [1; 4]), vec![7; 100]].concat();
        assert_eq!(decoder.decode(&mut start.as_slice(), LIMIT), Ok(None));
        assert!(decoder.held_bytes() <= RESERVED_BYTES_MAX, "what is only announced takes no memory");
    }

    #[test]
    fn the_limit_may_change_between_frames_and_fragments_add_up() {
        let mut decoder = Decoder::default();
        let pieces = [frame(TEXT, &[b'a'; 60], [1; 4]), frame(CONTINUATION, &[b'b'; 60], [2; 4])].concat();
        assert_eq!(decoder.decode(&mut pieces.as_slice(), 100), Err(FrameError::TooLarge));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&mut &pieces[..66], 100), Ok(None));
        assert_eq!(decoder.decode(&mut &pieces[66..], 1000), Ok(None));
        let last = frame(FIN | CONTINUATION, b"", [0; 4]);
        let text = "a".repeat(60) + &"b".repeat(60);
        assert_eq!(decoder.decode(&mut last.as_slice(), 100), Err(FrameError::TooLarge));
        let mut decoder = Decoder::default();
        let messages = decode_all(&mut decoder, &[pieces, last].concat());
        assert_eq!(messages, Ok(vec![Message::Text(text)]));
        assert_eq!((decoder.held_bytes(), decoder.has_begun()), (0, false));
    }

    #[test]
    fn a_message_never_takes_more_memory_than_twice_what_came() {
        let mut decoder = Decoder::default();
        let bytes = frame(FIN | BINARY, &vec![3; 1 << 20], [9; 4]);
        for (index, chunk) in bytes.chunks(10_000).enumerate() {
            let mut input = chunk;
            if let Some(message) = decoder.decode(&mut input, LIMIT).unwrap() {
                let Message::Binary(payload) = message else { panic!("{message:?}") };
                assert_eq!(payload.capacity(), 1 << 20, "nor more than was announced");
                return;
            }
            assert!(decoder.held_bytes() <= RESERVED_BYTES_MAX.max(2 * (index + 1) * 10_000));
        }
        panic!("the message is complete");
    }

    #[test]
    fn frames_are_written_as_the_rules_say() {
        let written = |frame| {
            let (mut pieces, mut tail) = (VecDeque::new(), BytesMut::new());
            encode(frame, &mut pieces, &mut tail);
            pieces.push_back(tail.freeze());
            pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>()
        };
        assert_eq!(written(Outgoing::Text("ab".into())), [0x81, 2, b'a', b'b']);
        assert_eq!(written(Outgoing::Ping), [0x89, 0]);
        assert_eq!(written(Outgoing::Pong(Bytes::from_static(b"x"))), [0x8a, 1, b'x']);
        assert_eq!(written(Outgoing::Close(None)), [0x88, 0]);
        assert_eq!(written(Outgoing::Close(Some((1001, "bye".into())))), [0x88, 5, 3, 0xe9, b'b', b'y', b'e']);
        assert_eq!(written(Outgoing::Close(Some((1001, "ä".repeat(100))))).len(), 2 + 2 + 122);
        for (length, head) in [(125, 2), (126, 4), (4096, 4), (4097, 4), (65535, 4), (65536, 10)] {
            let bytes = written(Outgoing::Binary(vec![5; length].into()));
            assert_eq!(bytes.len(), head + length);
            assert!(bytes[head..].iter().all(|byte| *byte == 5));
        }
    }

    prop_compose! {
        fn message()(kind in 0_u8..4, length in prop_oneof![0_usize..130, 60_000_usize..70_000], seed: u8) -> Message {
            let bytes: Vec<u8> = (0..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            match kind {
                0 => Message::Text(bytes.iter().map(|byte| char::from(*byte)).collect()),
                1 => Message::Binary(bytes),
                2 => Message::Ping(bytes.into_iter().take(125).collect()),
                _ => Message::Pong,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(message(), 0..6),
            fragment_bytes in 1_usize..40_000,
            read_bytes in 1_usize..20_000,
            mask: [u8; 4],
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                let (opcode, payload) = match message {
                    Message::Text(text) => (TEXT, text.as_bytes()),
                    Message::Binary(bytes) => (BINARY, bytes.as_slice()),
                    Message::Ping(bytes) => { wire.extend(frame(FIN | PING, bytes, mask)); continue; }
                    _ => { wire.extend(frame(FIN | PONG, b"p", mask)); continue; }
                };
                let mut opcode = opcode;
                for piece in payload.chunks(fragment_bytes) {
                    wire.extend(frame(opcode, piece, mask));
                    opcode = CONTINUATION;
                }
                wire.extend(frame(FIN | opcode, b"", mask));
            }
            let (mut decoder, mut decoded) = (Decoder::default(), Vec::new());
            for chunk in wire.chunks(read_bytes) {
                decoded.extend(decode_all(&mut decoder, chunk).unwrap());
            }
            prop_assert_eq!(decoded, messages);
            prop_assert!(!decoder.has_begun());
        }

        #[test]
        fn any_bytes_give_messages_or_an_error_and_hold_no_more_than_came(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x82), Just(0x80), Just(0x01)], 0..400),
        ) {
            let mut decoder = Decoder::default();
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = decoder.decode(&mut input, LIMIT) {}
            prop_assert!(decoder.held_bytes() <= RESERVED_BYTES_MAX + 256);
        }
    }
}
