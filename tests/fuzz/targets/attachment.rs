//! What the host keeps for a connection: bytes of any origin are refused or read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syncline_guest::secsync::attachment::Attachment;

/// Document id and session key are of the client; all else is bounded.
const OVERHEAD_BYTES_MAX: usize = 200;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut attachment) = Attachment::decode(bytes) else { return };
    assert_eq!(Attachment::decode(&attachment.encode()).as_ref(), Some(&attachment), "what is encoded is decoded again");
    for clock in 0..6 {
        attachment.refused("author", &clock.to_string(), clock);
    }
    let encoded = attachment.encode();
    assert!(encoded.len() <= attachment.doc_id.len() + attachment.session_key.len() + OVERHEAD_BYTES_MAX, "{} bytes", encoded.len());
    assert!(attachment.refused("author", "5", 6), "the update behind a refused one is quiet");
    attachment.accepted("author", "5");
    assert!(!attachment.refused("author", "5", 7), "after an accepted one it is not");
});
