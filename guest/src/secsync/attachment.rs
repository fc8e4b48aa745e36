//! What the host keeps for a connection between calls (docs/protocols/secsync.md, section 10, "Mapping to stateless calls").
//!
//! Shape: a format tag (1), then length-prefixed `docId` and session key, the number of bad frames in a row, and the
//! marks of quiet refusals (section 5.2), newest first. Numbers are LEB128.

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};

const FORMAT: u8 = 1;
/// A connection has one author and one snapshot at a time; more marks than this are a client that plays games.
const MARKS_MAX: usize = 4;

/// The last refused clock of an author on a snapshot. Both are kept as a short hash, so that the size is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    author_and_snapshot: [u8; 16],
    clock: u64,
}

/// The state of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The document of the connection.
    pub doc_id: String,
    /// The session key; any text, also the empty one.
    pub session_key: String,
    /// Frames in a row that were no JSON or had no usable `publicData`.
    pub bad_frames: u64,
    marks: Vec<Mark>,
}

impl Attachment {
    /// Of a connection that was just opened.
    pub fn new(doc_id: impl Into<String>, session_key: impl Into<String>) -> Self {
        Self { doc_id: doc_id.into(), session_key: session_key.into(), bad_frames: 0, marks: Vec::new() }
    }

    /// Notes a refused update. True if the client need not hear of it: the update before it was refused as well, so
    /// the client has this one already among what it sends again.
    pub fn refused(&mut self, pub_key: &str, ref_snapshot_id: &str, clock: u64) -> bool {
        let author_and_snapshot = short_hash(pub_key, ref_snapshot_id);
        let previous = self.marks.iter().position(|mark| mark.author_and_snapshot == author_and_snapshot).map(|at| self.marks.remove(at));
        self.marks.insert(0, Mark { author_and_snapshot, clock });
        self.marks.truncate(MARKS_MAX);
        previous.is_some_and(|mark| mark.clock.checked_add(1) == Some(clock))
    }

    /// An update was accepted: the author and the server agree again.
    pub fn accepted(&mut self, pub_key: &str, ref_snapshot_id: &str) {
        let author_and_snapshot = short_hash(pub_key, ref_snapshot_id);
        self.marks.retain(|mark| mark.author_and_snapshot != author_and_snapshot);
    }

    /// As bytes for the host.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for text in [&self.doc_id, &self.session_key] {
            put_number(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        put_number(&mut out, self.bad_frames);
        put_number(&mut out, self.marks.len() as u64);
        for mark in &self.marks {
            out.extend_from_slice(&mark.author_and_snapshot);
            put_number(&mut out, mark.clock);
        }
        out
    }

    /// From the host's bytes; none if another version (or nobody) of this room wrote them.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, mut rest) = bytes.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let doc_id = take_text(&mut rest)?;
        let session_key = take_text(&mut rest)?;
        let bad_frames = take_number(&mut rest)?;
        let count = take_number(&mut rest)?;
        if count > MARKS_MAX as u64 {
            return None;
        }
        let mut marks = Vec::new();
        for _ in 0..count {
            let (hash, after) = rest.split_first_chunk::<16>()?;
            rest = after;
            marks.push(Mark { author_and_snapshot: *hash, clock: take_number(&mut rest)? });
        }
        rest.is_empty().then_some(Self { doc_id, session_key, bad_frames, marks })
    }
}

fn short_hash(pub_key: &str, ref_snapshot_id: &str) -> [u8; 16] {
    let mut hasher = Blake2b::<U16>::new();
    hasher.update((pub_key.len() as u64).to_le_bytes());
    hasher.update(pub_key);
    hasher.update(ref_snapshot_id);
    hasher.finalize().into()
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pipelined_updates_behind_a_refused_one_are_quiet_until_one_is_accepted() {
        let mut attachment = Attachment::new("doc", "key");
        assert!(!attachment.refused("a", "s", 5));
        assert!(attachment.refused("a", "s", 6));
        assert!(attachment.refused("a", "s", 7));
        assert!(!attachment.refused("a", "s", 5), "the client starts over");
        assert!(attachment.refused("a", "s", 6));
        attachment.accepted("a", "s");
        assert!(!attachment.refused("a", "s", 7));
    }

    #[test]
    fn authors_and_snapshots_have_marks_of_their_own_and_only_a_few_are_kept() {
        let mut attachment = Attachment::new("doc", "key");
        assert!(!attachment.refused("a", "s", 0));
        assert!(!attachment.refused("b", "s", 1));
        assert!(!attachment.refused("a", "t", 1));
        assert!(attachment.refused("a", "s", 1));
        for author in 0..100 {
            attachment.refused(&author.to_string(), "s", 0);
        }
        assert!(attachment.encode().len() < 200);
        assert!(!attachment.refused("a", "s", 2));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(doc_id: String, session_key: String, bad_frames: u64, refusals in proptest::collection::vec((0u8..3, 0u8..3, any::<u64>()), 0..9)) {
            let mut attachment = Attachment::new(doc_id, session_key);
            attachment.bad_frames = bad_frames;
            for (author, snapshot, clock) in refusals {
                attachment.refused(&author.to_string(), &snapshot.to_string(), clock);
            }
            prop_assert_eq!(Attachment::decode(&attachment.encode()), Some(attachment));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_back_the_same(mut bytes: Vec<u8>, tagged: bool) {
            if tagged {
                bytes.insert(0, FORMAT);
            }
            if let Some(attachment) = Attachment::decode(&bytes) {
                prop_assert_eq!(Attachment::decode(&attachment.encode()), Some(attachment));
            }
        }
    }
}
