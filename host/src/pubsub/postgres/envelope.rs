//! How publications travel: packed into packets, which fit into a notification or lie in a table.
//!
//! A packet has the number that its sender gave it: whoever hears one twice drops it, and whoever misses one knows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;

use crate::pubsub::{Class, Close, Order, Publication};

/// Tells this format from those of other versions.
const FORMAT: u8 = 1;
/// Bytes of a packet that fits into a notification: PostgreSQL takes less than 8000 characters.
pub(super) const INLINE_BYTES_MAX: usize = 5_900;
/// Bytes of a packet before its first publication.
pub(super) const HEAD_BYTES: usize = 17;
/// What a notification begins with whose packet is in it.
const INLINE: char = 'i';
/// What a notification begins with whose packet is in the table.
const STORED: char = 's';

/// Who sent a packet, and which one of its it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PacketId {
    /// Random, another one for each backend.
    pub(super) origin: u64,
    /// One more than that of the packet before it.
    pub(super) number: u64,
}

/// A publication with who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The process that published it, which does not get it back.
    pub(super) process: u64,
    /// The mount whose topic it is.
    pub(super) mount: String,
    /// Itself.
    pub(super) publication: Publication,
}

/// What a notification holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A packet, with the publications in it.
    Packet(PacketId, Vec<Sent>),
    /// A packet that lies in the table.
    Stored(PacketId),
}

/// What came is not of this version, or of nobody who speaks this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a notification that is not understood")]
pub(super) struct NotUnderstood;

impl PacketId {
    /// As the table has it.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.origin.to_be_bytes(), self.number.to_be_bytes()].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        let mut reader = Reader(bytes);
        let id = Self { origin: reader.u64()?, number: reader.u64()? };
        if reader.0.is_empty() { Ok(id) } else { Err(NotUnderstood) }
    }

    /// The text of a notification that says where the packet is.
    pub(super) fn notice(self) -> String {
        format!("{STORED}{}", STANDARD_NO_PAD.encode(self.to_bytes()))
    }
}

/// A packet of publications that were encoded before.
pub(super) fn packet<'a>(id: PacketId, publications: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend(id.to_bytes());
    publications.into_iter().for_each(|publication| bytes.extend(publication));
    bytes
}

/// The text of a notification that holds a packet.
pub(super) fn notice_of(packet: &[u8]) -> String {
    format!("{INLINE}{}", STANDARD_NO_PAD.encode(packet))
}

/// What a notification says.
pub(super) fn read_notice(text: &str) -> Result<Notice, NotUnderstood> {
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| NotUnderstood);
    if let Some(text) = text.strip_prefix(INLINE) {
        let (id, publications) = read_packet(&decode(text)?)?;
        return Ok(Notice::Packet(id, publications));
    }
    let text = text.strip_prefix(STORED).ok_or(NotUnderstood)?;
    Ok(Notice::Stored(PacketId::from_bytes(&decode(text)?)?))
}

/// What a packet holds.
pub(super) fn read_packet(bytes: &[u8]) -> Result<(PacketId, Vec<Sent>), NotUnderstood> {
    let mut reader = Reader(bytes);
    if reader.u8()? != FORMAT {
        return Err(NotUnderstood);
    }
    let id = PacketId { origin: reader.u64()?, number: reader.u64()? };
    let mut publications = Vec::new();
    while !reader.0.is_empty() {
        publications.push(reader.sent()?);
    }
    Ok((id, publications))
}

