//! Frames of the load, made so that they cost little while it runs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use syncline_tests::secsync::Author;

use crate::wire::client_frame;

/// Plaintext bytes of an update: some typing.
const CONTENT_BYTES: usize = 100;
/// What an update weighs as JSON, for the raw rows.
pub const UPDATE_BYTES: usize = 560;

/// Where an update goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The document.
    pub document: String,
    /// Its active snapshot.
    pub snapshot: String,
}

/// An author's updates at a place, one clock after the other.
pub struct Updates {
    author: Author,
    place: Place,
    clock: u64,
    /// Signed beforehand, in reverse; none where signatures are not checked.
    signed: Option<Vec<String>>,
    before_clock: String,
    after_clock: String,
}

impl Updates {
    /// Updates whose signatures nobody checks.
    pub fn unsigned(author: Author, place: Place) -> Self {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let Place { document, snapshot } = &place;
        let before_clock = format!(
            r#"{{"ciphertext":"{}","nonce":"{}","publicData":{{"docId":"{document}","pubKey":"{}","refSnapshotId":"{snapshot}","clock":"#,
            encode(&[7; 48 + CONTENT_BYTES]),
            encode(&[3; 24]),
            author.public_key()
        );
        let after_clock = format!(r#"}},"signature":"{}"}}"#, encode(&[0; 64]));
        Self { author, place, clock: 0, signed: None, before_clock, after_clock }
    }

    /// Updates that are signed, so many of them beforehand.
    pub fn signed(author: Author, place: Place, count: u64) -> Self {
        let mut updates = Self::unsigned(author, place);
        updates.signed = Some((0..count).rev().map(|clock| updates.sign(clock)).collect());
        updates
    }

    fn sign(&self, clock: u64) -> String {
        self.author.update(&self.place.document, &self.place.snapshot, clock, &[9; CONTENT_BYTES]).to_string()
    }

    /// The next one as text.
    pub fn next_text(&mut self) -> String {
        let clock = self.clock;
        self.clock += 1;
        match &mut self.signed {
            None => format!("{}{clock}{}", self.before_clock, self.after_clock),
            // Signed while it is measured if there were too few: the round is slower, never wrong.
            Some(signed) => match signed.pop() {
                Some(text) => text,
                None => self.sign(clock),
            },
        }
    }

    /// The next one as a frame.
    pub fn next_frame(&mut self) -> Vec<u8> {
        client_frame(&self.next_text())
    }
}

/// An ephemeral message whose signature nobody checks; the same again and again is fine with the server.
pub fn ephemeral(author: &Author, document: &str) -> Vec<u8> {
    client_frame(&author.ephemeral(document, &[5; CONTENT_BYTES]).to_string())
}
