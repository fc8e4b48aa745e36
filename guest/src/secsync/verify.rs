//! What can be checked without the key: shapes, hashes, signatures, parent proofs (docs/protocols/secsync.md, sections 3 and 9).

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use ed25519_dalek::{Signature, VerifyingKey};

use super::frames::{Kind, Signed, push_json_text};
use crate::encoding::{base64url, base64url_array, base64url_decode};

/// Commitment tag and AEAD tag: no ciphertext is shorter.
const CIPHERTEXT_BYTES_MIN: usize = 48;

/// Whether a text is strict base64 of exactly `N` bytes.
pub fn is_base64_of<const N: usize>(text: &str) -> bool {
    base64url_array::<N>(text).is_some()
}

/// Whether key, nonce, signature and ciphertext have the lengths of section 3.
pub fn has_well_formed_fields(signed: &Signed<'_>) -> bool {
    is_base64_of::<32>(&signed.pub_key)
        && is_base64_of::<24>(&signed.nonce)
        && is_base64_of::<64>(&signed.signature)
        && base64url_decode(&signed.ciphertext).is_some_and(|bytes| bytes.len() >= CIPHERTEXT_BYTES_MIN)
}

/// BLAKE2b with 32 bytes of output, as base64. For a ciphertext it is taken over its base64 text.
pub fn hash(text: &str) -> String {
    base64url(Blake2b::<U32>::digest(text))
}

/// Whether the author signed a frame. Small-order and non-canonical keys, non-canonical R and S >= L are refused.
pub fn is_signed(kind: Kind, signed: &Signed<'_>) -> bool {
    let Some(pub_key) = base64url_array::<32>(&signed.pub_key).filter(is_canonical_point) else { return false };
    let Some(signature) = base64url_array::<64>(&signed.signature) else { return false };
    let Ok(verifying_key) = VerifyingKey::from_bytes(&pub_key) else { return false };
    verifying_key.verify_strict(signed_text(kind, signed).as_bytes(), &Signature::from_bytes(&signature)).is_ok()
}

/// The context, then canonical JSON of ciphertext, nonce and the base64 of the canonical public data.
fn signed_text(kind: Kind, signed: &Signed<'_>) -> String {
    let mut text = String::with_capacity(signed.ciphertext.len() + signed.nonce.len() + signed.public_json.len() * 4 / 3 + 128);
    text.push_str(kind.signature_context());
    text.push_str(r#"{"ciphertext":"#);
    push_json_text(&mut text, &signed.ciphertext);
    text.push_str(r#","nonce":"#);
    push_json_text(&mut text, &signed.nonce);
    text.push_str(r#","publicData":""#);
    text.push_str(&base64url(&signed.public_json));
    text.push_str(r#""}"#);
    text
}

/// Whether the y coordinate of an encoded point is below 2^255 - 19.
fn is_canonical_point(encoded: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = encoded;
    *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// `parentSnapshotProof` of a child of a snapshot (section 3.4). All three are empty for a first snapshot.
pub fn parent_snapshot_proof(grand_parent_snapshot_proof: &str, parent_snapshot_ciphertext_hash: &str, parent_snapshot_id: &str) -> String {
    let mut text = String::from(r#"{"grandParentSnapshotProof":"#);
    push_json_text(&mut text, grand_parent_snapshot_proof);
    text.push_str(r#","parentSnapshotCiphertextHash":"#);
    push_json_text(&mut text, parent_snapshot_ciphertext_hash);
    text.push_str(r#","parentSnapshotId":"#);
    push_json_text(&mut text, parent_snapshot_id);
    text.push('}');
    hash(&text)
}