/// Encodes a publication.
pub(super) fn encode(process: u64, mount: &str, publication: &Publication) -> Vec<u8> {
    let Publication { topic, message, order, class, except, close } = publication;
    let mut bytes = Vec::with_capacity(topic.len() + message.len() + mount.len() + 64);
    bytes.extend(process.to_be_bytes());
    let put = |bytes: &mut Vec<u8>, text: &[u8]| {
        // Nothing that a component hands over is longer (`limits::TRANSFER_BYTES_MAX`).
        bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(text);
    };
    put(&mut bytes, mount.as_bytes());
    put(&mut bytes, topic.as_bytes());
    put(&mut bytes, message);
    bytes.push(order.is_some().into());
    if let Some(Order { key, after, sequence }) = order {
        put(&mut bytes, key.as_bytes());
        bytes.extend(after.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
    }
    match class {
        Class::MustDeliver => bytes.push(0),
        Class::Droppable => bytes.push(1),
        Class::Latest(key) => {
            bytes.push(2);
            put(&mut bytes, key.as_bytes());
        }
    }
    bytes.push(except.is_some().into());
    bytes.extend(except.iter().flat_map(|except| except.to_be_bytes()));
    bytes.push(close.is_some().into());
    if let Some(Close { code, reason }) = close {
        bytes.extend(code.to_be_bytes());
        put(&mut bytes, reason.as_bytes());
    }
    bytes
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotUnderstood> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotUnderstood)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotUnderstood> {
        self.take(N)?.try_into().map_err(|_| NotUnderstood)
    }

    fn u8(&mut self) -> Result<u8, NotUnderstood> {
        self.array().map(u8::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, NotUnderstood> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], NotUnderstood> {
        let length = self.array().map(u32::from_be_bytes)?;
        self.take(usize::try_from(length).map_err(|_| NotUnderstood)?)
    }

    fn text(&mut self) -> Result<String, NotUnderstood> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| NotUnderstood)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, NotUnderstood>) -> Result<Option<T>, NotUnderstood> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(NotUnderstood),
        }
    }

    fn sent(&mut self) -> Result<Sent, NotUnderstood> {
        let (process, mount, topic) = (self.u64()?, self.text()?, self.text()?);
        let message = Bytes::copy_from_slice(self.bytes()?);
        let order = self.optional(|reader| Ok(Order { key: reader.text()?, after: reader.u64()?, sequence: reader.u64()? }))?;
        let class = match self.u8()? {
            0 => Class::MustDeliver,
            1 => Class::Droppable,
            2 => Class::Latest(self.text()?),
            _ => return Err(NotUnderstood),
        };
        let except = self.optional(Self::u64)?;
        let close = self.optional(|reader| Ok(Close { code: reader.array().map(u16::from_be_bytes)?, reason: reader.text()? }))?;
        Ok(Sent { process, mount, publication: Publication { topic, message, order, class, except, close } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn publications() -> impl Strategy<Value = Sent> {
        let order = option::of((".{0,9}", any::<u64>(), any::<u64>()));
        let class = prop_oneof![Just(Class::MustDeliver), Just(Class::Droppable), ".{0,9}".prop_map(Class::Latest)];
        let close = option::of((any::<u16>(), ".{0,9}"));
        let message = prop::collection::vec(any::<u8>(), 0..200);
        (any::<u64>(), ".{0,9}", ".{0,30}", message, order, class, option::of(any::<u64>()), close).prop_map(
            |(process, mount, topic, message, order, class, except, close)| Sent {
                process,
                mount,
                publication: Publication {
                    topic,
                    message: message.into(),
                    order: order.map(|(key, after, sequence)| Order { key, after, sequence }),
                    class,
                    except,
                    close: close.map(|(code, reason)| Close { code, reason }),
                },
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_again(origin: u64, number: u64, sent in prop::collection::vec(publications(), 0..6)) {
            let id = PacketId { origin, number };
            let encoded: Vec<_> = sent.iter().map(|one| encode(one.process, &one.mount, &one.publication)).collect();
            let packet = packet(id, &encoded);
            prop_assert_eq!(packet.len(), HEAD_BYTES + encoded.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(read_notice(&notice_of(&packet)), Ok(Notice::Packet(id, sent)));
            prop_assert_eq!(read_notice(&id.notice()), Ok(Notice::Stored(id)));
        }

        #[test]
        fn nothing_else_is_taken_for_a_packet(sent in publications(), cut in 1_usize..40, text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let whole = packet(PacketId { origin: 1, number: 2 }, [&encode(sent.process, &sent.mount, &sent.publication)]);
            let shorter = &whole[..whole.len().saturating_sub(cut).max(HEAD_BYTES + 1)];
            prop_assert!(shorter.len() == whole.len() || read_packet(shorter) == Err(NotUnderstood));
            // Neither falls.
            let _ = (read_notice(&text), read_packet(&bytes), read_notice(&format!("{INLINE}{text}")));
        }
    }

    #[test]
    fn the_largest_packet_for_a_notification_is_one_that_postgres_takes() {
        assert!(notice_of(&vec![255; INLINE_BYTES_MAX]).len() < 8000);
    }
}
